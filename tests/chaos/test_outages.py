"""S3 and PostgreSQL away in the middle of a job: no attempt is spent, and nothing that has happened is lost."""

import itertools
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import grpc
import pytest
from batch import PEACE, check, follow, hashes_of, submit, wait_for, write_clouds
from cluster import Cluster
from postgres_server import PostgresServer
from s3_server import S3Server
from wire import connect, refused

from npn.v1 import compression_pb2 as pb
from npn_client import Client, Job

# What is promised is 2 seconds; a busy machine takes some more to say what it decided in time.
ANSWER_SECONDS = 4.0


@contextmanager
def outage(dependency: S3Server | PostgresServer, how: str) -> Iterator[None]:
    """Refused connections, or connections that nobody serves."""
    begin, end = {
        (S3Server, "refused"): ("stop_proxy", "start_proxy"),
        (S3Server, "hung"): ("pause_proxy", "resume_proxy"),
        (PostgresServer, "refused"): ("stop", "start"),
        (PostgresServer, "hung"): ("freeze", "thaw"),
    }[type(dependency), how]
    getattr(dependency, begin)()
    try:
        yield
    finally:
        getattr(dependency, end)()


def is_refused_at_once(address: str, method: str, request: Any) -> None:
    """UNAVAILABLE in time, and when to try again.  Without the SDK, which tries again by itself."""
    with connect(address) as stub:
        asked = time.monotonic()
        refusal = refused(getattr(stub, method), request)
        assert time.monotonic() - asked < ANSWER_SECONDS
    assert refusal.code is grpc.StatusCode.UNAVAILABLE
    assert refusal.retry_seconds > 0


def ride_out(
    cluster: Cluster, dataset: Path, place: str, away: Any, during: Callable[[Client, Job], None]
) -> None:
    """An undisturbed job, and one whose dependency goes `away` when it comes to `place`."""
    write_clouds(dataset)
    with Client(cluster.address, timeout=120) as client, Client(cluster.address, timeout=8) as hurried:
        (calm,) = follow(cluster, submit(client, dataset, 1), PEACE, seconds=600)
        (job,) = submit(client, dataset, 1)
        wait_for(cluster, place, job)
        with away:
            during(hurried, calm)
        follow(cluster, [job], PEACE, seconds=600)
        assert job.snapshot.attempt == 1
        check(cluster, [calm, job], hashes_of(calm))
    cluster.stop()


SHORT = [("refused", "checkpoint")]
LONG = [
    pair
    for pair in itertools.product(("refused", "hung"), ("data", "checkpoint", "upload"))
    if pair not in SHORT
]


def marked(pairs: list[tuple[str, str]], seconds: float, *marks: Any) -> list[Any]:
    """Parameters of one length."""
    return [
        pytest.param(*pair, seconds, marks=marks, id=f"{pair[0]}-{pair[1]}-{seconds:g}") for pair in pairs
    ]


@pytest.mark.timeout(1200)
@pytest.mark.parametrize(
    ("how", "place", "seconds"), [*marked(SHORT, 8), *marked(SHORT + LONG, 60, pytest.mark.slow)]
)
def test_s3_is_away(
    start_cluster: Callable[..., Cluster],
    s3_server: S3Server,
    tmp_path: Path,
    how: str,
    place: str,
    seconds: float,
) -> None:
    """Jobs can be looked at and watched meanwhile; what needs objects says to try again."""

    def during(client: Client, calm: Job) -> None:
        began = time.monotonic()
        assert client.get_job(calm.name).done
        assert list(client.list_jobs())
        assert next(client.get_job(calm.name).watch())
        assert calm.snapshot.result is not None
        file = pb.GetDownloadRequest(name=calm.snapshot.result.files[0].name)
        is_refused_at_once(cluster.address, "GetDownload", file)
        time.sleep(max(0.0, seconds - (time.monotonic() - began)))

    cluster = start_cluster()
    ride_out(cluster, tmp_path / "clouds.npz", place, outage(s3_server, how), during)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("how", ["refused", "hung"])
def test_postgres_restarts_five_times(
    start_cluster: Callable[..., Cluster], postgres: PostgresServer, tmp_path: Path, how: str
) -> None:
    """A job trains on through five outages that end before its lease does."""
    cluster = start_cluster(lease_seconds="30")

    def during(_: Client, calm: Job) -> None:
        for number in range(5):
            with outage(postgres, how):
                is_refused_at_once(cluster.address, "GetJob", pb.GetJobRequest(name=calm.name))
                time.sleep(3.0)
            time.sleep(2.0 + number / 2)

    ride_out(cluster, tmp_path / "clouds.npz", "dense", nullcontext(), during)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_drain_under_load(start_cluster: Callable[..., Cluster], tmp_path: Path) -> None:
    """SIGTERM: exit code 0 within the grace period, and another server goes on where the first was."""
    dataset = tmp_path / "clouds.npz"
    write_clouds(dataset)
    cluster = start_cluster(2, grace_seconds="20")
    with Client(cluster.running[1].address, timeout=120) as client:
        (calm,) = follow(cluster, submit(client, dataset, 1), PEACE, seconds=600)
        batch = submit(client, dataset, 6)
        for job in batch[:2]:
            wait_for(cluster, "plastic", job)
        asked = time.monotonic()
        assert cluster.running[0].stop() == 0
        assert time.monotonic() - asked < 30.0
        cluster.running[0] = cluster.running[1]
        follow(cluster, batch, PEACE, seconds=900)
        check(cluster, [calm, *batch], hashes_of(calm))
        lost = cluster.query("SELECT cause FROM attempts WHERE outcome = 'released'")
        assert all("shut down" in cause for (cause,) in lost)
