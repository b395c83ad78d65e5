"""A server that hangs for longer than its leases and then goes on as if nothing had happened."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from batch import PEACE, check, follow, hashes_of, submit, wait_for, write_clouds
from cluster import Cluster

from npn_client import Client, Job


def row_of(cluster: Cluster, job: Job) -> tuple[Any, ...]:
    """All that the database holds of the job itself."""
    (row,) = cluster.query(f"SELECT * FROM jobs WHERE id = '{job.name.removeprefix('jobs/')}'")  # noqa: S608
    return row


@contextmanager
def held_back(cluster: Cluster, job: Job) -> Iterator[None]:
    """Within the block no commit of the job gets further than its first statement."""
    with psycopg.connect(cluster.postgres.url(cluster.database)) as connection:
        connection.execute("SELECT id FROM jobs WHERE id = %s FOR UPDATE", [job.name.removeprefix("jobs/")])
        yield
        connection.rollback()


def freeze_at(cluster: Cluster, place: str, job: Job) -> int:
    """Freeze the server that brings the job there; returns which one it is."""
    if place != "before commit":
        frozen = wait_for(cluster, place, job).server
        cluster.freeze(frozen)
        return frozen
    wait_for(cluster, "export", job)
    with held_back(cluster, job):
        frozen = wait_for(cluster, place, job).server
        time.sleep(0.2)  # the statement is under way
        cluster.freeze(frozen)
    return frozen


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("place", ["plastic", "checkpoint", "upload", "before commit"])
def test_a_zombie_publishes_nothing(
    start_cluster: Callable[..., Cluster], tmp_path: Path, place: str
) -> None:
    """Its job was taken over and finished meanwhile: that stays as it is, and what the zombie stores goes."""
    dataset = tmp_path / "clouds.npz"
    write_clouds(dataset)
    cluster = start_cluster(2, workers="1")
    with Client(cluster.running[0].address) as first, Client(cluster.running[1].address) as second:
        (calm,) = follow(cluster, submit(first, dataset, 1, epochs=6), PEACE, seconds=300)
        (job,) = submit(first, dataset, 1, epochs=6)
        zombie = freeze_at(cluster, place, job)
        job = (second if zombie == 0 else first).get_job(job.name)
        follow(cluster, [job], PEACE, seconds=300)
        assert job.snapshot.attempt == 2
        published = row_of(cluster, job)

        cluster.thaw()
        lost = wait_for(cluster, "end", job, attempt=1)
        assert (lost.server, lost.fields["outcome"]) == (zombie, "lost")
        assert row_of(cluster, job) == published
        check(cluster, [calm, job], hashes_of(calm))
    outcomes = cluster.query("SELECT number, outcome FROM attempts ORDER BY start_time")
    assert outcomes == [(1, "succeeded"), (1, "released"), (2, "succeeded")]
    cluster.stop()
