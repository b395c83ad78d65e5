"""The house rules of docs/architecture.md, checked on the source itself."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = sorted(
    path.relative_to(ROOT) for folder in ("client", "service") for path in (ROOT / folder).rglob("*.py")
)
MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 60

# package -> what it must not import
FORBIDDEN_IMPORTS = {
    "client/npn_client": ("npn_core", "npn_service"),
    "service/npn_core": ("npn_service", "npn_client", "npn.v1"),
    "service/npn_service": ("npn_client",),
    "service/npn_service/access": ("npn_service.rpc", "npn_service.jobs", "npn_service.worker"),
    "service/npn_service/jobs": ("npn_service.rpc", "npn_service.worker"),
    "service/npn_service/storage": ("npn_service.rpc", "npn_service.worker"),
    "service/npn_service/worker": ("npn_service.rpc",),
}
# The server process and the client start without it.
TORCH_ROOMS = ("service/npn_core", "service/npn_service/worker", "client/npn_client/exporting.py")
MESSAGE_ROOMS = ("service/npn_service/rpc", "client/npn_client/_pb.py")
# child.py takes nothing from the environment: it hands a few variables on to the processes that it starts.
ENVIRONMENT_ROOMS = ("service/npn_service/settings.py", "service/npn_service/worker/child.py")
# What turns bytes into running code.
UNSAFE_MODULES = ("pickle", "cPickle", "marshal", "shelve", "dill", "cloudpickle", "joblib", "runpy", "code")
UNSAFE_CALLS = {"eval", "exec", "compile", "__import__"}
UNSAFE_LOADERS = {"torch.load", "torch.jit.load", "torch.export.load", "numpy.load", "np.load"}

pytestmark = pytest.mark.parametrize("path", SOURCES, ids=str)


def tree_of(path: Path) -> ast.Module:
    """The parsed source."""
    return ast.parse((ROOT / path).read_text(encoding="utf-8"), filename=str(path))


def imported(path: Path) -> Iterator[str]:
    """Full names of all that a module imports, at any depth: `from a.b import c` gives a.b and a.b.c."""
    package = [*path.parent.parts[1:]]
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*above, *([node.module] if node.module else [])])
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names)


def is_within(name: str, module: str) -> bool:
    """Whether a dotted name is the module or lies in it."""
    return name == module or name.startswith(module + ".")


def test_rooms_import_what_they_may(path: Path) -> None:
    """Data flow one way: no room imports what lies before it."""
    for room, forbidden in FORBIDDEN_IMPORTS.items():
        if path.is_relative_to(room):
            wrong = [name for name in imported(path) for module in forbidden if is_within(name, module)]
            assert not wrong, f"{room} must not import {wrong}"


def test_messages_stay_at_the_edge(path: Path) -> None:
    """Generated messages appear in the server's rpc/ and in one private module of the client."""
    if any(name.split(".")[-1].endswith(("_pb2", "_pb2_grpc")) for name in imported(path)):
        assert any(path.is_relative_to(room) for room in MESSAGE_ROOMS)


def test_torch_stays_in_its_rooms(path: Path) -> None:
    """The server process imports no torch; the client only to export a caller's module."""
    if any(is_within(name, "torch") for name in imported(path)):
        assert any(path.is_relative_to(room) for room in TORCH_ROOMS)


def test_settings_alone_read_the_environment(path: Path) -> None:
    """What a server is told comes through one place."""
    attributes = {f"os.{node.attr}" for node in ast.walk(tree_of(path)) if isinstance(node, ast.Attribute)}
    if (attributes | set(imported(path))) & {"os.environ", "os.environb", "os.getenv"}:
        assert any(path.is_relative_to(room) for room in ENVIRONMENT_ROOMS)


def test_nothing_turns_bytes_into_code(path: Path) -> None:
    """No unpickling, no evaluation, and no loader that falls back to either."""
    assert not [name for name in imported(path) for module in UNSAFE_MODULES if is_within(name, module)]
    calls = [node.func for node in ast.walk(tree_of(path)) if isinstance(node, ast.Call)]
    assert not {func.id for func in calls if isinstance(func, ast.Name)} & UNSAFE_CALLS
    assert not {ast.unparse(func) for func in calls if isinstance(func, ast.Attribute)} & UNSAFE_LOADERS


def test_files_and_functions_stay_small(path: Path) -> None:
    """The aim is 300 and 40 lines; these limits only stop growth."""
    assert len((ROOT / path).read_text(encoding="utf-8").splitlines()) <= MAX_FILE_LINES
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno is not None:
            assert node.end_lineno - node.lineno < MAX_FUNCTION_LINES, f"{node.name} is too long"
