"""One attempt at a job, seen from the server: hand it to a worker, follow the worker, settle how it ended."""

import math
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Final

import structlog

from npn_core.progress import Progress, Stage
from npn_service.errors import InvalidRequest, LimitExceeded, LostLease, Unavailable
from npn_service.jobs.inputs import Inputs
from npn_service.jobs.model import JobError, State
from npn_service.storage.space import DISK_FULL
from npn_service.storage.streaming import insist

from .attempt_log import MAX_BYTES, AttemptLog
from .checkpoints import CheckpointDamagedError, CheckpointUploads, fetch
from .child import Child, ChildEnded
from .failures import describe
from .fetching import Fetching
from .leases import Lease
from .messages import (
    Assignment,
    Cancel,
    Cancelled,
    Checkpointed,
    CheckpointFailed,
    Failed,
    Finished,
    Planned,
    Reported,
    Suspend,
)
from .service import Service
from .settling import Settlement
from .vigil import Ending, Released, Vigil

_TICK_SECONDS: Final = 0.1
_PROGRESS_SECONDS: Final = 0.5  # a write each
_CANCEL_SECONDS: Final = 1.0

_SHUT_DOWN: Final = Released(cause="the server shut down", counts=False)

_log = structlog.get_logger(__name__)


class Attempt:
    """The attempt at the job of `lease`, in the process `child`, which is closed at the end."""

    def __init__(self, service: Service, lease: Lease, child: Child) -> None:
        self._service = service
        self._lease = lease
        self._job = job = lease.job
        self._child = child
        self._scratch = service.folder / f"{job.id}-{job.attempt}"
        self._output, self._checkpoints = self._scratch / "output", self._scratch / "checkpoints"
        self._started = time.monotonic()
        self._stage: Stage | None = None
        self._asked: Ending | None = None
        self._kill_at = math.inf
        self._unrecorded: Progress | None = None
        self._recorded = -math.inf
        self._log = AttemptLog()

    def run(self) -> None:
        """Blocks until the attempt is settled and its process gone; raises nothing."""
        outcome = "lost"
        with structlog.contextvars.bound_contextvars(job=self._job.name, attempt=self._job.attempt):
            _log.info("attempt.started", worker=self._child.pid)
            self._log.add(f"attempt {self._job.attempt} began")
            try:
                outcome = self._settle(self._work())
            except LostLease:
                _log.warning("attempt.lost_lease")
            except Exception:
                _log.exception("attempt.abandoned")
                outcome = self._give_up()
            finally:
                self._service.leases.drop(self._lease)
                self._child.close()
                shutil.rmtree(self._scratch, ignore_errors=True)
            seconds = time.monotonic() - self._started
            _log.info("attempt.ended", outcome=outcome, seconds=round(seconds, 3))
            self._service.observer.job_ended(outcome=outcome, seconds=seconds)

    def _give_up(self) -> str:
        """After a defect: give the job back, counted, so that it does not go round for ever; returns the outcome."""
        try:
            return self._settle(Released(cause="the server met a defect in this attempt", counts=True))
        except Exception:  # then the lease runs out
            _log.exception("attempt.not_given_back")
            return "lost"

    def _work(self) -> Ending:
        """Have the worker run the job; returns how that ended."""
        _log.info("attempt.fetching")
        try:
            spent = insist(self._seconds_spent, self._is_unwanted)
        except Unavailable as error:
            return Released(cause=error.message, counts=False)
        max_duration, limits = self._job.spec.max_duration, self._service.limits
        vigil = Vigil(pid=self._child.pid, max_duration=max_duration, spent=spent, limits=limits)
        with closing(self._fetching()) as fetching:
            inputs = self._await(fetching, vigil)
            return self._hand_over(inputs, vigil) if isinstance(inputs, Inputs) else inputs

    def _seconds_spent(self) -> float:
        """How long the attempts before this one had the job."""
        records = self._service.store.list_attempts(owner=self._job.owner, job_id=self._job.id)
        return sum(
            (record.end_time - record.start_time).total_seconds() for record in records if record.end_time
        )

    def _fetching(self) -> Fetching:
        job, store = self._job, self._service.store

        @contextmanager
        def hold(stop: threading.Event) -> Iterator[Inputs]:
            sources = store.get_sources(job_id=job.id)
            with self._service.inputs.hold(
                owner=job.owner, spec=job.spec, sources=sources, stop=stop
            ) as inputs:
                store.record_hashes(job_id=job.id, attempt=job.attempt, hashes=inputs.hashes)
                yield inputs

        return Fetching(hold, patiently=True)

    def _await(self, fetching: Fetching, vigil: Vigil) -> Inputs | Ending:
        """The job's inputs, once they are on this host, or why the attempt ends before."""
        while True:
            try:
                return fetching.inputs.result(_TICK_SECONDS)
            except TimeoutError:
                pass
            except (InvalidRequest, LimitExceeded) as error:
                return Failed(error=describe(error))
            except (OSError, Unavailable) as error:
                _log.warning("attempt.not_fetched", error=str(error))
                return Released(cause=f"its data could not be fetched: {_said(error)}", counts=False)
            if self._lease.is_cancelled():
                return Cancelled()
            if self._service.draining.is_set():
                return _SHUT_DOWN
            vigil.moved()  # it is not the worker that is waited for
            if (ending := vigil.verdict()) is not None:
                return ending

    def _hand_over(self, inputs: Inputs, vigil: Vigil) -> Ending:
        """Have the worker run the job on its inputs, from its checkpoint on."""
        for number in range(1, self._job.attempt):  # what a server stored that died before the commit
            if number not in self._job.attempts_kept:
                self._service.objects.delete_prefix(self._job.prefix_of(number))
        self._output.mkdir(parents=True)
        try:
            resume = self._fetch()
        except (OSError, Unavailable) as error:
            return Released(cause=f"its checkpoint could not be read: {_said(error)}", counts=False)
        assignment = Assignment(
            job=self._job.name,
            attempt=self._job.attempt,
            planned=self._job.plan is not None,
            spec=self._job.spec,
            dataset=inputs.dataset,
            model=inputs.model,
            output=self._output,
            room=self._service.room,
            checkpoints=self._checkpoints,
            checkpoint_seconds=self._service.limits.checkpoint_seconds,
            resume=resume,
        )
        store, objects = self._service.store, self._service.objects
        with closing(
            CheckpointUploads(store, objects, self._job, self._checkpoints, self._service.observer)
        ) as uploads:
            ending = self._have_run(assignment, vigil, uploads)
            self._child.kill()
            if isinstance(ending, Released):
                self._keep_last(uploads)
        return ending

    def _have_run(self, assignment: Assignment, vigil: Vigil, uploads: CheckpointUploads) -> Ending:
        """Hand the assignment to the worker and follow it to its end."""
        try:
            self._child.send(assignment)
            return self._follow(vigil, uploads)
        except ChildEnded as ended:
            return vigil.explain(ended)

    def _keep_last(self, uploads: CheckpointUploads) -> None:
        """Have the last checkpoint stored, in what is left of the grace period where the server shuts down."""
        grace_seconds = self._service.limits.grace_seconds
        patience = self._kill_at if self._asked is _SHUT_DOWN else time.monotonic() + grace_seconds
        while not uploads.settled(_TICK_SECONDS) and time.monotonic() < patience:
            if self._lease.is_cancelled():
                return

    def _fetch(self) -> Path | None:
        """The checkpoint to go on from, on this host; a folder without one where it is damaged."""
        checkpoint, folder = self._job.checkpoint, self._scratch / "resume"
        if checkpoint is None:
            return None
        try:
            insist(partial(fetch, self._service.objects, self._job, checkpoint, folder), self._is_unwanted)
        except CheckpointDamagedError as error:  # the worker begins anew, and says so
            _log.warning("checkpoint.refused", step=checkpoint.step, cause=str(error))
            shutil.rmtree(folder)
        return folder

    def _follow(self, vigil: Vigil, uploads: CheckpointUploads) -> Ending:
        while True:
            match self._child.receive(_TICK_SECONDS):
                case Cancelled() if self._asked is not None:
                    return self._asked
                case Failed(error=JobError(reason=reason, message=cause)) if reason == DISK_FULL:
                    return Released(cause=cause, counts=False)  # the machine's fault, not the job's
                case Finished() | Failed() | Cancelled() as said:
                    return said
                case Planned(plan=plan):
                    self._record(self._service.store.record_plan, plan=plan)
                    vigil.moved()
                case Reported(progress=progress):
                    self._service.observer.progress_made(self._job, progress)
                    self._log.follow(progress)
                    if progress.stage is not self._stage:
                        _log.info("attempt.stage", stage=progress.stage.value, step=progress.step)
                    self._unrecorded, self._stage = progress, progress.stage
                    vigil.moved()
                case Checkpointed() as made:
                    _log.info("checkpoint.made", step=made.step, stage=self._stage and self._stage.value)
                    uploads.offer(made)
                case CheckpointFailed(step=step, cause=cause):
                    _log.warning("checkpoint.not_written", step=step, cause=cause)
                case None:
                    pass
                case _:
                    return Released(cause="the worker sent a message that is not understood", counts=True)
            if (ending := self._look(vigil)) is not None:
                return ending

    def _look(self, vigil: Vigil) -> Ending | None:
        """What there is to see beside the worker's messages; returns how the attempt is to end now, if it is."""
        if time.monotonic() >= self._kill_at:
            return self._asked
        self._record_progress(pause=_PROGRESS_SECONDS)
        cancelled = self._lease.is_cancelled()
        if cancelled and not isinstance(self._asked, Cancelled):
            self._log.add("cancel was asked for")
            self._ask(Cancel(), Cancelled(), _CANCEL_SECONDS)
        elif self._service.draining.is_set() and self._asked is None:
            if self._stage in (None, Stage.PREPARE):  # there is nothing to keep
                return _SHUT_DOWN
            self._ask(Suspend(), _SHUT_DOWN, self._service.limits.grace_seconds)
        return vigil.verdict()

    def _is_unwanted(self) -> bool:
        return self._service.is_unwanted(self._lease)

    def _ask(self, message: Cancel | Suspend, ending: Ending, seconds: float) -> None:
        """Ask the worker to stop, which then is the `ending`; it is killed when it takes longer than `seconds`."""
        with suppress(ChildEnded):  # what it said last is still to be read
            self._child.send(message)
        self._asked, self._kill_at = ending, time.monotonic() + seconds

    def _record_progress(self, *, pause: float = 0.0) -> None:
        """Store the newest progress, `pause` seconds after the last; a failure loses that one progress."""
        now = time.monotonic()
        if self._unrecorded is None or now - self._recorded < pause:
            return
        progress, self._unrecorded, self._recorded = self._unrecorded, None, now
        self._record(self._service.store.record_progress, progress=progress)

    def _record(self, record: Callable[..., None], **what: object) -> None:
        """Have the store record something of this attempt; while that is away it is lost, and the work goes on."""
        try:
            record(job_id=self._job.id, attempt=self._job.attempt, **what)
        except Unavailable as error:
            _log.warning("attempt.store_unavailable", error=error.message)

    def _settle(self, ending: Ending) -> str:
        """Make the ending the job's; returns the outcome.  Raises LostLease."""
        if isinstance(ending, Finished):
            self._record_progress()
        stderr = self._child.stderr_tail(MAX_BYTES)
        settlement = Settlement(self._service, self._lease, output=self._output, log=self._log, stderr=stderr)
        state = settlement.settle(ending)
        return "released" if state is State.QUEUED else state.value


def _said(error: OSError | Unavailable) -> str:
    """What the owner may read of it: no paths of this machine."""
    return error.message if isinstance(error, Unavailable) else error.strerror or type(error).__name__
