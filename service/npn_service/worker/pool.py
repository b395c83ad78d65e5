"""Warm worker processes: importing torch takes seconds, which no job should wait for."""

import time
from typing import Final

import structlog

from .child import Child, ChildEnded

_FIRST_PAUSE: Final = 1.0
_LONGEST_PAUSE: Final = 60.0

_log = structlog.get_logger(__name__)


class WorkerPool:
    """Keeps processes ready for `size` jobs at a time; each process runs one job.

    While any of them works there is one more than `size`, so that the next job finds a warm one too.  All
    methods are for one thread, which must live as long as the processes (see Child).
    """

    def __init__(self, *, size: int, target: str) -> None:
        self._size = size
        self._target = target
        self._idle: list[Child] = []
        self._pause = _FIRST_PAUSE
        self._not_before = 0.0  # when, after a process that did not start, the next may be tried

    def refill(self, *, working: int) -> None:
        """Start the processes that are missing, given that `working` were taken and still run."""
        missing = self._size + (working > 0) - working - len(self._idle)
        if time.monotonic() >= self._not_before:
            self._idle += [Child(self._target) for _ in range(missing)]

    def take(self) -> Child | None:
        """A warm process, now the caller's; None when there is none at the moment."""
        for child in list(self._idle):
            try:
                ready = child.ready()
            except ChildEnded as ended:
                self._drop(child, str(ended))
                continue
            if ready:
                self._idle.remove(child)
                self._pause = _FIRST_PAUSE
                return child
        return None

    def put_back(self, child: Child) -> None:
        """Return a process that was given nothing to do."""
        self._idle.insert(0, child)

    def stop(self) -> None:
        """End the processes that nobody took."""
        for child in self._idle:
            child.close()
        self._idle.clear()

    def _drop(self, child: Child, cause: str) -> None:
        _log.error("worker.lost_idle", cause=cause, stderr=child.stderr_tail())
        child.close()
        self._idle.remove(child)
        self._not_before = time.monotonic() + self._pause
        self._pause = min(2 * self._pause, _LONGEST_PAUSE)
