"""The adapters that the contract tests run over."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from postgres_server import PostgresServer
from s3_server import SMALL_PART, S3Bucket

from npn_service.jobs.migrations import migrate
from npn_service.jobs.model import Resources
from npn_service.jobs.sql_store import SqlJobStore
from npn_service.jobs.store import JobStore
from npn_service.storage.local import LocalObjectStore
from npn_service.storage.s3 import S3ObjectStore
from npn_service.storage.store import ObjectStore


@pytest.fixture(scope="session")
def migrated_postgres(postgres: PostgresServer) -> str:
    """The name of a PostgreSQL database with the newest schema, shared by tests that empty it first."""
    name = postgres.create_database()
    migrate(postgres.url(name))
    return name


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database with the newest schema, once per kind of database."""
    if request.param == "postgresql":
        postgres: PostgresServer = request.getfixturevalue("postgres")
        return postgres.emptied(request.getfixturevalue("migrated_postgres"))
    url = f"sqlite:///{tmp_path / 'npn.sqlite'}"
    migrate(url)
    return url


@pytest.fixture
def open_store(database_url: str) -> Iterator[Callable[..., JobStore]]:
    """Open stores on one database, with settings of the test's own.

    Events with progress are not thinned, and a busy machine may take its time.
    """
    opened: list[JobStore] = []

    def open_one(**settings: Any) -> JobStore:
        usual = {"progress_interval": 0.0, "answer_seconds": 60.0}
        opened.append(SqlJobStore(database_url, **{**usual, **settings}))
        return opened[-1]

    yield open_one
    for store in opened:
        store.close()


@pytest.fixture
def store(open_store: Callable[..., JobStore]) -> JobStore:
    """A store with the usual settings; a host is up that runs jobs."""
    opened = open_store()
    opened.beat_host(host="host", capacity=Resources(cpus=4, memory_bytes=8 << 30))
    return opened


@pytest.fixture(params=["local", "s3"])
def objects(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    """An empty object store, once per kind."""
    if request.param == "local":
        return LocalObjectStore(tmp_path / "objects")
    bucket: S3Bucket = request.getfixturevalue("s3")
    return S3ObjectStore(bucket.settings, part_bytes=SMALL_PART)
