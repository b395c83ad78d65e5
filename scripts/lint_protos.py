"""Lint protos/ with `buf` from npm; says why where it cannot run."""

import shutil
import subprocess
import tempfile
from pathlib import Path

from google.rpc import status_pb2

ROOT = Path(__file__).resolve().parent.parent / "protos"
BUF = "@bufbuild/buf@1.75.0"


def main() -> None:
    """Exit with buf's code; with 0 where node or the npm registry is not there."""
    npx = shutil.which("npx")
    if npx is None:
        print("buf lint: skipped, node (npx) is not installed")
        return
    if subprocess.run([npx, "--yes", BUF, "--version"], capture_output=True).returncode:
        print(f"buf lint: skipped, npm could not install {BUF}")
        return
    with tempfile.TemporaryDirectory() as folder:
        workspace = Path(folder)
        shutil.copy(ROOT / "buf.yaml", workspace)
        shutil.copytree(
            ROOT / "npn", workspace / "npn", ignore=shutil.ignore_patterns("*.py*", "__pycache__")
        )
        # buf would fetch the import from its registry; the same file comes with googleapis-common-protos
        google_rpc = workspace / "google" / "rpc"
        google_rpc.mkdir(parents=True)
        shutil.copy(Path(status_pb2.__file__).with_name("status.proto"), google_rpc)
        result = subprocess.run([npx, "--yes", BUF, "lint", "--path", "npn"], cwd=workspace)
    if result.returncode:
        raise SystemExit(result.returncode)
    print("buf lint: clean")


if __name__ == "__main__":
    main()
