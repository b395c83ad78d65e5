"""What each owner may have: checked in the transaction that would have more of it."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from npn_service.errors import LimitExceeded, Quota

from .model import State, UploadState
from .schema import jobs, objects, uploads
from .sql_base import LEASED, SqlBase

_LEASED = [state.value for state in LEASED]


class SqlLimits(SqlBase):
    """The limits of one owner (OwnerLimits)."""

    def require_place_in_queue(self, *, owner: str) -> None:
        """Raises LimitExceeded when the owner has as many jobs queued as it may."""
        with self._database.read() as connection:
            self._require_place_in_queue(connection, owner)

    def _one_create_at_a_time(self, connection: sa.Connection, owner: str) -> None:
        """Until the transaction ends no other one adds to what the owner has."""
        self._database.lock(connection, f"owner:{owner}")

    def _require_place_in_queue(self, connection: sa.Connection, owner: str) -> None:
        limit = self._limits.queued_jobs
        used = _count(connection, owner, [State.QUEUED.value]) if limit else 0
        if limit and used >= limit:
            raise LimitExceeded(
                f"{used} of your jobs are queued, of at most {limit}; wait until some have started, or cancel some",
                reason="QUEUED_JOBS_LIMIT",
                quota=Quota(owner=owner, what="queued_jobs", limit=limit, used=used, asked=1),
            )

    def _require_bytes(self, connection: sa.Connection, owner: str, asked: int) -> None:
        limit = self._limits.stored_bytes
        used = _stored_bytes(connection, owner) if limit else 0
        if limit and used + asked > limit:
            raise LimitExceeded(
                f"{asked} bytes more than the {used} that you store are above the limit of {limit}; delete "
                "uploads that are open, or jobs with their artifacts, or wait until unused objects expire",
                reason="STORED_BYTES_LIMIT",
                quota=Quota(owner=owner, what="stored_bytes", limit=limit, used=used, asked=asked),
            )

    def _may_run(self) -> sa.ColumnElement[bool]:
        """Whether the owner of a row of `jobs` runs fewer jobs than it may."""
        if not self._limits.running_jobs:
            return sa.true()
        running = jobs.alias("running")
        busy = (
            sa.select(running.c.owner)
            .where(running.c.state.in_(_LEASED))
            .group_by(running.c.owner)
            .having(sa.func.count() >= self._limits.running_jobs)
        )
        return jobs.c.owner.not_in(busy)

    def _still_may_run(self, connection: sa.Connection, owner: str) -> bool:
        """Whether it still does, now that no other server leases a job of this owner until we have."""
        limit = self._limits.running_jobs
        if not limit:
            return True
        self._database.lock(connection, f"lease:{owner}")
        return _count(connection, owner, _LEASED) < limit

    def _at_their_limit(self, connection: sa.Connection, owners: Collection[str]) -> Mapping[str, str]:
        """Those of the owners who run as many jobs as they may, and in words what their other jobs wait for."""
        limit = self._limits.running_jobs
        if not limit:
            return {}
        running = (
            sa.select(jobs.c.owner, sa.func.count())
            .where(jobs.c.owner.in_(owners), jobs.c.state.in_(_LEASED))
            .group_by(jobs.c.owner)
        )
        return {
            owner: f"waiting for your own jobs: {count} are running, of at most {limit}"
            for owner, count in connection.execute(running)
            if count >= limit
        }


def _count(connection: sa.Connection, owner: str, states: Sequence[str]) -> int:
    query = sa.select(sa.func.count()).where(jobs.c.owner == owner, jobs.c.state.in_(states))
    count: int = connection.execute(query).scalar_one()
    return count


def _stored_bytes(connection: sa.Connection, owner: str) -> int:
    """Objects, what open uploads announced, and artifacts."""
    sums: list[sa.Select[Any]] = [
        sa.select(sa.func.sum(objects.c.bytes)).where(objects.c.owner == owner),
        sa.select(sa.func.sum(uploads.c.bytes)).where(
            uploads.c.owner == owner, uploads.c.state == UploadState.OPEN.value
        ),
        sa.select(sa.func.sum(jobs.c.artifact_bytes)).where(jobs.c.owner == owner),
    ]
    return sum(int(connection.execute(query).scalar_one() or 0) for query in sums)
