"""The hosts that lease jobs, and what a job waits for that none of them can run."""

from collections.abc import Sequence
from dataclasses import replace

import sqlalchemy as sa

from .database import clock
from .model import Job, Resources, State
from .schema import hosts
from .sql_base import WAITING, SqlBase

HOST_SECONDS = 15.0  # a host that is silent for so long is gone


class SqlHosts(SqlBase):
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
        """The same jobs; those that wait say so where no live host could run them."""
        if not any(job.state is State.QUEUED for job in jobs):
            return jobs
        alive = sa.select(hosts).where(hosts.c.seen_time > clock(-HOST_SECONDS))
        capacities = [
            Resources(cpus=row.cpus, gpus=row.gpus, memory_bytes=row.memory_bytes)
            for row in connection.execute(alive)
        ]
        return [_explained(job, capacities) if job.state is State.QUEUED else job for job in jobs]


def _explained(job: Job, capacities: Sequence[Resources]) -> Job:
    asked = job.spec.resources
    if any(asked.fits(capacity) for capacity in capacities):
        return job
    why = "no host that runs jobs is up"
    if capacities:
        have = "; ".join(sorted({str(capacity) for capacity in capacities}))
        why = f"no host fits: the job asks for {asked}, the hosts have {have}"
    return replace(job, wait_reason=job.wait_reason.removesuffix(WAITING) + why)
