"""What an attempt needs of the server that it runs in."""

import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from npn_core.progress import Progress
from npn_service.jobs.inputs import JobInputs
from npn_service.jobs.model import Job
from npn_service.jobs.store import JobStore
from npn_service.storage.store import ObjectStore

from .leases import Lease, LeaseKeeper
from .messages import DatasetRoom
from .vigil import WorkerLimits


class DispatchObserver(Protocol):
    """What the metrics want to know.  Called from the dispatcher's threads."""

    def job_leased(self, job: Job, *, queued_seconds: float) -> None:
        """A job's first attempt starts after `queued_seconds` in the queue."""

    def job_ended(self, *, outcome: str, seconds: float) -> None:
        """An attempt ended after `seconds`: "succeeded", "failed", "cancelled", "released" or "lost"."""

    def progress_made(self, job: Job, progress: Progress) -> None:
        """A worker reported."""

    def checkpoint_tried(self, *, outcome: str, seconds: float, size: int) -> None:
        """Storing a checkpoint of `size` bytes took `seconds`: "recorded", "postponed", "unwanted" or "failed"."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Service:
    """What attempts need of the server.  `draining` is set when the server shuts down."""

    store: JobStore
    objects: ObjectStore
    inputs: JobInputs
    observer: DispatchObserver
    folder: Path
    leases: LeaseKeeper
    room: DatasetRoom
    lease_seconds: float
    limits: WorkerLimits
    draining: threading.Event

    def is_unwanted(self, lease: Lease) -> bool:
        """Whether the attempt with this lease is not to go on here.  Raises LostLease where it must not."""
        return lease.is_cancelled() or self.draining.is_set()
