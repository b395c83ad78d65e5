"""The `npn-server` command: what it refuses to start with, and migrate."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from server_process import ServerProcess

from npn_service.errors import StartupError
from npn_service.jobs.migrations import check_schema
from npn_service.main import _run
from npn_service.settings import Settings


def run(folder: Path, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("NPN_")}
    environment |= {f"NPN_{name.upper()}": value for name, value in settings.items()}
    return subprocess.run(
        [sys.executable, "-m", "npn_service.main", *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"listen": "nowhere"}, "NPN_LISTEN"),
        ({"role": "api"}, "NPN_DATABASE_URL"),
        ({"role": "worker", "database_url": "sqlite:///jobs"}, "PostgreSQL"),
        ({"database_url": "sqlite:////nonexistent/folder/x"}, "database"),
        ({"metrics_listen": "203.0.113.1:1"}, "NPN_METRICS_LISTEN"),
        ({"metrics_listen": "", "listen": "203.0.113.1:1"}, "203.0.113.1:1"),
    ],
)
def test_what_cannot_start_says_why(tmp_path: Path, settings: dict[str, str], named: str) -> None:
    """Exit code 2 and one message that names the setting, no traceback."""
    ended = run(tmp_path, **settings)
    assert ended.returncode == 2
    assert named in ended.stderr
    assert "Traceback" not in ended.stderr


def test_migrate_makes_the_schema(tmp_path: Path) -> None:
    """`npn-server migrate` brings the embedded database to the newest revision; twice is the same."""
    for _ in range(2):
        assert run(tmp_path, "migrate", data_dir="data").returncode == 0
    check_schema(f"sqlite:///{tmp_path / 'data' / 'npn.sqlite'}")


def test_a_port_is_not_shared(tmp_path: Path, start_server: Callable[..., ServerProcess]) -> None:
    """A second server on the port fails instead of taking half of the calls."""
    first = start_server(workers="0")
    ended = run(tmp_path, listen=first.address, metrics_listen="", workers="0")
    assert ended.returncode == 2
    assert first.address in ended.stderr


def test_a_server_whose_grpc_ended_does_not_live_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It ends with one message, so that whoever keeps it running starts it again."""

    async def ended(self: object, timeout: float | None = None) -> bool:
        return True

    monkeypatch.setattr("grpc.aio._server.Server.wait_for_termination", ended)
    settings = Settings(listen="127.0.0.1:0", metrics_listen="", data_dir=tmp_path / "data", workers=0)
    with pytest.raises(StartupError, match="start the server again"):
        asyncio.run(_run(settings, None))
