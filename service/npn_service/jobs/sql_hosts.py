"""The hosts that lease jobs, and what a job waits for: a host that can run it, its owner's turn, or a free worker."""

from collections.abc import Sequence
from dataclasses import replace

import sqlalchemy as sa

from .database import clock
from .model import Job, Resources, State
from .schema import hosts
from .sql_base import WAITING
from .sql_limits import SqlLimits

HOST_SECONDS = 15.0  # a host that is silent for so long is gone
_ALIVE = sa.select(hosts).where(hosts.c.seen_time > clock(-HOST_SECONDS))


class SqlHosts(SqlLimits):
    """Heartbeats of hosts, and why queued jobs wait."""

    def beat_host(self, *, host: str, capacity: Resources) -> None:
        """The host is alive; the rows of those that are gone are removed."""
        seen = {
            "cpus": capacity.cpus,
            "gpus": capacity.gpus,
            "memory_bytes": capacity.memory_bytes,
            "seen_time": clock(),
        }
        beat = self._database.insert(hosts).values(id=host, **seen)
        with self._database.write() as connection:
            connection.execute(beat.on_conflict_do_update(index_elements=[hosts.c.id], set_=seen))
            connection.execute(sa.delete(hosts).where(hosts.c.seen_time <= clock(-HOST_SECONDS)))

    def forget_host(self, host: str) -> None:
        """The host leases no more jobs."""
        with self._database.write() as connection:
            connection.execute(sa.delete(hosts).where(hosts.c.id == host))

    def _explain(self, connection: sa.Connection, job: Job) -> Job:
        (explained,) = self._explain_all(connection, [job])
        return explained

    def _explain_all(self, connection: sa.Connection, jobs: Sequence[Job]) -> Sequence[Job]:
        """The same jobs; those that wait say so where it is for more than a free worker."""
        owners = {job.owner for job in jobs if job.state is State.QUEUED}
        if not owners:
            return jobs
        capacities = [
            Resources(cpus=row.cpus, gpus=row.gpus, memory_bytes=row.memory_bytes)
            for row in connection.execute(_ALIVE)
        ]
        held_back = self._at_their_limit(connection, owners)
        return [
            _explained(job, _no_host(job, capacities) or held_back.get(job.owner, WAITING))
            if job.state is State.QUEUED
            else job
            for job in jobs
        ]


def _no_host(job: Job, capacities: Sequence[Resources]) -> str:
    """Why no live host can run the job; empty where one can."""
    asked = job.spec.resources
    if not capacities:
        return "no host that runs jobs is up"
    if any(asked.fits(capacity) for capacity in capacities):
        return ""
    have = "; ".join(sorted({str(capacity) for capacity in capacities}))
    return f"no host fits: the job asks for {asked}, the hosts have {have}"


def _explained(job: Job, why: str) -> Job:
    return replace(job, wait_reason=job.wait_reason.removesuffix(WAITING) + why)
