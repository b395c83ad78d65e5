"""rpc/status.py: what callers are told when something is raised."""

from collections.abc import Iterator

import pytest
from google.rpc import error_details_pb2, status_pb2
from google.rpc.code_pb2 import Code
from grpc import StatusCode

from npn_core.errors import CoreError, InfeasibleBudget, InvalidInput
from npn_service.errors import InvalidRequest, LimitExceeded, NotFound, Quota, ServiceError, Unavailable
from npn_service.rpc.status import CODES, make_status, status_of

# These end inside a worker process, as the job's error; no call raises them.
INSIDE_WORKERS = {"AccuracyNotMet", "CheckpointRefused", "TrainingDiverged", "Stopped"}


def leaves(root: type[Exception]) -> Iterator[type[Exception]]:
    """Every class below `root` that can be raised: all but the root itself."""
    for child in root.__subclasses__():
        yield child
        yield from leaves(child)


def details(status: status_pb2.Status) -> tuple[error_details_pb2.ErrorInfo, error_details_pb2.BadRequest]:
    """The two kinds of details, empty where the status has none."""
    info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    for detail in status.details:
        assert detail.Unpack(info) or detail.Unpack(bad)
    return info, bad


@pytest.mark.parametrize("kind", [*leaves(ServiceError), *leaves(CoreError)], ids=lambda kind: kind.__name__)
def test_every_exception_has_a_status(kind: type[Exception]) -> None:
    """A new exception cannot be forgotten in the table."""
    assert (kind in CODES) != (kind.__name__ in INSIDE_WORKERS)


@pytest.mark.parametrize("code", CODES.values())
def test_codes_are_the_numbers_of_google_rpc(code: StatusCode) -> None:
    """gRPC's status codes and google.rpc.Code agree on the number that goes into the status."""
    assert Code.Value(code.name) == code.value[0]


def test_a_wrong_field_is_named() -> None:
    """InvalidRequest gives INVALID_ARGUMENT with reason, domain and the field's path."""
    status = status_of(InvalidRequest("job.model", "no such model", reason="UNSUPPORTED"))
    info, bad = details(status)
    assert (status.code, status.message) == (Code.INVALID_ARGUMENT, "no such model")
    assert (info.reason, info.domain) == ("UNSUPPORTED", "npn")
    assert [(entry.field, entry.description) for entry in bad.field_violations] == [
        ("job.model", "no such model")
    ]


@pytest.mark.parametrize("kind", [InvalidInput, InfeasibleBudget])
def test_fields_of_the_method_are_paths_in_the_request(kind: type[InvalidInput]) -> None:
    """What the method calls training.epochs is job.training.epochs to the caller."""
    _, bad = details(status_of(kind("training.epochs", "too few")))
    assert bad.field_violations[0].field == "job.training.epochs"


def test_other_refusals_carry_their_reason_alone() -> None:
    """NotFound has no field violations."""
    status = status_of(NotFound("jobs/1 does not exist"))
    info, bad = details(status)
    assert status.code == Code.NOT_FOUND
    assert info.reason == "NOT_FOUND"
    assert not bad.field_violations


def test_a_defect_tells_nothing_but_an_id() -> None:
    """An unknown exception becomes INTERNAL without its text."""
    status = status_of(OSError("/secret/path"))
    assert status.code == Code.INTERNAL
    assert "secret" not in str(status)
    assert "incident" in status.message


def test_long_texts_fit_into_headers() -> None:
    """A megabyte in a field does not make a status that the transport drops."""
    text = "日" * 1_000_000
    status = status_of(InvalidRequest(text, text))
    assert len(status.SerializeToString()) < 4000
    assert status.message.endswith("…")


def test_short_texts_stay_as_they_are() -> None:
    """Texts within the limit are not touched."""
    assert make_status(3, "REASON", "x" * 1000).message == "x" * 1000


def test_an_owners_limit_tells_its_numbers() -> None:
    """QuotaFailure says whose limit and what to do, ErrorInfo what is allowed, there and asked."""
    quota = Quota(owner="vision", what="queued_jobs", limit=5, used=5, asked=1)
    status = status_of(LimitExceeded("wait", reason="QUEUED_JOBS_LIMIT", quota=quota))
    info, failure = error_details_pb2.ErrorInfo(), error_details_pb2.QuotaFailure()
    assert [status.details[0].Unpack(info), status.details[1].Unpack(failure)] == [True, True]
    assert dict(info.metadata) == {"what": "queued_jobs", "limit": "5", "used": "5", "asked": "1"}
    assert [(entry.subject, entry.description) for entry in failure.violations] == [("owner:vision", "wait")]


def test_what_passes_by_itself_says_when_to_come_back() -> None:
    """Every Unavailable carries a RetryInfo."""
    status = status_of(Unavailable("full", reason="DISK_FULL", retry_seconds=30.0))
    retry = error_details_pb2.RetryInfo()
    assert status.details[1].Unpack(retry)
    assert retry.retry_delay.seconds == 30
