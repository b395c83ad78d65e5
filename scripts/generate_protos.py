"""Generate the Python of protos/npn/v1 with the oldest supported grpcio-tools; `--check` only compares."""

import sys
import tempfile
from importlib.resources import files
from pathlib import Path

from google.rpc import status_pb2
from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent.parent / "protos"
PROTO = "npn/v1/compression.proto"
OUTPUTS = ("compression_pb2.py", "compression_pb2.pyi", "compression_pb2_grpc.py")


def generate(out: Path) -> None:
    """Write the three generated modules below `out`."""
    # google/rpc/status.proto comes with googleapis-common-protos, google/protobuf with grpcio-tools
    rpc_protos = Path(status_pb2.__file__).parents[2]
    status = protoc.main(
        [
            "protoc",
            f"-I{ROOT}",
            f"-I{rpc_protos}",
            f"-I{files('grpc_tools') / '_proto'}",
            f"--python_out={out}",
            f"--pyi_out={out}",
            f"--grpc_python_out={out}",
            PROTO,
        ]
    )
    if status:
        raise SystemExit(f"protoc ended with {status}")


def main() -> None:
    """Regenerate in place, or with --check fail where the committed code is stale."""
    if "--check" not in sys.argv:
        generate(ROOT)
        return
    with tempfile.TemporaryDirectory() as folder:
        generate(Path(folder))
        stale = [
            name
            for name in OUTPUTS
            if (Path(folder) / "npn/v1" / name).read_bytes() != (ROOT / "npn/v1" / name).read_bytes()
        ]
    if stale:
        raise SystemExit(f"stale generated code: {', '.join(stale)}; run `make protos`")


if __name__ == "__main__":
    main()
