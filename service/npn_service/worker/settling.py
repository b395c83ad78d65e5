"""How an attempt ends for its job: the artifact is stored, then one conditional commit makes it the job's, or not."""

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

import structlog
from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_exponential

from npn_service.errors import LostLease, NotFound, ServiceError, Unavailable
from npn_service.jobs.garbage import sweep
from npn_service.jobs.model import Job, JobError, JobResult, State
from npn_service.storage.streaming import insist

from .attempt_log import AttemptLog
from .failures import INTERNAL
from .leases import Lease
from .messages import Cancelled, Failed, Finished
from .service import Service
from .vigil import Ending, Released

_log = structlog.get_logger(__name__)


class Settlement:
    """Settles the attempt that holds `lease`: what its worker made lies in `output`, `stderr` is what it said."""

    def __init__(self, service: Service, lease: Lease, *, output: Path, log: AttemptLog, stderr: str) -> None:
        self._service = service
        self._lease = lease
        self._job = lease.job
        self._output = output
        self._log = log
        self._stderr = stderr

    def settle(self, ending: Ending) -> State:
        """Make the ending the job's; returns the state that the job is in then.

        Raises LostLease, with all removed that was stored, and Unavailable where the database stays away for as
        long as the lease.
        """
        self._log_trouble(ending)
        try:
            if isinstance(ending, Finished):
                ending = self._upload(ending)
            self._keep_log(ending)
            _log.info("attempt.committing", ending=type(ending).__name__.lower())
            job = self._commit(ending)
            _log.info("attempt.committed", state=job.state.name)
        except LostLease:
            self._discard()
            raise
        with suppress(OSError, ServiceError):  # stays noted as garbage
            sweep(self._service.store, self._service.objects, below=self._job.prefix)
        return job.state

    def _log_trouble(self, ending: Ending) -> None:
        match ending:
            case Released(cause=cause, counts=True):
                _log.error("worker.lost", cause=cause, stderr=self._stderr)
            case Failed(error=JobError(code=code)) if code == INTERNAL:
                _log.error("worker.defect", stderr=self._stderr)

    def _upload(self, finished: Finished) -> Ending:
        """Store the artifact under the attempt's prefix, where nobody looks before the commit."""
        _log.info("attempt.uploading", files=len(finished.files))
        for file in finished.files:
            source = self._output / file.path
            if not source.resolve().is_relative_to(self._output.resolve()) or not source.is_file():
                return Released(cause="the worker's artifact lacks a file that it names", counts=True)
            key = self._job.attempt_prefix + file.path
            try:
                insist(partial(self._service.objects.put_file, key, source), self._is_unwanted)
            except LostLease:
                raise
            except (OSError, ServiceError):
                _log.exception("attempt.not_stored", file=file.path)
                return Released(cause="the artifact could not be stored", counts=False)
            if self._lease.is_cancelled():
                return Cancelled()
        return finished

    def _is_unwanted(self) -> bool:
        return self._service.is_unwanted(self._lease)

    def _keep_log(self, ending: Ending) -> None:
        """Store the log of an attempt that ends badly.  A store that does not answer is no reason to wait."""
        if isinstance(ending, Finished):
            return
        self._log.end(ending)
        text = self._log.text(self._stderr)
        try:
            self._service.store.record_log(job_id=self._job.id, attempt=self._job.attempt, log=text)
        except Unavailable as error:
            _log.warning("attempt.log_not_kept", error=error.message)

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
        """Remove what a lost attempt stored, unless the job points at it after all.

        It does where it goes on from a checkpoint in it, and where a commit succeeded whose answer never came:
        its repetition finds the lease gone.
        """
        try:
            job = self._service.store.get_job(owner=self._job.owner, job_id=self._job.id)
        except NotFound:
            job = None
        if job is None or self._job.attempt not in job.attempts_kept:
            self._service.objects.delete_prefix(self._job.attempt_prefix)
