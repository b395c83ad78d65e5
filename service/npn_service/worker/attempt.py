"""One attempt at a job, seen from the server: hand it to a worker, follow the worker, settle how it ended."""

import math
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Protocol

import structlog
from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_exponential

from npn_core.progress import Progress
from npn_service.errors import InvalidRequest, LostLease, NotFound, ServiceError, Unavailable
from npn_service.jobs.manager import JobManager
from npn_service.jobs.model import Job, JobError, JobResult, State
from npn_service.jobs.store import JobStore
from npn_service.storage.store import ObjectStore

from .child import Child, ChildEnded
from .failures import DEADLINE_EXCEEDED, INTERNAL, INVALID_ARGUMENT
from .leases import Lease, LeaseKeeper
from .messages import Assignment, Cancel, Cancelled, Failed, Finished, Reported

_TICK_SECONDS: Final = 0.1
_PROGRESS_SECONDS: Final = 0.5  # a write each
_GRACE_SECONDS: Final = 1.0

_log = structlog.get_logger(__name__)


class DispatchObserver(Protocol):
    """What the metrics want to know.  Called from the dispatcher's threads."""

    def job_leased(self, job: Job, *, queued_seconds: float) -> None:
        """A job's first attempt starts after `queued_seconds` in the queue."""

    def job_ended(self, *, outcome: str, seconds: float) -> None:
        """An attempt ended after `seconds`: "succeeded", "failed", "cancelled", "released" or "lost"."""

    def progress_made(self, job: Job, progress: Progress) -> None:
        """A worker reported."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Released:
    """The attempt ended through no fault of the job; `counts` as in `JobStore.release_job`."""

    cause: str
    counts: bool


Ending = Finished | Failed | Cancelled | Released


@dataclass(frozen=True, kw_only=True, slots=True)
class Service:
    """What attempts need of the server.  `draining` is set when the server shuts down."""

    store: JobStore
    objects: ObjectStore
    manager: JobManager
    observer: DispatchObserver
    folder: Path
    leases: LeaseKeeper
    lease_seconds: float
    draining: threading.Event


class Attempt:
    """The attempt at the job of `lease`, in the process `child`, which is closed at the end."""

    def __init__(self, service: Service, lease: Lease, child: Child) -> None:
        self._service = service
        self._lease = lease
        self._job = job = lease.job
        self._child = child
        self._output = service.folder / f"{job.id}-{job.attempt}"
        self._started = time.monotonic()
        self._unrecorded: Progress | None = None
        self._recorded = -math.inf

    def run(self) -> None:
        """Blocks until the attempt is settled and its process gone; raises nothing."""
        outcome = "lost"
        with structlog.contextvars.bound_contextvars(job=self._job.name, attempt=self._job.attempt):
            _log.info("attempt.started", worker=self._child.pid)
            try:
                outcome = self._settle(self._work())
            except LostLease:
                _log.warning("attempt.lost_lease")
            except Exception:  # the lease runs out and another attempt starts
                _log.exception("attempt.abandoned")
            finally:
                self._service.leases.drop(self._lease)
                self._child.close()
                shutil.rmtree(self._output, ignore_errors=True)
            seconds = time.monotonic() - self._started
            _log.info("attempt.ended", outcome=outcome, seconds=round(seconds, 3))
            self._service.observer.job_ended(outcome=outcome, seconds=seconds)

    def _work(self) -> Ending:
        """Have the worker run the job; returns how that ended."""
        spec = self._job.spec
        try:
            inputs = self._service.manager.inputs(owner=self._job.owner, spec=spec)
        except InvalidRequest as error:
            return Failed(error=_invalid(error))
        for number in range(1, self._job.attempt):  # what a server stored that died before the commit
            self._service.objects.delete_prefix(replace(self._job, attempt=number).attempt_prefix)
        self._output.mkdir()
        try:
            self._child.send(
                Assignment(
                    job=self._job.name,
                    attempt=self._job.attempt,
                    spec=spec,
                    dataset=inputs.dataset,
                    model=inputs.model,
                    output=self._output,
                )
            )
            return self._follow()
        except ChildEnded as ended:
            return Released(cause=str(ended), counts=True)

    def _follow(self) -> Ending:
        limit = math.inf if self._job.spec.max_duration is None else self._job.spec.max_duration
        deadline = self._started + limit
        kill_at = math.inf
        while True:
            message = self._child.receive(_TICK_SECONDS)
            match message:
                case Finished() | Failed() | Cancelled():
                    return message
                case Reported(progress=progress):
                    self._service.observer.progress_made(self._job, progress)
                    self._unrecorded = progress
                case None:
                    pass
                case _:
                    return Released(cause="the worker sent a message that is not understood", counts=True)
            now = time.monotonic()
            if self._service.draining.is_set():
                return Released(cause="the server shut down", counts=False)
            if now >= deadline:
                return Failed(error=_too_long(limit))
            if now >= kill_at:
                return Cancelled()
            self._record_progress(pause=_PROGRESS_SECONDS)
            if self._lease.check() is State.CANCELLING and kill_at == math.inf:
                self._child.send(Cancel())
                kill_at = now + _GRACE_SECONDS

    def _record_progress(self, *, pause: float = 0.0) -> None:
        """Store the newest progress, `pause` seconds after the last; a failure loses that one progress."""
        now = time.monotonic()
        if self._unrecorded is None or now - self._recorded < pause:
            return
        progress, self._unrecorded, self._recorded = self._unrecorded, None, now
        try:
            self._service.store.record_progress(
                job_id=self._job.id, attempt=self._job.attempt, progress=progress
            )
        except Unavailable as error:
            _log.warning("attempt.store_unavailable", error=error.message)

    def _settle(self, ending: Ending) -> str:
        """Make the ending the job's, publishing what it made; returns the outcome.  Raises LostLease."""
        self._child.kill()
        self._log_trouble(ending)
        try:
            if isinstance(ending, Finished):
                self._record_progress()
                ending = self._upload(ending)
                if not isinstance(ending, Finished):
                    self._service.objects.delete_prefix(self._job.attempt_prefix)
            job = self._commit(ending)
        except LostLease:
            self._discard()
            raise
        return "released" if job.state is State.QUEUED else job.state.value

    def _upload(self, finished: Finished) -> Ending:
        """Store the artifact under the attempt's prefix, where nobody looks before the commit."""
        for file in finished.files:
            source = self._output / file.path
            if not source.resolve().is_relative_to(self._output.resolve()) or not source.is_file():
                return Released(cause="the worker's artifact lacks a file that it names", counts=True)
            try:
                self._service.objects.put_file(self._job.attempt_prefix + file.path, source)
            except (OSError, ServiceError):
                _log.exception("attempt.not_stored", file=file.path)
                return Released(cause="the artifact could not be stored", counts=True)
            if self._lease.check() is State.CANCELLING:
                return Cancelled()
        return finished

    def _commit(self, ending: Ending) -> Job:
        store = self._service.store
        match ending:
            case Finished():
                result = JobResult(
                    dense=ending.dense,
                    compact=ending.compact,
                    metrics=ending.metrics,
                    files=ending.files,
                    train_time=ending.train_time,
                )
                return self._patiently(store.finish_job, result=result)
            case Failed(error=error):
                return self._patiently(store.fail_job, error=error)
            case Cancelled():
                return self._patiently(store.confirm_cancel)
            case Released(cause=cause, counts=counts):
                return self._patiently(store.release_job, cause=cause, counts=counts)

    def _patiently(self, call: Callable[..., Job], **how: object) -> Job:
        """Repeat the store's call while the store is out of reach, as long as the lease may hold."""
        retrying = Retrying(
            retry=retry_if_exception_type(Unavailable),
            stop=stop_after_delay(self._service.lease_seconds),
            wait=wait_exponential(0.1, max=2),
            reraise=True,
        )
        return retrying(call, job_id=self._job.id, attempt=self._job.attempt, **how)

    def _discard(self) -> None:
        """Remove what a lost attempt stored, unless it is what the job published after all.

        That is so where a commit succeeded whose answer never came: its repetition finds the lease gone.
        """
        try:
            job = self._service.store.get_job(owner=self._job.owner, job_id=self._job.id)
        except NotFound:
            job = None
        if job is None or job.state is not State.SUCCEEDED or job.attempt != self._job.attempt:
            self._service.objects.delete_prefix(self._job.attempt_prefix)

    def _log_trouble(self, ending: Ending) -> None:
        match ending:
            case Released(cause=cause, counts=True):
                _log.error("worker.lost", cause=cause, stderr=self._child.stderr_tail())
            case Failed(error=JobError(code=code)) if code == INTERNAL:
                _log.error("worker.defect", stderr=self._child.stderr_tail())


def _invalid(error: InvalidRequest) -> JobError:
    return JobError(
        code=INVALID_ARGUMENT,
        reason=error.reason,
        message=error.message,
        field=error.violations[0].field.removeprefix("job."),
    )


def _too_long(limit: float) -> JobError:
    return JobError(
        code=DEADLINE_EXCEEDED,
        reason="MAX_DURATION_EXCEEDED",
        message=f"the job ran longer than its max_duration of {limit:g} s; allow more, or fewer epochs",
        field="max_duration",
    )
