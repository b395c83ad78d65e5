"""The client is thin."""

import subprocess
import sys

import npn_client
from npn_client import retry
from npn_client._pb import SERVICE


def test_importing_needs_neither_torch_nor_numpy_nor_the_service() -> None:
    """SDK and command load in a process without any of the heavy packages."""
    program = "import sys, npn_client, npn_client.cli; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert "npn_client.cli.commands" in loaded
    assert not loaded & {"torch", "numpy", "npn_core", "npn_service", "sqlalchemy"}


def test_the_public_names_are_there() -> None:
    """`__all__` is what can be imported, sorted and without doubles."""
    assert all(hasattr(npn_client, name) for name in npn_client.__all__)
    assert len(set(npn_client.__all__)) == len(npn_client.__all__)


def test_retried_calls_exist() -> None:
    """The retry policy names methods of the service, none of which streams, deletes or appends."""
    assert set(SERVICE.methods_by_name) - retry.IDEMPOTENT == {
        "WatchJob",
        "DeleteJob",
        "DeleteUpload",
        "ReadObject",
        "WriteObject",
    }
