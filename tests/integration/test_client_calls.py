"""Single calls over real gRPC: retries, deadlines, errors, pages."""

import time
from collections.abc import Iterator

import grpc
import pytest
from scripted_server import ScriptedServer, job

from npn.v1 import compression_pb2 as pb
from npn_client import (
    Budget,
    Client,
    DeadlineExceeded,
    FailedPrecondition,
    InvalidArgument,
    JobState,
    Unavailable,
)


@pytest.fixture
def scripted() -> Iterator[ScriptedServer]:
    """A server that does as it is told."""
    with ScriptedServer() as server:
        yield server


@pytest.fixture
def client(scripted: ScriptedServer) -> Iterator[Client]:
    """A client of it."""
    with Client(scripted.address, timeout=10) as client:
        yield client


def test_idempotent_calls_are_retried(scripted: ScriptedServer, client: Client) -> None:
    """UNAVAILABLE is tried again until it passes."""
    scripted.faults["GetServerInfo"].extend([grpc.StatusCode.UNAVAILABLE] * 3)
    assert client.server_info().version == "scripted"
    assert len(scripted.requests["GetServerInfo"]) == 4


def test_create_is_retried_with_the_same_request_id(scripted: ScriptedServer, client: Client) -> None:
    """A CreateJob whose answer got lost gives one job: the retry carries the same request_id."""
    scripted.faults["CreateJob"].append(grpc.StatusCode.UNAVAILABLE)
    handle = client.compress("mlp", dataset="objects/1", budget=Budget(max_params=10))
    assert handle.id == "1"
    first, second = scripted.requests["CreateJob"]
    assert first.request_id == second.request_id != ""


def test_other_errors_are_not_retried(scripted: ScriptedServer, client: Client) -> None:
    """Only UNAVAILABLE passes by itself."""
    scripted.faults["GetJob"].append(grpc.StatusCode.RESOURCE_EXHAUSTED)
    with pytest.raises(Exception, match="scripted fault of GetJob"):
        client.get_job("1")
    assert len(scripted.requests["GetJob"]) == 1


def test_calls_that_are_not_idempotent_are_not_retried(scripted: ScriptedServer, client: Client) -> None:
    """A delete may have happened; its caller decides."""
    scripted.faults["DeleteJob"].append(grpc.StatusCode.UNAVAILABLE)
    with pytest.raises(Unavailable):
        client.get_job("1").delete()
    assert len(scripted.requests["DeleteJob"]) == 1


def test_no_server() -> None:
    """Where nobody listens the client says so after a few attempts, not after the whole deadline."""
    started = time.monotonic()
    with Client("127.0.0.1:1") as client, pytest.raises(Unavailable):
        client.server_info()
    assert time.monotonic() - started < 10


def test_every_call_has_a_deadline(scripted: ScriptedServer) -> None:
    """Retries stay within the client's timeout."""
    scripted.faults["GetServerInfo"].extend([grpc.StatusCode.UNAVAILABLE] * 100)
    started = time.monotonic()
    with (
        Client(scripted.address, timeout=0.3) as client,
        pytest.raises((DeadlineExceeded, Unavailable)),
    ):
        client.server_info()
    assert time.monotonic() - started < 2


def test_state_that_does_not_allow_the_call(scripted: ScriptedServer, client: Client) -> None:
    """FAILED_PRECONDITION has an exception of its own."""
    scripted.faults["CancelJob"].append(grpc.StatusCode.FAILED_PRECONDITION)
    with pytest.raises(FailedPrecondition):
        client.get_job("1").cancel()


def test_cancel_and_refresh(scripted: ScriptedServer, client: Client) -> None:
    """The handle shows what the server answered."""
    handle = client.get_job("jobs/1")
    assert handle.cancel().state is JobState.CANCELLING
    scripted.job = job(pb.JOB_STATE_CANCELLED, 9)
    assert handle.refresh().done
    assert [request.name for request in scripted.requests["GetJob"]] == ["jobs/1"] * 2


def test_list_walks_all_pages(scripted: ScriptedServer, client: Client) -> None:
    """Pages are fetched one by one, as they are needed, with the same filter."""
    jobs = client.list_jobs(state="running", labels={"a": "b"})
    assert next(jobs).name == "jobs/1"
    assert len(scripted.requests["ListJobs"]) == 1
    assert [item.id for item in jobs] == ["2", "3"]
    filters = {request.filter for request in scripted.requests["ListJobs"]}
    assert filters == {'state = RUNNING AND labels.a = "b"'}


def test_plan_creates_nothing(scripted: ScriptedServer, client: Client) -> None:
    """A plan is a CreateJob that only validates."""
    scripted.job = pb.Job(plan=pb.Plan(dense=pb.Cost(params=100), smallest=pb.Cost(params=3)))
    plan = client.plan("mlp", dataset="objects/1", budget=Budget(max_params=10))
    assert (plan.dense.params, plan.smallest.params) == (100, 3)
    assert [request.validate_only for request in scripted.requests["CreateJob"]] == [True]


def test_a_missing_file_is_found_before_anything_is_sent(scripted: ScriptedServer, client: Client) -> None:
    """A local dataset that is not there names the field."""
    with pytest.raises(InvalidArgument, match=r"there is no file absent\.npz"):
        client.compress("mlp", dataset="absent.npz", budget=Budget(max_params=10))
    assert not scripted.requests
