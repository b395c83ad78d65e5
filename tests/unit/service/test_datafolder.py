"""One server per data folder."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from npn_service.errors import StartupError
from npn_service.storage.datafolder import DataFolder

HOLD = """
import sys, time
from pathlib import Path
from npn_service.storage.datafolder import DataFolder
folder = DataFolder(Path(sys.argv[1]))
print("held", flush=True)
time.sleep(60)
"""


def test_a_second_server_is_refused(tmp_path: Path) -> None:
    """The refusal names the folder and the process that holds it."""
    with DataFolder(tmp_path / "data"), pytest.raises(StartupError) as refused:
        DataFolder(tmp_path / "data")
    assert str(tmp_path / "data") in str(refused.value)
    assert f"process id {os.getpid()};" in str(refused.value)
    DataFolder(tmp_path / "data").close()


def test_the_folder_is_free_when_its_server_was_killed(tmp_path: Path) -> None:
    """kill -9 leaves no stale lock."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "held\n"
            with pytest.raises(StartupError, match=f"process id {process.pid};"):
                DataFolder(tmp_path)
        finally:
            process.kill()
    DataFolder(tmp_path).close()


def test_a_folder_that_cannot_be_is_refused(tmp_path: Path) -> None:
    """A path below a file gives a message, not a traceback."""
    (tmp_path / "file").touch()
    with pytest.raises(StartupError, match="cannot be used"):
        DataFolder(tmp_path / "file" / "data")
