"""What tests of several rooms share."""

import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from postgres_server import PostgresServer
from server_process import ServerProcess, launch_server

# A run in the background of a shell inherits an ignored SIGINT and would hand it on to the commands under test.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def start_server(tmp_path: Path) -> Iterator[Callable[..., ServerProcess]]:
    """Start servers of the test's own: `start_server(workers="0")`; all are gone afterwards."""
    started: list[ServerProcess] = []

    def start(*, data_dir: Path | None = None, **settings: str) -> ServerProcess:
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
    yield shared
    assert shared.stop() == 0, shared.log.read_text()


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """One PostgreSQL shared by all tests that leave it running and thawed; each makes databases of its own."""
    shared = PostgresServer()
    yield shared
    shared.close()
