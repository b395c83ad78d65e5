"""The inspector: a process with limits of its own reads what callers uploaded; the server never does."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import structlog

from npn_service.errors import Unavailable
from npn_service.jobs.model import JobError

from .child import Child, ChildEnded
from .failures import INTERNAL, INVALID_ARGUMENT
from .messages import Inspected, Inspection

_START_SECONDS: Final = 60.0
_MAX_WAITING: Final = 64

_CRASHED: Final = JobError(
    code=INVALID_ARGUMENT,
    reason="DATASET_UNREADABLE",
    message="the dataset cannot be read: checking it crashed the reader; write the file anew",
    field="dataset.uri",
)

_log = structlog.get_logger(__name__)


class Inspector:
    """Asks one warm process, one question at a time; a process that crashes or hangs is replaced.

    `start` and `stop` block for milliseconds.
    """

    def __init__(self, *, timeout: float = 10.0, target: str = "npn_service.worker.inspection:serve") -> None:
        self._timeout = timeout
        self._target = target
        self._child: Child | None = None
        self._waiting = 0
        self._stopped = False
        self._lock = threading.Lock()  # held where a process is made, so that `stop` misses none
        # One thread makes every process, asks it, and lives as long as it does.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="inspector")

    def start(self) -> None:
        """Start the process; it is warm some seconds later, and questions wait for that."""
        self._thread.submit(self._replace).result()

    def stop(self) -> None:
        """End the process; questions that wait, and later ones, raise Unavailable."""
        with self._lock:
            self._stopped = True
            if self._child is not None:
                self._child.kill()
        self._thread.shutdown()
        if self._child is not None:
            self._child.close()

    async def inspect(self, inspection: Inspection) -> Inspected:
        """The plan of a job, or what is wrong with it; an input that crashes the process is wrong.

        Raises Unavailable when no answer comes in time (`timeout` seconds, once it is this question's turn).
        """
        if self._stopped or self._waiting >= _MAX_WAITING:
            raise Unavailable("too many jobs are being checked; try again")
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, self._ask, inspection)
        finally:
            self._waiting -= 1

    def _ask(self, inspection: Inspection) -> Inspected:
        child = self._warm()
        try:
            child.send(inspection)
            answer = child.receive(self._timeout)
        except ChildEnded as ended:
            self._replace(str(ended))
            return Inspected(plan=None, error=_CRASHED)
        if not isinstance(answer, Inspected):
            self._replace("it did not answer in time")
            raise Unavailable(f"the dataset could not be checked within {self._timeout:g} s; try again")
        if answer.error is not None and answer.error.code == INTERNAL:
            _log.error("inspector.defect", stderr=child.stderr_tail())
        return answer

    def _warm(self) -> Child:
        """The process, once it is ready; a fresh one if it died since the last question."""
        try:
            if self._child is not None and self._child.ready(_START_SECONDS):
                return self._child
            cause = "it did not start in time"
        except ChildEnded as ended:
            cause = str(ended)
        child = self._replace(cause)
        try:
            if child.ready(_START_SECONDS):
                return child
        except ChildEnded as ended:
            _log.error("inspector.broken", cause=str(ended), stderr=child.stderr_tail())
        raise Unavailable("datasets cannot be checked now; try again later")

    def _replace(self, cause: str = "") -> Child:
        with self._lock:
            if self._stopped:
                raise Unavailable("the server is shutting down")
            if self._child is not None:
                _log.warning("inspector.replaced", cause=cause, stderr=self._child.stderr_tail())
                self._child.close()
            self._child = Child(self._target)
            return self._child
