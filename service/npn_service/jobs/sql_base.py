"""What the parts of the SQL store share: how a job changes, how its events are numbered."""

from datetime import datetime, timedelta
from functools import cache, lru_cache
from typing import Any, TypeVar

import sqlalchemy as sa

from npn_core.progress import Progress
from npn_service.errors import LostLease, NotFound

from .codec import decode, encode
from .database import ANSWER_SECONDS, Database, clock
from .limits import OwnerLimits
from .model import Checkpoint, Job, JobError, JobPlan, JobResult, JobSpec, Outcome, State, check_transition
from .schema import attempts, events, garbage, jobs, objects

T = TypeVar("T")

NO_PLAN = encode(None)
WAITING = "waiting for a free worker"
LEASED = (State.RUNNING, State.CANCELLING)
UNLIMITED = OwnerLimits()

_OUTCOMES = {
    State.SUCCEEDED: Outcome.SUCCEEDED,
    State.FAILED: Outcome.FAILED,
    State.CANCELLED: Outcome.CANCELLED,
    State.QUEUED: Outcome.RELEASED,
}
# Statements that every call makes are put together once: SQLAlchemy takes longer for that than SQLite for the answer.
_LEASE_HOLDS = sa.exists().where(
    attempts.c.job_id == jobs.c.id,
    attempts.c.number == jobs.c.attempt,
    attempts.c.lease_expire_time > clock(),
)
_HELD = (
    sa.select(jobs)
    .where(
        jobs.c.id == sa.bindparam("job_id"),
        jobs.c.attempt == sa.bindparam("number"),
        jobs.c.state.in_([state.value for state in LEASED]),
        _LEASE_HOLDS,
    )
    .with_for_update()
)
_CHANGED = (
    sa.update(jobs)
    .where(
        jobs.c.id == sa.bindparam("of_id"),
        jobs.c.attempt == sa.bindparam("of_attempt"),
        jobs.c.state == sa.bindparam("of_state"),
    )
    .values(sequence=jobs.c.sequence + sa.bindparam("events"))
    .returning(jobs)
)
_PUBLISHED = _CHANGED.where(_LEASE_HOLDS)
_NEW_EVENT = sa.insert(events)
_OLD_EVENTS = sa.delete(events).where(
    events.c.job_id == sa.bindparam("job"), events.c.sequence <= sa.bindparam("last")
)


class SqlBase:
    """One database, and the rules of its rows.

    `kept_events` is how many events of a job are kept, `progress_interval` how far apart in seconds events
    with progress are, `object_lifetime` how long an object is kept after its last use, `limits` what each
    owner may have, `answer_seconds` how long a call may take before it raises Unavailable.
    """

    def __init__(
        self,
        url: str,
        *,
        kept_events: int = 1000,
        progress_interval: float = 1.0,
        object_lifetime: timedelta = timedelta(days=7),
        limits: OwnerLimits = UNLIMITED,
        answer_seconds: float = ANSWER_SECONDS,
    ) -> None:
        self._database = Database(url, answer_seconds=answer_seconds)
        self._kept_events = kept_events
        self._progress_interval = timedelta(seconds=progress_interval)
        self._object_lifetime = object_lifetime
        self._limits = limits

    def close(self) -> None:
        """Release connections."""
        self._database.close()

    def _held(self, connection: sa.Connection, job_id: str, attempt: int) -> sa.Row[Any]:
        """The job's row, locked, if `attempt` is its current one and its lease has not passed."""
        row = connection.execute(_HELD, {"job_id": job_id, "number": attempt}).one_or_none()
        if row is None:
            raise LostLease(f"attempt {attempt} does not hold jobs/{job_id} any more")
        return row

    def _update(
        self,
        connection: sa.Connection,
        row: sa.Row[Any],
        *,
        publish: bool = False,
        events: int = 0,
        **values: object,
    ) -> sa.Row[Any]:
        """Change the job, if it still has the attempt and the state of `row`; numbers so many new events.

        With `publish` its lease must hold too: the one condition under which an attempt's doing counts.
        """
        asked = {
            "of_id": row.id,
            "of_attempt": row.attempt,
            "of_state": row.state,
            "events": events,
            **values,
        }
        changed = connection.execute(_PUBLISHED if publish else _CHANGED, asked).one_or_none()
        if changed is None:
            raise LostLease(f"attempt {row.attempt} does not hold jobs/{row.id} any more")
        return changed

    def _advance(
        self,
        connection: sa.Connection,
        row: sa.Row[Any],
        target: State,
        now: datetime,
        *,
        cause: str | None = None,
        publish: bool = False,
        **values: object,
    ) -> Job:
        """Take a job to another state, with its event; ends its attempt, for `cause`, where it held one."""
        source = State(row.state)
        check_transition(source, target)
        if target.done:
            values |= {"end_time": now, "checkpoint": None}
        values = {"wait_reason": "", **values, "state": target.value}
        job = job_of(self._update(connection, row, publish=publish, events=1, **values))
        self._add_event(connection, job.id, job.sequence, now, job=encode(job))
        if source in LEASED and target not in LEASED:
            running = sa.and_(attempts.c.job_id == job.id, attempts.c.number == job.attempt)
            # Where nobody was there to notice that its lease passed, it did not run on until somebody was.
            passed = attempts.c.lease_expire_time
            end_time = sa.case((passed < clock(), passed), else_=now)
            ended = {"end_time": end_time, "outcome": _OUTCOMES[target].value, "cause": cause}
            connection.execute(sa.update(attempts).where(running).values(ended))
        self._discard(connection, *_left_behind(job_of(row), target))
        if target.done:
            for object_id in sorted(job.spec.object_ids):  # in one order, so that nobody waits in a circle
                self._use_object(connection, job.owner, object_id, now)
        return job

    def _add_event(
        self,
        connection: sa.Connection,
        job_id: str,
        sequence: int,
        now: datetime,
        *,
        job: str | None = None,
        progress: str | None = None,
    ) -> None:
        """Write an event with the encoded `job` or `progress`, and drop those that are too old to keep."""
        event = {"job_id": job_id, "sequence": sequence, "time": now, "job": job, "progress": progress}
        connection.execute(_NEW_EVENT, event)
        if sequence > self._kept_events:
            connection.execute(_OLD_EVENTS, {"job": job_id, "last": sequence - self._kept_events})

    def _use_object(self, connection: sa.Connection, owner: str, object_id: str, now: datetime) -> bool:
        """Begin the object's lifetime anew; whether there is such an object."""
        mine = sa.and_(objects.c.id == object_id, objects.c.owner == owner)
        used = sa.update(objects).where(mine).values(expire_time=now + self._object_lifetime)
        return connection.execute(used).rowcount == 1

    def _discard(self, connection: sa.Connection, *prefixes: str) -> None:
        """Note that the bytes of these keys or prefixes may go, once this transaction is committed."""
        if prefixes:
            noted = self._database.insert(garbage).on_conflict_do_nothing()
            connection.execute(noted, [{"prefix": prefix} for prefix in prefixes])


