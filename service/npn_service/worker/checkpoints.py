"""The server's side of an attempt's checkpoints: storing them while the worker trains on, and fetching one."""

import hashlib
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

import structlog

from npn_service.errors import LostLease, NotFound, ServiceError
from npn_service.jobs.garbage import sweep
from npn_service.jobs.model import Checkpoint, Job
from npn_service.jobs.store import JobStore
from npn_service.storage.space import explaining_full_disk
from npn_service.storage.store import ObjectStore

from .messages import Checkpointed
from .service import DispatchObserver

_RETRY_SECONDS: Final = 2.0

_log = structlog.get_logger(__name__)


class CheckpointUploads:
    """Stores and records the newest checkpoint of an attempt, in a thread of its own.

    `folder` is where the worker writes them.  While a store is out of reach the newest waits, and older ones
    are forgotten.  Whatever the job does not point at in the end, is removed.
    """

    def __init__(
        self, store: JobStore, objects: ObjectStore, job: Job, folder: Path, observer: DispatchObserver
    ) -> None:
        self._store = store
        self._objects = objects
        self._observer = observer
        self._job = job
        self._folder = folder
        self._newest: Checkpointed | None = None
        self._busy = self._stopped = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name=f"{job.name} checkpoints", daemon=True)
        self._thread.start()

    def offer(self, made: Checkpointed) -> None:
        """Store this one, in place of one that still waits."""
        with self._changed:
            waiting, self._newest = self._newest, made
            self._changed.notify_all()
        if waiting is not None:
            self._forget(waiting)

    def settled(self, timeout: float) -> bool:
        """Whether the newest is recorded, waiting up to `timeout` seconds for that."""
        with self._changed:
            return self._changed.wait_for(lambda: self._newest is None and not self._busy, timeout)

    def close(self) -> None:
        """Store no more; what is under way may still end."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def _run(self) -> None:
        with structlog.contextvars.bound_contextvars(job=self._job.name, attempt=self._job.attempt):
            while (made := self._next()) is not None:
                since, size = time.monotonic(), sum(file.size for file in made.files)
                try:
                    outcome = self._try(made)
                finally:
                    with self._changed:
                        self._busy = False
                        self._changed.notify_all()
                self._observer.checkpoint_tried(outcome=outcome, seconds=time.monotonic() - since, size=size)

    def _try(self, made: Checkpointed) -> str:
        """Store it if that can be; says how it went, as `DispatchObserver.checkpoint_tried` does."""
        try:
            self._publish(made)
            self._forget(made)
        except (LostLease, NotFound) as error:
            _log.warning("checkpoint.not_wanted", step=made.step, cause=error.message)
            self._remove(made)
            self.close()
            return "unwanted"
        except (OSError, ServiceError) as error:
            _log.warning("checkpoint.postponed", step=made.step, cause=str(error))
            if self._postpone(made):
                return "postponed"
            self._remove(made)
            return "unwanted"
        except Exception:
            _log.exception("checkpoint.not_stored", step=made.step)
            return "failed"
        return "recorded"

    def _next(self) -> Checkpointed | None:
        """The one to store, once there is one; None at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._stopped or self._newest is not None)
            if self._stopped:
                return None
            made, self._newest, self._busy = self._newest, None, True
            return made

    def _postpone(self, made: Checkpointed) -> bool:
        """Try again later, unless there is a newer one by now; False where nothing is stored any more."""
        with self._changed:
            if self._newest is None:
                self._newest = made
            else:
                self._forget(made)
            return not self._changed.wait_for(lambda: self._stopped, _RETRY_SECONDS)

    def _publish(self, made: Checkpointed) -> None:
        """Store its files, have the job point at them, and only then remove what it pointed at before."""
        checkpoint = Checkpoint(attempt=self._job.attempt, step=made.step, files=made.files)
        _log.info("checkpoint.storing", step=made.step)
        for file in made.files:
            source = self._folder / str(made.step) / file.path
            if source.resolve().parent != (self._folder / str(made.step)).resolve():
                raise ValueError(f"the worker's checkpoint names a file outside of it: {file.path!r}")
            self._objects.put_file(self._job.checkpoint_prefix(checkpoint) + file.path, source)
        self._store.record_checkpoint(job_id=self._job.id, attempt=self._job.attempt, checkpoint=checkpoint)
        size = sum(file.size for file in made.files)
        _log.info("checkpoint.recorded", step=made.step, bytes=size)
        with suppress(OSError, ServiceError):  # stays noted as garbage
            sweep(self._store, self._objects, below=self._job.prefix)

    def _remove(self, made: Checkpointed) -> None:
        """Remove what was stored of one, unless the job points at it: a record whose answer was lost."""
        checkpoint = Checkpoint(attempt=self._job.attempt, step=made.step, files=made.files)
        with suppress(OSError, ServiceError):  # the job's next attempt removes it
            if not self._is_recorded(checkpoint):
                self._objects.delete_prefix(self._job.checkpoint_prefix(checkpoint))

    def _is_recorded(self, checkpoint: Checkpoint) -> bool:
        try:
            job = self._store.get_job(owner=self._job.owner, job_id=self._job.id)
        except NotFound:
            return False
        return job.checkpoint == checkpoint

    def _forget(self, made: Checkpointed) -> None:
        shutil.rmtree(self._folder / str(made.step), ignore_errors=True)


class CheckpointDamagedError(Exception):
    """A stored checkpoint is not what was recorded of it."""


@explaining_full_disk()
def fetch(objects: ObjectStore, job: Job, checkpoint: Checkpoint, folder: Path) -> None:
    """Copy a job's checkpoint into the new `folder`.

    Raises CheckpointDamagedError where it is not what was recorded, and Unavailable where the store is away or the
    disk full.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for file in checkpoint.files:
        target, digest, size = folder / file.path, hashlib.sha256(), 0
        with target.open("wb") as copy:
            for chunk in _read(objects, job.checkpoint_prefix(checkpoint) + file.path):
                digest.update(chunk)
                size += len(chunk)
                if size > file.size:
                    break
                copy.write(chunk)
        if (size, digest.hexdigest()) != (file.size, file.sha256):
            raise CheckpointDamagedError(f"{file.path} has another size or SHA-256 than was recorded")


def _read(objects: ObjectStore, key: str) -> Iterator[bytes]:
    try:
        yield from objects.read(key)
    except NotFound as error:
        raise CheckpointDamagedError(f"{error.message}") from error
