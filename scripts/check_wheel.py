"""Build the wheel, install it bare with the oldest and the newest allowed packages, and run the SDK against a server.

Pipelines pin old packages: the thin client must work with all that pyproject.toml allows, and without torch.
"""

import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))
sys.path.insert(0, str(ROOT / "scripts"))

from demo import write_digits  # noqa: E402  (a script beside this one)
from server_process import launch_server  # noqa: E402

USE = """
import importlib.util, sys
from npn_client import Architecture, Budget, Client, Training
assert importlib.util.find_spec("torch") is None and importlib.util.find_spec("npn_service") is not None
with Client(sys.argv[1]) as client:
    job = client.compress(Architecture("mlp", {"hidden": [32]}), dataset=sys.argv[2],
                          budget=Budget(max_params=600), training=Training(epochs=4))
    result = job.result(timeout=120)
    result.download(sys.argv[3])
    assert result.compact.params <= 600
import grpc, google.protobuf
print("works with grpcio", grpc.__version__, "and protobuf", google.protobuf.__version__)
"""


def main() -> None:
    """Both ends of the ranges."""
    ranges = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    oldest = [re.sub(r">=", "==", requirement) for requirement in ranges]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, ROOT)
        wheel = next(folder.glob("*.whl"))
        dataset = folder / "digits.npz"
        write_digits(dataset)
        server = launch_server(folder / "data", folder / "server")
        try:
            for label, requirements in (("oldest", oldest), ("newest", ranges)):
                python = install(folder / label, wheel, requirements)
                run(python, "-c", USE, server.address, dataset, folder / f"{label}-out", cwd=folder)
        finally:
            server.stop()


def install(venv: Path, wheel: Path, requirements: list[str]) -> Path:
    """A fresh virtual environment with the bare wheel; returns its python."""
    run(sys.executable, "-m", "venv", venv)
    python = venv / "bin/python"
    run(python, "-m", "pip", "install", "--quiet", wheel, *requirements)
    return python


def run(*command: str | Path, cwd: Path | None = None) -> None:
    """Run a command, failing where it fails."""
    subprocess.run([str(part) for part in command], cwd=cwd, check=True)


if __name__ == "__main__":
    main()
