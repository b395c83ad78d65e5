"""What tests of several rooms share."""

import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from postgres_server import PostgresServer
from s3_server import S3Bucket, S3Server, make_bucket
from server_process import ServerProcess, launch_server

# A run in the background of a shell inherits an ignored SIGINT and would hand it on to the commands under test.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def start_server(tmp_path: Path) -> Iterator[Callable[..., ServerProcess]]:
    """Start servers of the test's own: `start_server(workers="0")`; all are gone afterwards."""
    started: list[ServerProcess] = []

    def start(*, data_dir: Path | None = None, **settings: Any) -> ServerProcess:
        folder = tmp_path / f"server-{len(started)}"
        server = launch_server(data_dir or folder / "data", folder, **settings)
        started.append(server)
        return server

    yield start
    for server in started:
        server.kill()


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """One server shared by all tests that leave it running; `start_server` gives one of the test's own."""
    folder = tmp_path_factory.mktemp("server")
    shared = launch_server(folder / "data", folder)
    shared.warm()
    yield shared
    assert shared.stop() == 0, shared.log.read_text()


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """One PostgreSQL shared by all tests that leave it running and thawed; each makes databases of its own."""
    shared = PostgresServer()
    yield shared
    shared.close()


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """One real S3 server for the whole run, on a free port; started by the first test that needs it."""
    with S3Server(tmp_path_factory.mktemp("s3")) as running:
        yield running


@pytest.fixture
def s3(s3_server: S3Server) -> S3Bucket:
    """A fresh bucket on the S3 server, with its endpoint and keys."""
    return make_bucket(s3_server)
