"""Workers and servers killed wherever it hurts: every job succeeds once, with an undisturbed job's bytes."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from batch import PLACES, Kills, check, follow, hashes_of, submit, write_clouds
from cluster import Cluster

from npn_client import Client

# A worker's death means something while it works; afterwards only the server's does.
OF_WORKERS = ("prepare", "dense", "plastic", "hardening", "checkpoint", "fine_tune", "export")
OF_SERVERS = ("data", "checkpoint", "upload", "before commit", "before answer")


def run(cluster: Cluster, dataset: Path, kills: Kills, *, jobs: int, epochs: int, seconds: float) -> None:
    """One job in peace, then a batch of the same under fire."""
    write_clouds(dataset)
    with Client(cluster.address, timeout=120) as client:
        (calm,) = follow(
            cluster, submit(client, dataset, 1, epochs=epochs), Kills(Counter(), Counter()), seconds=600
        )
        undisturbed = hashes_of(calm)
        batch = submit(client, dataset, jobs, epochs=epochs)
        follow(cluster, batch, kills, seconds=seconds)
        assert not kills.left, f"these did not land: {kills.worker + kills.server}"
        check(cluster, [calm, *batch], undisturbed)
    cluster.stop()
    for data in cluster.folder.glob("data-*"):
        assert not list((data / "scratch").iterdir())


@pytest.mark.timeout(900)
def test_a_kill_in_each_place(start_cluster: Callable[..., Cluster], tmp_path: Path) -> None:
    """One kill of a worker in each stage of its work, one of the server around a commit, over a few jobs."""
    kills = Kills(Counter(["plastic", "hardening", "export"]), Counter(["before commit", "before answer"]))
    run(start_cluster(), tmp_path / "clouds.npz", kills, jobs=3, epochs=6, seconds=600)


@pytest.mark.slow
@pytest.mark.timeout(5400)
@pytest.mark.parametrize("servers", [1, 2])
def test_a_batch_survives(start_cluster: Callable[..., Cluster], tmp_path: Path, servers: int) -> None:
    """30 jobs, 50 kills of a worker and 25 of a server, at least three of each kind in each place."""
    kills = Kills(
        Counter({place: 8 if place in ("plastic",) else 7 for place in OF_WORKERS}),
        Counter(dict.fromkeys(OF_SERVERS, 5)),
    )
    assert (kills.worker.total(), kills.server.total()) == (50, 25)
    assert set(OF_WORKERS) | set(OF_SERVERS) == set(PLACES) - {"end"}  # nothing is lost there
    run(start_cluster(servers), tmp_path / "clouds.npz", kills, jobs=30, epochs=12, seconds=4800)
