"""Clusters of real servers on the run's PostgreSQL and S3."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cluster import Cluster
from postgres_server import PostgresServer
from s3_server import S3Bucket


@pytest.fixture
def start_cluster(tmp_path: Path, postgres: PostgresServer, s3: S3Bucket) -> Iterator[Callable[..., Cluster]]:
    """Start servers that share a database and a bucket: `start_cluster(servers=2, workers="1")`."""
    started: list[Cluster] = []

    def start(servers: int = 1, **settings: str) -> Cluster:
        started.append(
            Cluster(folder=tmp_path, postgres=postgres, bucket=s3, servers=servers, settings=settings)
        )
        return started[-1]

    yield start
    for cluster in started:
        cluster.kill()
