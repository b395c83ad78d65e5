"""Watching over real gRPC: lost connections, silence, expired events."""

from collections.abc import Iterator

import grpc
import pytest
from scripted_server import SILENCE, ScriptedServer, changed, job, progressed

from npn.v1 import compression_pb2 as pb
from npn_client import (
    Client,
    Job,
    JobCancelled,
    JobFailed,
    JobState,
    NotFound,
    Progressed,
    StateChanged,
    watching,
)


@pytest.fixture
def scripted() -> Iterator[ScriptedServer]:
    """A server that does as it is told."""
    with ScriptedServer() as server:
        yield server


@pytest.fixture
def handle(scripted: ScriptedServer) -> Iterator[Job]:
    """The scripted job, queued."""
    with Client(scripted.address) as client:
        yield client.get_job("1")


def resumed_after(scripted: ScriptedServer) -> list[int | None]:
    """Where each watch asked to go on."""
    return [
        request.after_sequence if request.HasField("after_sequence") else None
        for request in scripted.requests["WatchJob"]
    ]


def test_every_state_change_arrives_once_and_in_order(scripted: ScriptedServer, handle: Job) -> None:
    """Streams that die, end silently, repeat themselves and answer UNAVAILABLE lose and double nothing."""
    scripted.streams.extend(
        [
            [changed(pb.JOB_STATE_QUEUED, 1), grpc.StatusCode.UNAVAILABLE],
            [changed(pb.JOB_STATE_RUNNING, 2), progressed(3, step=10)],
            [grpc.StatusCode.UNAVAILABLE],
            [changed(pb.JOB_STATE_RUNNING, 2), progressed(3, step=10), progressed(5, step=30)],
            [],
            [changed(pb.JOB_STATE_QUEUED, 6), changed(pb.JOB_STATE_RUNNING, 7), grpc.StatusCode.CANCELLED],
            [changed(pb.JOB_STATE_SUCCEEDED, 9), changed(pb.JOB_STATE_FAILED, 10)],
        ]
    )
    events = list(handle.watch())
    assert [event.sequence for event in events] == [1, 2, 3, 5, 6, 7, 9]
    states = [event.job.state.value for event in events if isinstance(event, StateChanged)]
    assert states == ["QUEUED", "RUNNING", "QUEUED", "RUNNING", "SUCCEEDED"]
    assert resumed_after(scripted) == [None, 1, 3, 3, 5, 5, 7]


def test_the_handle_knows_what_the_watch_told(scripted: ScriptedServer, handle: Job) -> None:
    """State and progress of the handle follow the events."""
    scripted.streams.append(
        [
            changed(pb.JOB_STATE_RUNNING, 2),
            progressed(3, step=10),
            changed(pb.JOB_STATE_SUCCEEDED, 4, result=pb.Result(compact=pb.Cost(params=7))),
        ]
    )
    watch = handle.watch()
    next(watch)
    assert handle.state is JobState.RUNNING
    event = next(watch)
    assert isinstance(event, Progressed)
    assert handle.progress == event.progress
    assert list(watch)
    assert handle.done
    assert handle.result().compact.params == 7


def test_a_silent_stream_is_left(
    scripted: ScriptedServer, handle: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a heartbeat the connection counts as lost, and the watch goes on elsewhere."""
    monkeypatch.setattr("npn_client.calls.SILENCE", 0.2)
    scripted.streams.extend(
        [[changed(pb.JOB_STATE_RUNNING, 2), SILENCE], [changed(pb.JOB_STATE_CANCELLED, 3)]]
    )
    assert [event.sequence for event in handle.watch()] == [2, 3]
    assert resumed_after(scripted) == [None, 2]


def test_a_stream_of_its_full_length_is_followed_by_another(
    scripted: ScriptedServer, handle: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even a watch has a deadline per call; reaching it is no news to the caller."""
    monkeypatch.setattr(watching, "LONGEST_STREAM", 0.2)
    scripted.streams.extend(
        [[changed(pb.JOB_STATE_RUNNING, 2), SILENCE], [changed(pb.JOB_STATE_CANCELLED, 3)]]
    )
    assert [event.sequence for event in handle.watch()] == [2, 3]


def test_expired_events(scripted: ScriptedServer, handle: Job) -> None:
    """OUT_OF_RANGE starts the watch again from the current state."""
    scripted.streams.extend(
        [
            [changed(pb.JOB_STATE_RUNNING, 2)],
            [grpc.StatusCode.OUT_OF_RANGE],
            [changed(pb.JOB_STATE_SUCCEEDED, 90)],
        ]
    )
    assert [event.sequence for event in handle.watch()] == [2, 90]
    assert resumed_after(scripted) == [None, 2, None]


def test_wait_returns_every_terminal_state(scripted: ScriptedServer, handle: Job) -> None:
    """`wait` does not judge; `result` does."""
    error = pb.Job(error={"code": 3, "message": "no such array"}).error
    scripted.streams.append([changed(pb.JOB_STATE_FAILED, 2, error=error)])
    assert handle.wait().state is JobState.FAILED
    with pytest.raises(JobFailed, match="jobs/1 failed: no such array") as raised:
        handle.result()
    assert raised.value.error.code == "INVALID_ARGUMENT"
    assert len(scripted.requests["WatchJob"]) == 1


def test_result_of_a_cancelled_job(scripted: ScriptedServer, handle: Job) -> None:
    """A cancelled job has an exception of its own."""
    scripted.streams.append([changed(pb.JOB_STATE_CANCELLED, 2)])
    with pytest.raises(JobCancelled):
        handle.result()


def test_a_timeout_leaves_the_job_running(scripted: ScriptedServer, handle: Job) -> None:
    """Waiting ends with TimeoutError, in a stream as between two, and cancels nothing."""
    scripted.streams.append([changed(pb.JOB_STATE_RUNNING, 2), SILENCE])
    with pytest.raises(TimeoutError, match="jobs/1 is not done yet"):
        handle.wait(timeout=0.3)
    with pytest.raises(TimeoutError):
        handle.result(timeout=0.3)
    assert not scripted.requests["CancelJob"]
    assert handle.state is JobState.RUNNING


def test_an_abandoned_watch_is_cancelled(scripted: ScriptedServer, handle: Job) -> None:
    """Leaving the loop frees the stream on the server."""
    scripted.streams.append([changed(pb.JOB_STATE_RUNNING, 2), SILENCE])
    for _ in handle.watch():
        break
    scripted.streams.append([changed(pb.JOB_STATE_SUCCEEDED, 3)])
    assert handle.wait(timeout=10).done


def test_a_deleted_job_ends_the_watch(scripted: ScriptedServer, handle: Job) -> None:
    """NOT_FOUND is an answer, not an interruption."""
    scripted.streams.extend([[changed(pb.JOB_STATE_RUNNING, 2)], [grpc.StatusCode.NOT_FOUND]])
    with pytest.raises(NotFound):
        handle.wait(timeout=10)


def test_old_news_do_not_replace_newer(scripted: ScriptedServer, handle: Job) -> None:
    """A refresh that was overtaken by the watch changes nothing."""
    scripted.streams.append([changed(pb.JOB_STATE_RUNNING, 5), changed(pb.JOB_STATE_SUCCEEDED, 6)])
    handle.wait()
    scripted.job = job(pb.JOB_STATE_RUNNING, 5)
    assert handle.refresh().state is JobState.SUCCEEDED
