"""The backup of docs/operations.md: a service that is restored from it has its jobs and their bytes."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from postgres_server import PostgresServer
from s3_server import S3Server, make_bucket
from server_process import ServerProcess

from npn_client import Architecture, Budget, Client, Training
from npn_service.jobs.migrations import migrate

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "backup.py"


def back_up(command: str, folder: Path, postgres: PostgresServer, **settings: str) -> str:
    """Run the script as an operator would; returns what it printed."""
    own = {f"NPN_{name.upper()}": value for name, value in settings.items()}
    programs = {"PATH": f"{postgres.programs}:{os.environ['PATH']}"}
    done = subprocess.run(
        [sys.executable, SCRIPT, command, folder],
        env=os.environ | own | programs,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.timeout(600)
def test_a_restored_service_has_its_jobs(
    start_server: Callable[..., ServerProcess],
    postgres: PostgresServer,
    s3_server: S3Server,
    dataset: Path,
    tmp_path: Path,
) -> None:
    """Saved while the server runs, restored elsewhere: the artifact comes down from there, verified."""
    before, after = (
        {"database_url": postgres.url(postgres.create_database())} | make_bucket(s3_server).environment()
        for _ in range(2)
    )
    migrate(before["database_url"])
    server = start_server(**before)
    with Client(server.address, timeout=120) as client:
        job = client.compress(
            Architecture("mlp", {"hidden": [16]}),
            dataset=str(dataset),
            budget=Budget(max_params=60),
            training=Training(epochs=2),
        )
        files = {file.path: file.sha256 for file in job.result(timeout=300).files}
        said = back_up("save", tmp_path / "backup", postgres, **before)
    assert f"{len(files) + 1} objects" in said  # and the dataset
    server.stop()
    back_up("restore", tmp_path / "backup", postgres, **after)
    restored = start_server(**after)
    with Client(restored.address, timeout=120) as client:
        result = client.get_job(job.name).result(timeout=60)
        assert {file.path: file.sha256 for file in result.files} == files
        result.download(tmp_path / "out")