def owned_job(
    connection: sa.Connection, owner: str | None, job_id: str, *, lock: bool = False
) -> sa.Row[Any]:
    """The row of one of the owner's jobs, of anybody's for None.  Raises NotFound."""
    query = _job_of(anybody=owner is None, lock=lock)
    row = connection.execute(query, {"job_id": job_id, "of": owner}).one_or_none()
    if row is None:
        raise NotFound(f"jobs/{job_id} does not exist")
    return row


@cache
def _job_of(*, anybody: bool, lock: bool) -> sa.Select[Any]:
    query = sa.select(jobs).where(jobs.c.id == sa.bindparam("job_id"))
    query = query if anybody else query.where(jobs.c.owner == sa.bindparam("of"))
    return query.with_for_update() if lock else query


def of_owner(query: sa.Select[Any], owner: str | None) -> sa.Select[Any]:
    """Only the owner's jobs; those of every owner for None."""
    return query if owner is None else query.where(jobs.c.owner == owner)


def _left_behind(job: Job, target: State) -> list[str]:
    """Prefixes of what no row speaks of once `job` is in the state `target`: its attempt's and its checkpoint's."""
    kept, is_attempt_over = job.checkpoint, job.state in LEASED and target not in LEASED
    left = {job.attempt} if is_attempt_over else set()
    if kept is not None and target.done:
        left.add(kept.attempt)
    elif kept is not None:
        left.discard(kept.attempt)
    if target is not State.SUCCEEDED:
        return [job.prefix_of(attempt) for attempt in sorted(left)]
    # Also where the job points at none: what an outage cut off may lie there.
    return [f"{job.attempt_prefix}checkpoints/"] + [
        job.prefix_of(attempt) for attempt in sorted(left - {job.attempt})
    ]


@lru_cache(maxsize=128)  # a job is read many times in its life, and these stay what they are
def _unchanging(expected: type[T], text: str) -> T:
    return decode(expected, text)


def job_of(row: sa.Row[Any]) -> Job:
    """The job that a row of `jobs` holds."""
    return Job(
        id=row.id,
        owner=row.owner,
        creator=row.creator,
        state=State(row.state),
        spec=_unchanging(JobSpec, row.spec),
        plan=None if row.plan == NO_PLAN else _unchanging(JobPlan, row.plan),
        create_time=row.create_time,
        start_time=row.start_time,
        end_time=row.end_time,
        sequence=row.sequence,
        attempt=row.attempt,
        wait_reason=row.wait_reason,
        progress=None if row.progress is None else decode(Progress, row.progress),
        error=None if row.error is None else decode(JobError, row.error),
        result=None if row.result is None else decode(JobResult, row.result),
        checkpoint=None if row.checkpoint is None else decode(Checkpoint, row.checkpoint),
    )
