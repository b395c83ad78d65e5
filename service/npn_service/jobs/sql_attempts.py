"""The dispatcher's side of the SQL store: attempts, their leases, what they publish."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from npn_core.progress import Progress

from .codec import encode
from .database import clock
from .model import AttemptRecord, Checkpoint, Job, JobError, JobPlan, JobResult, Outcome, Resources, State
from .schema import attempts, curve_points, jobs, turns
from .sql_base import LEASED, WAITING, job_of, owned_job
from .sql_limits import SqlLimits
from .sql_logs import SqlLogs

MAX_LOST_ATTEMPTS = 3
_INTERNAL = 13  # google.rpc.Code


class SqlAttempts(SqlLimits, SqlLogs):
    """Leasing, progress and the end of attempts."""

    def lease_job(self, *, host: str, lease_seconds: float, free: Resources | None = None) -> Job | None:
        """QUEUED -> RUNNING with a new attempt for the next job in line, or None."""
        with self._database.write() as connection:
            row = connection.execute(_next_in_line(free).where(self._may_run())).one_or_none()
            if row is None or not self._still_may_run(connection, row.owner):
                return None
            now = self._database.now(connection)
            job = self._advance(
                connection,
                row,
                State.RUNNING,
                now,
                attempt=row.attempt + 1,
                start_time=row.start_time or now,
            )
            connection.execute(
                sa.insert(attempts).values(
                    job_id=job.id,
                    number=job.attempt,
                    host=host,
                    start_time=now,
                    lease_expire_time=clock(lease_seconds),
                )
            )
            turn = self._database.insert(turns).values(owner=job.owner, lease_time=now)
            connection.execute(
                turn.on_conflict_do_update(index_elements=[turns.c.owner], set_={"lease_time": now})
            )
            return job

    def renew_leases(self, held: Mapping[str, int], *, lease_seconds: float) -> Mapping[str, State]:
        """Extend leases that have not passed; returns the states of the jobs they are on."""
        mine = sa.tuple_(attempts.c.job_id, attempts.c.number).in_(list(held.items()))
        holds = sa.and_(mine, attempts.c.end_time.is_(None), attempts.c.lease_expire_time > clock())
        renewed = (
            sa.update(attempts)
            .where(holds)
            .values(lease_expire_time=clock(lease_seconds))
            .returning(attempts.c.job_id)
        )
        with self._database.write() as connection:
            ids = connection.execute(renewed).scalars().all()
            rows = connection.execute(sa.select(jobs.c.id, jobs.c.state).where(jobs.c.id.in_(ids)))
            return {row.id: State(row.state) for row in rows}

    def list_attempts(self, *, owner: str, job_id: str) -> Sequence[AttemptRecord]:
        """Every attempt at the job, in order."""
        query = sa.select(attempts).where(attempts.c.job_id == job_id).order_by(attempts.c.number)
        with self._database.read() as connection:
            owned_job(connection, owner, job_id)
            rows = connection.execute(query).all()
        return [
            AttemptRecord(
                number=row.number,
                host=row.host,
                start_time=row.start_time,
                end_time=row.end_time,
                outcome=None if row.outcome is None else Outcome(row.outcome),
                cause=row.cause or "",
            )
            for row in rows
        ]

    def record_plan(self, *, job_id: str, attempt: int, plan: JobPlan) -> None:
        """Give a job its plan."""
        with self._database.write() as connection:
            row = self._held(connection, job_id, attempt)
            self._update(connection, row, publish=True, plan=encode(plan))

    def record_progress(self, *, job_id: str, attempt: int, progress: Progress) -> None:
        """Store the newest progress; it makes an event unless the last one is too young."""
        text = encode(progress)
        with self._database.write() as connection:
            row = self._held(connection, job_id, attempt)
            now = self._database.now(connection)
            if progress.step:
                self._extend_curve(connection, row, text, now)
            if row.progress_time is not None and now - row.progress_time < self._progress_interval:
                self._update(connection, row, publish=True, progress=text)
                return
            changed = self._update(connection, row, publish=True, events=1, progress=text, progress_time=now)
            self._add_event(connection, changed.id, changed.sequence, now, progress=text)

    def record_checkpoint(self, *, job_id: str, attempt: int, checkpoint: Checkpoint) -> None:
        """Have the job go on from `checkpoint` after this attempt."""
        with self._database.write() as connection:
            row = self._held(connection, job_id, attempt)
            job = job_of(row)
            before = job.checkpoint
            if before == checkpoint:
                return
            is_newer = before is None or checkpoint.step > before.step
            lost = 0 if is_newer else row.lost_attempts
            self._update(connection, row, publish=True, checkpoint=encode(checkpoint), lost_attempts=lost)
            if before is not None:
                same = before.attempt == attempt
                self._discard(
                    connection, job.checkpoint_prefix(before) if same else job.prefix_of(before.attempt)
                )

    def finish_job(self, *, job_id: str, attempt: int, result: JobResult) -> Job:
        """-> SUCCEEDED."""
        with self._database.write() as connection:
            row = self._held(connection, job_id, attempt)
            now = self._database.now(connection)
            connection.execute(sa.delete(curve_points).where(curve_points.c.job_id == job_id))
            size = sum(file.size for file in result.files)
            return self._advance(
                connection,
                row,
                State.SUCCEEDED,
                now,
                publish=True,
                result=encode(result),
                artifact_bytes=size,
            )

    def fail_job(self, *, job_id: str, attempt: int, error: JobError) -> Job:
        """-> FAILED."""
        with self._database.write() as connection:
            row = self._held(connection, job_id, attempt)
            now = self._database.now(connection)
            ended = {"cause": error.message, "error": encode(error)}
            return self._advance(connection, row, State.FAILED, now, publish=True, **ended)

    def confirm_cancel(self, *, job_id: str, attempt: int) -> Job:
        """CANCELLING -> CANCELLED."""
        with self._database.write() as connection:
            row = self._held(connection, job_id, attempt)
            now = self._database.now(connection)
            return self._advance(connection, row, State.CANCELLED, now, publish=True, cause="cancelled")

    def release_job(self, *, job_id: str, attempt: int, cause: str, counts: bool) -> Job:
        """RUNNING -> QUEUED, or FAILED after too many lost attempts; CANCELLING -> CANCELLED."""
        with self._database.write() as connection:
            row = self._held(connection, job_id, attempt)
            return self._release(connection, row, self._database.now(connection), cause, counts=counts)

    def expire_leases(self, *, host: str | None = None) -> Sequence[Job]:
        """Release every job whose lease has passed, and those that `host` holds."""
        expired = (
            sa.select(jobs)
            .join(attempts, sa.and_(attempts.c.job_id == jobs.c.id, attempts.c.number == jobs.c.attempt))
            .where(
                jobs.c.state.in_([state.value for state in LEASED]),
                sa.or_(attempts.c.lease_expire_time <= clock(), attempts.c.host == host),
            )
            .with_for_update(skip_locked=True)  # a row that is renewed or published just now is not expired
        )
        with self._database.write() as connection:
            rows = connection.execute(expired).all()
            now = self._database.now(connection)
            cause = "its worker was not heard of in time"
            return [self._release(connection, row, now, cause, counts=False) for row in rows]

    def count_by_state(self) -> Mapping[State, int]:
        """Jobs of all owners, by state."""
        with self._database.read() as connection:
            rows = connection.execute(sa.select(jobs.c.state, sa.func.count()).group_by(jobs.c.state))
            found = {State(state): count for state, count in rows}
        return {state: found.get(state, 0) for state in State}

    def _release(
        self, connection: sa.Connection, row: sa.Row[Any], now: datetime, cause: str, *, counts: bool
    ) -> Job:
        if State(row.state) is State.CANCELLING:
            return self._advance(connection, row, State.CANCELLED, now, cause=cause)
        lost = row.lost_attempts + int(counts)
        if lost >= MAX_LOST_ATTEMPTS:
            error = JobError(
                code=_INTERNAL,
                reason="ATTEMPTS_EXHAUSTED",
                message=f"{lost} attempts in a row died without a newer checkpoint, the last one because {cause}",
            )
            return self._advance(connection, row, State.FAILED, now, cause=cause, error=encode(error))
        return self._advance(
            connection,
            row,
            State.QUEUED,
            now,
            cause=cause,
            lost_attempts=lost,
            wait_reason=f"attempt {row.attempt} ended: {cause}; {WAITING}",
            progress=None,
            progress_time=None,
        )


def _next_in_line(free: Resources | None) -> sa.Select[Any]:
    """The job to lease, locked; one that another server leases at this moment is passed over."""
    query = (
        sa.select(jobs)
        .outerjoin(turns, turns.c.owner == jobs.c.owner)
        .where(jobs.c.state == State.QUEUED.value)
        .order_by(
            jobs.c.priority.desc(), turns.c.lease_time.asc().nulls_first(), jobs.c.create_time, jobs.c.id
        )
        .limit(1)
        .with_for_update(of=jobs, skip_locked=True)
    )
    if free is None:
        return query
    return query.where(
        jobs.c.cpus <= free.cpus, jobs.c.gpus <= free.gpus, jobs.c.memory_bytes <= free.memory_bytes
    )
