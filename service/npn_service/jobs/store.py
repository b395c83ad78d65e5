"""The JobStore port: what the service asks of its database.

Every method is one transaction and synchronous; the server calls it from a bounded thread pool, never on the
event loop.  Rows carry an owner; a resource of another owner is NotFound.  Where `owner` may be None it stands for
every owner.  Times are the database's, and its clock alone judges leases.  Every method raises Unavailable within
two seconds when the database is away.

Every state change is an event that holds the whole job, written in the transaction that makes it; between
them lie events with progress, at most one a second.  A job's events are numbered from 1 without gaps, and its
newest thousand are kept: a reader gets every event after a number or hears EventsExpired, never a part.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Protocol

from npn_core.progress import Progress
from npn_service.storage.sources import Source

from .model import (
    AttemptLog,
    AttemptRecord,
    Checkpoint,
    Event,
    FileSpec,
    Job,
    JobError,
    JobPlan,
    JobResult,
    JobSpec,
    Removal,
    Resources,
    State,
    Upload,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class JobFilter:
    """Which jobs a list shows: equal owner, equal state, equal labels, create_time bounds (inclusive)."""

    owner: str | None = None
    state: State | None = None
    labels: Mapping[str, str] | None = None
    created_from: datetime | None = None
    created_to: datetime | None = None


class JobStore(Protocol):
    """Jobs, their attempts, events, request ids and uploads."""

    def create_job(
        self,
        *,
        owner: str,
        creator: str,
        spec: JobSpec,
        plan: JobPlan | None,
        request_id: str,
        request_hash: str,
        sources: Mapping[str, Sequence[Source]] = MappingProxyType({}),
    ) -> Job:
        """Queue a job, or return the job of the same `request_id` (an empty one is no id).

        `sources` are the objects outside of this service that it reads, by the field that names them.

        Raises AlreadyExists when the request_id was used with another `request_hash` in the last 30 days,
        WrongState (JOB_DELETED) when its job is gone, InvalidRequest when the dataset's or the model's object is,
        LimitExceeded when the owner has as many queued as it may.
        """

    def require_place_in_queue(self, *, owner: str) -> None:
        """Raises LimitExceeded when the owner has as many jobs queued as it may, as `create_job` will."""

    def find_request(self, *, owner: str, request_id: str, request_hash: str) -> Job | None:
        """The job of an earlier request, None when there is none.  Raises as `create_job` does."""

    def get_job(self, *, owner: str | None, job_id: str) -> Job:
        """Raises NotFound."""

    def list_jobs(
        self, *, owner: str | None, where: JobFilter, page_size: int, page_token: str
    ) -> tuple[Sequence[Job], str]:
        """Newest first, keyset pages; the token of the next page, empty on the last.

        Raises InvalidRequest on a token that this filter did not give.
        """

    def cancel_job(self, *, owner: str | None, job_id: str) -> Job:
        """QUEUED -> CANCELLED, RUNNING -> CANCELLING; idempotent on both; WrongState on SUCCEEDED, FAILED."""

    def delete_job(self, *, owner: str | None, job_id: str) -> Job:
        """Remove a finished job; returns what it was.  Raises WrongState while it is not done."""

    def events_after(
        self, *, owner: str, job_id: str, sequence: int, limit: int = 100, coalesced: bool = False
    ) -> Sequence[Event]:
        """Events with a higher number, in order, from the very next one.

        With `coalesced` progress that anything newer follows is left out.  Raises NotFound, and EventsExpired when
        that one is not kept any more, or when `sequence` is a number that the job has not given out.
        """

    def newest_sequences(self, job_ids: Collection[str]) -> Mapping[str, int]:
        """Number of each job's newest event, in one query; jobs that do not exist are left out."""

    def get_sources(self, *, job_id: str) -> Mapping[str, Sequence[Source]]:
        """What was recorded of the job's sources, by the field that names them."""

    def record_hashes(self, *, job_id: str, attempt: int, hashes: Mapping[str, str]) -> None:
        """Note the SHA-256 of sources, by URI, where none is noted yet.  Raises LostLease."""

    def lease_job(self, *, host: str, lease_seconds: float, free: Resources | None = None) -> Job | None:
        """QUEUED -> RUNNING with a new attempt for the next job in line, or None when no job waits that fits
        into what the host has `free` (None: anything fits) and whose owner runs fewer than it may.

        The highest priority first; then the owner whose newest lease is the oldest; then the oldest job.  Any
        number of servers may ask at once: each job is leased once.
        """

    def renew_leases(self, held: Mapping[str, int], *, lease_seconds: float) -> Mapping[str, State]:
        """Extend the leases of `held`, attempts by job id; returns the state of each job that is still held.

        CANCELLING asks the worker to stop; a job that is missing in the answer is lost.
        """

    def list_attempts(self, *, owner: str, job_id: str) -> Sequence[AttemptRecord]:
        """Every attempt at the job, in order.  Raises NotFound."""

    def beat_host(self, *, host: str, capacity: Resources) -> None:
        """The host is alive and leases jobs; it counts as such for 15 seconds."""

    def forget_host(self, host: str) -> None:
        """The host leases no more jobs."""

    def record_plan(self, *, job_id: str, attempt: int, plan: JobPlan) -> None:
        """Give a job that was created without one its plan; it shows in the job and in its next event.

        Raises LostLease.
        """

    def record_progress(self, *, job_id: str, attempt: int, progress: Progress) -> None:
        """Store the newest progress.  Within a second of the last event with progress it makes no event of
        its own: it shows in the job and in the next event.  Raises LostLease.
        """

    def record_checkpoint(self, *, job_id: str, attempt: int, checkpoint: Checkpoint) -> None:
        """Have the job go on from `checkpoint` after this attempt, and note the one before as garbage.

        A later step than the one before had sets the count of lost attempts back to 0.  Safe to repeat; raises
        LostLease.
        """

    def record_log(self, *, job_id: str, attempt: int, log: str) -> None:
        """Keep the last log lines of an attempt that ended badly.  Silent when there is no such attempt."""

    def get_log(self, *, owner: str | None, job_id: str, attempt: int | None) -> AttemptLog:
        """What is kept of an attempt, of the newest where none is named.  Raises NotFound."""

    def finish_job(self, *, job_id: str, attempt: int, result: JobResult) -> Job:
        """-> SUCCEEDED, if the attempt is current and its lease has not passed.  Raises LostLease."""

    def fail_job(self, *, job_id: str, attempt: int, error: JobError) -> Job:
        """-> FAILED, under the same condition.  Raises LostLease."""

    def confirm_cancel(self, *, job_id: str, attempt: int) -> Job:
        """CANCELLING -> CANCELLED, under the same condition.  Raises LostLease."""

    def release_job(self, *, job_id: str, attempt: int, cause: str, counts: bool) -> Job:
        """RUNNING -> QUEUED after an attempt that ended through no fault of the job.

        CANCELLING -> CANCELLED.  With `counts` the attempt counts as lost; the third in a row without a newer
        checkpoint fails the job with `cause` (reason ATTEMPTS_EXHAUSTED).  A drain does not count.  Raises
        LostLease.
        """

    def expire_leases(self, *, host: str | None = None) -> Sequence[Job]:
        """Release every running job whose lease has passed; returns them.  That is a server's end and does
        not count as lost.

        With `host` also those that it holds a lease on, passed or not: a server that starts has no workers.
        """

    def count_by_state(self) -> Mapping[State, int]:
        """Jobs of all owners, by state."""

    def create_upload(
        self, *, owner: str, files: Sequence[FileSpec], request_id: str, lifetime_seconds: float
    ) -> Upload:
        """A new open upload, or the one of the same request_id; complete at once when the owner already
        has an object with the same files.

        Raises AlreadyExists when the request_id was used for other files, WrongState (UPLOAD_DELETED) when
        its upload is gone, LimitExceeded when the owner would store more than it may.
        """

    def get_upload(self, *, owner: str, upload_id: str) -> Upload:
        """Raises NotFound."""

    def list_uploads(self, *, owner: str, page_size: int, page_token: str) -> tuple[Sequence[Upload], str]:
        """Newest first, keyset pages."""

    def complete_upload(self, *, owner: str, upload_id: str, object_id: str) -> Upload:
        """OPEN -> COMPLETE; idempotent: a complete upload keeps its object.  Raises NotFound."""

    def delete_upload(self, *, owner: str, upload_id: str) -> Upload:
        """Remove an open upload.  Raises NotFound, WrongState when complete."""

    def get_object(self, *, owner: str, object_id: str) -> Sequence[FileSpec]:
        """The files of an object.  Raises NotFound."""

    def expire_uploads(self, *, dry_run: bool = False) -> Sequence[Removal]:
        """Drop some open uploads past their time; none is left when it returns nothing.  A dry run tells all."""

    def expire_objects(self, *, dry_run: bool = False) -> Sequence[Removal]:
        """Drop some objects past their time that no unfinished job needs, likewise."""

    def expire_jobs(self, *, retention_seconds: float, dry_run: bool = False) -> Sequence[Removal]:
        """Drop some jobs that ended longer ago than that, likewise."""

    def find_jobs(self, job_ids: Collection[str]) -> Mapping[str, Job]:
        """Those of the jobs that exist, of any owner, by id."""

    def find_uploads(self, ids: Collection[str]) -> Collection[str]:
        """Those of the ids that are an upload's or an object's, of any owner."""

    def list_garbage(self) -> Sequence[str]:
        """Keys, and prefixes (they end in "/"), of bytes that no row speaks of any more."""

    def forget_garbage(self, prefix: str) -> None:
        """The bytes under `prefix` are gone."""

    def close(self) -> None:
        """Release connections."""
