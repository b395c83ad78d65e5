"""The JobStore over SQL: the owners' side of jobs, and the parts for attempts, uploads and what is over."""

import secrets
from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import sqlalchemy as sa

from npn_core.progress import Progress
from npn_service.errors import EventsExpired, InvalidRequest, NotFound, WrongState
from npn_service.storage.sources import Source

from .codec import decode, encode
from .model import Event, Job, JobPlan, JobSpec, State, object_id_of
from .pages import binding_of, read_page
from .schema import events, job_labels, job_objects, jobs
from .sql_attempts import SqlAttempts
from .sql_base import WAITING, job_of, of_owner, owned_job
from .sql_expiry import SqlExpiry
from .sql_hosts import SqlHosts
from .sql_requests import Request, claim, made_by
from .sql_sources import SqlSources, insert_sources
from .store import JobFilter

# Numbers of events, asked for by every watch: put together once, as in `sql_base`.
_NEWEST = sa.select(jobs.c.sequence).where(
    jobs.c.id == sa.bindparam("job"), jobs.c.owner == sa.bindparam("of")
)
_NEWEST_OF = sa.select(jobs.c.id, jobs.c.sequence).where(jobs.c.id.in_(sa.bindparam("ids", expanding=True)))
_FOLLOWING = (
    sa.select(events)
    .where(events.c.job_id == sa.bindparam("job"), events.c.sequence > sa.bindparam("after"))
    .order_by(events.c.sequence)
    .limit(sa.bindparam("limit"))
)
_NEW_JOB = sa.insert(jobs)
_NEWS = _FOLLOWING.where(sa.or_(events.c.job.is_not(None), events.c.sequence == sa.bindparam("newest")))


