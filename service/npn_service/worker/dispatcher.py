"""The dispatcher: leases jobs when a worker is free and follows each attempt in a thread of its own.

One thread makes the worker processes, leases and keeps house; it never waits for a job.  One thread per
attempt waits for that attempt's worker, database and disk.  Stopping is one event that both look at.
"""

import shutil
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

import structlog

from npn_service.errors import Unavailable
from npn_service.jobs.inputs import JobInputs
from npn_service.jobs.model import Job, Resources
from npn_service.jobs.store import JobStore
from npn_service.storage.space import DiskSpace
from npn_service.storage.store import ObjectStore

from .attempt import Attempt
from .capacity import host_capacity
from .leases import LeaseKeeper
from .messages import DatasetRoom
from .pool import WorkerPool
from .service import DispatchObserver, Service
from .vigil import WorkerLimits

_POLL_SECONDS: Final = 0.2
_BEAT_SECONDS: Final = 5.0

_log = structlog.get_logger(__name__)


class Dispatcher:
    """Runs up to `workers` jobs at a time.

    `folder` is scratch space of this server alone, emptied at the start; `host` names this server in leases:
    no other server may use it; nothing is leased while its disk has less than `min_free_bytes`.  Jobs that run at
    the same time ask together for no more than `capacity`, what this machine has by default.  `start` and `drain`
    block; `wake` does not.
    """

    def __init__(
        self,
        *,
        store: JobStore,
        objects: ObjectStore,
        inputs: JobInputs,
        observer: DispatchObserver,
        workers: int,
        folder: Path,
        host: str,
        room: DatasetRoom = DatasetRoom(),  # noqa: B008 - frozen
        lease_seconds: float = 30.0,
        min_free_bytes: int = 0,
        capacity: Resources | None = None,
        limits: WorkerLimits = WorkerLimits(),  # noqa: B008 - frozen
        target: str = "npn_service.worker.compression:run",
    ) -> None:
        self._draining = threading.Event()
        self._service = Service(
            store=store,
            objects=objects,
            inputs=inputs,
            observer=observer,
            folder=folder,
            leases=LeaseKeeper(store, lease_seconds),
            room=room,
            lease_seconds=lease_seconds,
            limits=limits,
            draining=self._draining,
        )
        self._workers = workers
        self._host = host
        self._capacity = host_capacity() if capacity is None else capacity
        self._space = DiskSpace(folder, min_free=min_free_bytes)
        self._had_room = True
        self._pool = WorkerPool(size=workers, target=target)
        self._attempts: dict[threading.Thread, Job] = {}
        self._wake = threading.Event()
        self._expire_at = self._beat_at = 0.0
        self._thread = threading.Thread(target=self._run, name="dispatcher", daemon=True)

    def start(self) -> None:
        """Release the jobs of a server that died under this name, then begin to lease."""
        shutil.rmtree(self._service.folder, ignore_errors=True)
        self._service.folder.mkdir(parents=True)
        for job in self._service.store.expire_leases(host=self._host):
            _log.warning("job.released", job=job.name, state=job.state.name, cause="the server died")
        self._service.leases.start()
        self._thread.start()

    def wake(self) -> None:
        """Look at the jobs now: one was created or cancelled."""
        self._wake.set()
        self._service.leases.wake()

    def drain(self) -> None:
        """Stop leasing, return what runs to the queue (uncounted) with a last checkpoint, end every process."""
        self._draining.set()
        self._wake.set()
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        while not self._draining.is_set():
            try:
                self._attempts = {thread: job for thread, job in self._attempts.items() if thread.is_alive()}
                self._beat()
                self._expire_leases()
                self._pool.refill(working=len(self._attempts))
                if self._has_room():
                    self._dispatch()
            except Unavailable as error:  # the database says in the log that it is away
                _log.debug("dispatcher.store_unavailable", error=error.message)
            except Exception:  # a system that does not answer may answer later
                _log.exception("dispatcher.failed")
            self._wake.wait(_POLL_SECONDS)
            self._wake.clear()
        # The kernel kills the workers when this thread ends, so it ends last.
        for thread in self._attempts:
            thread.join()
        self._service.leases.stop()
        self._pool.stop()
        with suppress(Unavailable):  # then it is forgotten after a while
            self._service.store.forget_host(self._host)

    def _beat(self) -> None:
        """Tell the other servers that this one runs jobs, and how large they may be."""
        if self._workers == 0 or time.monotonic() < self._beat_at:
            return
        self._service.store.beat_host(host=self._host, capacity=self._capacity)
        self._beat_at = time.monotonic() + _BEAT_SECONDS

    def _expire_leases(self) -> None:
        if time.monotonic() < self._expire_at:
            return
        self._expire_at = time.monotonic() + self._service.lease_seconds / 2
        for job in self._service.store.expire_leases():
            _log.warning("job.released", job=job.name, state=job.state.name, cause="the lease passed")

    def _has_room(self) -> bool:
        """Whether an attempt finds room for what it writes; the log tells when that changes."""
        has_room = self._space.has_room()
        if has_room is not self._had_room:
            _log.warning("dispatcher.disk", has_room=has_room)
        self._had_room = has_room
        return has_room

    def _dispatch(self) -> None:
        """Lease as many jobs as there are free and warm workers."""
        while len(self._attempts) < self._workers and (child := self._pool.take()) is not None:
            asked = time.monotonic()
            try:
                job = self._service.store.lease_job(
                    host=self._host, lease_seconds=self._service.lease_seconds, free=self._free()
                )
            except BaseException:
                self._pool.put_back(child)
                raise
            if job is None:
                self._pool.put_back(child)
                return
            if job.attempt == 1 and job.start_time is not None:
                queued = (job.start_time - job.create_time).total_seconds()
                self._service.observer.job_leased(job, queued_seconds=queued)
            lease = self._service.leases.hold(job, since=asked)
            attempt = Attempt(self._service, lease, child)
            thread = threading.Thread(target=self._follow, args=(attempt,), name=job.name, daemon=True)
            self._attempts[thread] = job
            thread.start()

    def _free(self) -> Resources:
        """What the jobs that run leave of this host."""
        free = self._capacity
        for job in self._attempts.values():
            free = free.without(job.spec.resources)
        return free

    def _follow(self, attempt: Attempt) -> None:
        attempt.run()
        self._wake.set()  # a worker is free
