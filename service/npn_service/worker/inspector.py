"""The inspector: a process with limits of its own reads what callers uploaded; the server never does."""

import asyncio
import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from types import MappingProxyType
from typing import Final

import structlog

from npn_service.errors import Unavailable
from npn_service.jobs.model import JobError

from .child import Child, ChildEnded
from .failures import INTERNAL, INVALID_ARGUMENT
from .messages import Inspected, Inspection, Reading

_START_SECONDS: Final = 60.0
_MAX_WAITING: Final = 64

# What a crash means, by the field that was being read.
_CRASHED: Final[Mapping[str, JobError]] = MappingProxyType(
    {
        field: JobError(
            code=INVALID_ARGUMENT,
            reason=reason,
            message=f"the {what} cannot be read: checking it crashed the reader; {instead}",
            field=field,
        )
        for field, reason, what, instead in (
            ("dataset.uri", "DATASET_UNREADABLE", "dataset", "write the file anew"),
            ("model.uri", "MODEL_UNREADABLE", "model", "export it anew"),
            ("model.architecture.params", "ARCHITECTURE_UNFIT", "architecture", "use other parameters"),
        )
    }
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
        """Start the process; it is warm some seconds later, and the first questions wait for that in line."""
        self._thread.submit(self._replace).result()
        self._thread.submit(self._warm_up)

    def stop(self) -> None:
        """End the process; questions that wait, and later ones, raise Unavailable."""
        with self._lock:
            self._stopped = True
            if self._child is not None:
                self._child.kill()
        self._thread.shutdown()
        if self._child is not None:
            self._child.close()

    async def inspect(self, inspection: Inspection) -> Inspected | None:
        """The plan of a job, or what is wrong with it; an input that crashes the process is wrong.

        None when there is no answer within `timeout` seconds, the wait for other questions and for a process that
        still starts included.  Raises Unavailable when too many wait, or nothing can be asked.
        """
        if self._stopped or self._waiting >= _MAX_WAITING:
            raise Unavailable("too many jobs are being checked; try again")
        self._waiting += 1
        try:
            deadline = time.monotonic() + self._timeout
            asked = asyncio.get_running_loop().run_in_executor(self._thread, self._ask, inspection, deadline)
            done, _ = await asyncio.wait({asked}, timeout=self._timeout + 0.5)  # the process is killed first
            return asked.result() if done or not asked.cancel() else None
        finally:
            self._waiting -= 1

    def _ask(self, inspection: Inspection, deadline: float) -> Inspected | None:
        child = self._warm()
        if time.monotonic() >= deadline:  # it waited too long: nothing was asked, and the process is well
            return None
        field = "dataset.uri"
        try:
            child.send(inspection)
            while (left := deadline - time.monotonic()) > 0:
                answer = child.receive(left)
                if isinstance(answer, Inspected):
                    if answer.error is not None and answer.error.code == INTERNAL:
                        _log.error("inspector.defect", stderr=child.stderr_tail())
                    return answer
                if isinstance(answer, Reading):
                    field = answer.field
        except ChildEnded as ended:
            self._replace(str(ended))
            return Inspected(plan=None, error=_CRASHED[field])
        self._replace(f"it did not answer in time about {field}")
        return None

    def _warm_up(self) -> None:
        self._warm()
        _log.info("inspector.ready")

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
        raise Unavailable("jobs cannot be checked now; try again later")

    def _replace(self, cause: str = "") -> Child:
        with self._lock:
            if self._stopped:
                raise Unavailable("the server is shutting down")
            if self._child is not None:
                _log.warning("inspector.replaced", cause=cause, stderr=self._child.stderr_tail())
                self._child.close()
            self._child = Child(self._target, niceness=0)  # a call waits for it
            return self._child
