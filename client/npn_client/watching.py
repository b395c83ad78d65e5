"""Where a watch stands: which event came last, and what to do when the stream breaks.  Transport-free.

A stream's end is never taken for the job's: the watch goes on until a job with `done` has come.
"""

import logging
import math
import time

from . import decode, retry
from ._pb import pb
from .errors import ClientError, DeadlineExceeded, OutOfRange
from .model import Event, StateChanged

SILENCE = 45.0  # seconds without even a heartbeat, after which the stream counts as lost
PATIENCE = 600.0  # seconds without any connection, after which the watch gives up
LONGEST_STREAM = 3600.0  # seconds; every call has a deadline, a longer watch reconnects

log = logging.getLogger("npn_client")


class WatchCursor:
    """One watch of the job `name`, at most `timeout` seconds long; `done` after the terminal state."""

    def __init__(self, name: str, timeout: float | None) -> None:
        now = time.monotonic()
        self.name = name
        self.done = False
        self._deadline = math.inf if timeout is None else now + timeout
        self._last: int | None = None
        self._failures = 0
        self._connected = now

    def request(self) -> pb.WatchJobRequest:
        """Asks for what comes after the last event, or for the current state first."""
        return pb.WatchJobRequest(name=self.name, after_sequence=self._last)

    def stream_seconds(self) -> float:
        """Deadline of the next stream."""
        return max(0.0, min(LONGEST_STREAM, self._left()))

    def receive(self, response: pb.WatchJobResponse) -> Event | None:
        """The event to pass on; None for heartbeats and for what was seen before."""
        self._connected = time.monotonic()
        event = decode.event(response)
        if event is None:
            self._failures = 0
            return None
        if self._last is not None and event.sequence <= self._last:
            return None
        self._failures = 0
        self._last = event.sequence
        self.done = isinstance(event, StateChanged) and event.job.done
        return event

    def interrupted(self, error: ClientError | None) -> float:
        """Seconds to wait before the next stream; `error` is None where the stream ended silently.

        Raises TimeoutError at the deadline, and `error` when reconnecting would not help.
        """
        if self._left() <= 0:
            raise TimeoutError(f"{self.name} is not done yet; it goes on running") from None
        if isinstance(error, OutOfRange) and self._last is not None:
            self._last = None  # those events are no longer kept: start again from the current state
            return 0.0
        if isinstance(error, DeadlineExceeded):  # the stream had its time
            return 0.0
        lost = time.monotonic() - self._connected > PATIENCE
        if error is not None and (lost or not isinstance(error, retry.PASSING)):
            raise error
        self._failures += 1
        wait = retry.delay(self._failures)
        if self._failures == 1:
            log.warning("%s: %s; reconnecting", self.name, error or "the watch ended early")
        return max(0.0, min(wait, self._left()))

    def _left(self) -> float:
        return self._deadline - time.monotonic()