class SqlJobStore(SqlAttempts, SqlHosts, SqlSources, SqlExpiry):
    """Implements JobStore; the schema must be there (`migrations.migrate`).  Shared by threads."""

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
        """Queue a job, or return the one of the same request."""
        request = Request(owner=owner, kind="job", id=request_id, hash=request_hash)
        job_id = secrets.token_hex(8)
        with self._database.write() as connection:
            self._one_create_at_a_time(connection, owner)
            now = self._database.now(connection)
            earlier = claim(self._database, connection, request, job_id, now)
            if earlier is not None:
                return self._made_before(connection, owner, earlier)
            # In one order for all: two jobs with the same objects must not wait for each other.
            for uri, field in sorted((uri, field) for field, uri in spec.uris.items()):
                object_id = object_id_of(uri)
                if object_id is not None and not self._use_object(connection, owner, object_id, now):
                    raise InvalidRequest(field, f"{uri} does not exist; upload the file again")
            self._require_place_in_queue(connection, owner)
            job = Job(
                id=job_id,
                owner=owner,
                creator=creator,
                state=State.QUEUED,
                spec=spec,
                plan=plan,
                create_time=now,
                wait_reason=WAITING,
            )
            self._insert_job(connection, job)
            insert_sources(connection, job.id, sources)
            return self._explain(connection, job)

    def find_request(self, *, owner: str, request_id: str, request_hash: str) -> Job | None:
        """The job of an earlier request."""
        request = Request(owner=owner, kind="job", id=request_id, hash=request_hash)
        with self._database.read() as connection:
            job_id = made_by(connection, request, self._database.now(connection))
            return None if job_id is None else self._made_before(connection, owner, job_id)

    def get_job(self, *, owner: str | None, job_id: str) -> Job:
        """The job as it is now."""
        with self._database.read() as connection:
            return self._explain(connection, job_of(owned_job(connection, owner, job_id)))

    def list_jobs(
        self, *, owner: str | None, where: JobFilter, page_size: int, page_token: str
    ) -> tuple[Sequence[Job], str]:
        """Newest first, keyset pages."""
        query = of_owner(sa.select(jobs), owner)
        if where.owner is not None:
            query = query.where(jobs.c.owner == where.owner)
        if where.state is not None:
            query = query.where(jobs.c.state == where.state.value)
        if where.created_from is not None:
            query = query.where(jobs.c.create_time >= where.created_from)
        if where.created_to is not None:
            query = query.where(jobs.c.create_time <= where.created_to)
        labels = sorted((where.labels or {}).items())
        for key, value in labels:
            label = sa.select(job_labels.c.job_id).where(job_labels.c.key == key, job_labels.c.value == value)
            query = query.where(jobs.c.id.in_(label))
        binding = binding_of(
            "jobs", owner, where.owner, where.state, where.created_from, where.created_to, labels
        )
        with self._database.read() as connection:
            rows, token = read_page(connection, query, jobs, page_size, page_token, binding)
            return self._explain_all(connection, [job_of(row) for row in rows]), token

    def cancel_job(self, *, owner: str | None, job_id: str) -> Job:
        """QUEUED -> CANCELLED, RUNNING -> CANCELLING; nothing where that was done before."""
        with self._database.write() as connection:
            row = owned_job(connection, owner, job_id, lock=True)
            state = State(row.state)
            if state in (State.CANCELLING, State.CANCELLED):
                return job_of(row)
            target = State.CANCELLING if state is State.RUNNING else State.CANCELLED
            return self._advance(connection, row, target, self._database.now(connection))

    def delete_job(self, *, owner: str | None, job_id: str) -> Job:
        """Remove a finished job; the request that made it stays known."""
        with self._database.write() as connection:
            job = job_of(owned_job(connection, owner, job_id, lock=True))
            if not job.state.done:
                raise WrongState(f"{job.name} is {job.state.name}; cancel it and wait, then delete it")
            connection.execute(sa.delete(jobs).where(jobs.c.id == job.id))
            self._discard(connection, job.prefix)
            return job

    def events_after(
        self, *, owner: str, job_id: str, sequence: int, limit: int = 100, coalesced: bool = False
    ) -> Sequence[Event]:
        """Events with a higher number, in order, from the very next one."""
        with self._database.read() as connection:
            newest = connection.execute(_NEWEST, {"job": job_id, "of": owner}).scalar_one_or_none()
            if newest is None:
                raise NotFound(f"jobs/{job_id} does not exist")
            if sequence == newest:
                return []
            if not newest - self._kept_events <= sequence < newest:
                raise EventsExpired(f"the events after number {sequence} of jobs/{job_id} are not kept")
            asked = {"job": job_id, "after": sequence, "limit": limit, "newest": newest}
            rows = connection.execute(_NEWS if coalesced else _FOLLOWING, asked).all()
        return [_event_of(row) for row in rows]

    def newest_sequences(self, job_ids: Collection[str]) -> Mapping[str, int]:
        """Number of each job's newest event, in one query."""
        with self._database.read() as connection:
            return dict(connection.execute(_NEWEST_OF, {"ids": list(job_ids)}).all())

    def _made_before(self, connection: sa.Connection, owner: str, job_id: str) -> Job:
        try:
            return self._explain(connection, job_of(owned_job(connection, owner, job_id)))
        except NotFound as error:
            raise WrongState(
                f"this request made jobs/{job_id}, which was deleted; use a new request_id for a new job",
                reason="JOB_DELETED",
            ) from error

    def _insert_job(self, connection: sa.Connection, job: Job) -> None:
        row = {
            "id": job.id,
            "owner": job.owner,
            "creator": job.creator,
            "state": job.state.value,
            "priority": job.spec.priority,
            "cpus": job.spec.resources.cpus,
            "gpus": job.spec.resources.gpus,
            "memory_bytes": job.spec.resources.memory_bytes,
            "create_time": job.create_time,
            "sequence": job.sequence,
            "attempt": job.attempt,
            "lost_attempts": 0,
            "wait_reason": job.wait_reason,
            "spec": encode(job.spec),
            "plan": encode(job.plan),
        }
        connection.execute(_NEW_JOB, row)
        labels = [{"job_id": job.id, "key": key, "value": value} for key, value in job.spec.labels.items()]
        if labels:
            connection.execute(sa.insert(job_labels), labels)
        needed = [{"job_id": job.id, "object_id": object_id} for object_id in sorted(job.spec.object_ids)]
        if needed:
            connection.execute(sa.insert(job_objects), needed)
        self._add_event(connection, job.id, job.sequence, job.create_time, job=encode(job))


def _event_of(row: sa.Row[Any]) -> Event:
    return Event(
        sequence=row.sequence,
        time=row.time,
        job=None if row.job is None else decode(Job, row.job),
        progress=None if row.progress is None else decode(Progress, row.progress),
    )
