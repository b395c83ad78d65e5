"""Where a watch stands, without a server."""

import pytest
from scripted_server import changed, progressed

from npn.v1 import compression_pb2 as pb
from npn_client import Cancelled, DeadlineExceeded, NotFound, OutOfRange, Unavailable
from npn_client.watching import PATIENCE, WatchCursor


def cursor_at(sequence: int, timeout: float | None = None) -> WatchCursor:
    """A watch that has seen the event of this number."""
    cursor = WatchCursor("jobs/1", timeout)
    assert cursor.receive(changed(pb.JOB_STATE_RUNNING, sequence)) is not None
    return cursor


def test_begins_with_the_current_state_and_resumes_after_the_last_event() -> None:
    """The first request names no number, a later one the last that came."""
    assert not WatchCursor("jobs/1", None).request().HasField("after_sequence")
    assert cursor_at(7).request().after_sequence == 7


def test_what_was_seen_is_not_seen_again() -> None:
    """Repeated and late events are dropped, heartbeats move nothing."""
    cursor = cursor_at(7)
    assert cursor.receive(changed(pb.JOB_STATE_RUNNING, 7)) is None
    assert cursor.receive(progressed(6)) is None
    assert cursor.receive(pb.WatchJobResponse(sequence=9, heartbeat=pb.Heartbeat())) is None
    assert cursor.receive(progressed(8)) is not None
    assert cursor.request().after_sequence == 8


def test_done_is_the_jobs_word_alone() -> None:
    """Neither a stream's end nor a state ends a watch: `done` does."""
    cursor = cursor_at(1)
    cursor.interrupted(None)
    assert not cursor.done
    cursor.receive(changed(pb.JOB_STATE_SUCCEEDED, 2))
    assert cursor.done


def test_expired_events_start_again_from_the_current_state() -> None:
    """OUT_OF_RANGE forgets the number, once: without a number it is an error like any other."""
    cursor = cursor_at(7)
    assert cursor.interrupted(OutOfRange("expired")) == 0
    assert not cursor.request().HasField("after_sequence")
    with pytest.raises(OutOfRange):
        cursor.interrupted(OutOfRange("expired"))


@pytest.mark.parametrize("error", [None, Unavailable("away"), Cancelled("stopping")])
def test_waits_grow_while_nothing_comes(error: Unavailable | None) -> None:
    """Reconnecting backs off up to a few seconds, and begins anew after an event."""
    cursor = cursor_at(1)
    waits = [cursor.interrupted(error) for _ in range(12)]
    assert 0.1 <= waits[0] <= 0.2
    assert 2.5 <= waits[-1] <= 5
    cursor.receive(progressed(2))
    assert cursor.interrupted(error) <= 0.2


def test_a_stream_that_had_its_time_is_followed_at_once() -> None:
    """Each stream has a deadline; the watch goes on without a pause."""
    assert cursor_at(1).interrupted(DeadlineExceeded("over")) == 0


def test_errors_that_do_not_pass_are_raised() -> None:
    """A deleted job ends the watch."""
    with pytest.raises(NotFound):
        cursor_at(1).interrupted(NotFound("gone"))


def test_gives_up_after_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that stays away for good is reported."""
    cursor = cursor_at(1)
    now = cursor._connected
    monkeypatch.setattr("time.monotonic", lambda: now + PATIENCE + 1)
    with pytest.raises(Unavailable):
        cursor.interrupted(Unavailable("away"))


def test_the_deadline_is_a_timeout() -> None:
    """At the deadline a watch raises TimeoutError, and no stream outlives it."""
    cursor = cursor_at(1, timeout=0)
    assert cursor.stream_seconds() == 0
    with pytest.raises(TimeoutError, match="goes on running"):
        cursor.interrupted(DeadlineExceeded("over"))
