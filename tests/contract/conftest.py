"""The adapters that the contract tests run over."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from npn_service.jobs.migrations import migrate
from npn_service.jobs.sql_store import SqlJobStore
from npn_service.jobs.store import JobStore
from npn_service.storage.local import LocalObjectStore
from npn_service.storage.store import ObjectStore


@pytest.fixture(params=["sqlite"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database with the newest schema, once per kind of database."""
    url = f"sqlite:///{tmp_path / 'npn.sqlite'}"
    migrate(url)
    return url


@pytest.fixture
def open_store(database_url: str) -> Iterator[Callable[..., JobStore]]:
    """Open stores on one database, with settings of the test's own; events with progress are not thinned."""
    opened: list[JobStore] = []

    def open_one(**settings: Any) -> JobStore:
        opened.append(SqlJobStore(database_url, **{"progress_interval": 0.0, **settings}))
        return opened[-1]

    yield open_one
    for store in opened:
        store.close()


@pytest.fixture
def store(open_store: Callable[..., JobStore]) -> JobStore:
    """A store with the usual settings."""
    return open_store()


@pytest.fixture(params=["local"])
def objects(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    """An empty object store, once per kind."""
    return LocalObjectStore(tmp_path / "objects")
