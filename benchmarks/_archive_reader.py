"""The process that reads the fuzzer's archives, limited and watched: a path a line in, a JSON outcome a line out."""

import encodings.cp437  # noqa: F401  # zipfile loads it at the first name that is not UTF-8
import json
import re
import resource
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mpmath
import sympy
import torch
from torch.utils import _pytree as pytree

from npn_core.errors import InvalidInput
from npn_core.exported import read_exported

MEMORY_BYTES = 2 << 30  # beyond what the process has when it starts, as the service's inspector
WATCHED = re.compile(
    r"compile|exec|import|open|os\.(system|exec|posix_spawn|spawn|fork|mkdir|remove|rename|rmdir|link|symlink|chmod"
    r"|chown|truncate|putenv|kill|startfile).*|subprocess\..*|socket\..*|pickle\..*|marshal\..*|ctypes\.dl.*|shutil\..*"
    r"|urllib\..*|webbrowser\..*|pty\..*|code\..*|glob\..*|tempfile\..*"
)
# Text of torch's own lines, which Python parses (and does not run) to mark a place in a traceback.
HARMLESS = frozenset({"compile <unknown>"})
# torch loads some of its own modules at first use.
OWN_FOLDERS = tuple(str(Path(module.__file__ or "").parent) for module in (torch, sympy, mpmath))
OWN_MODULES = ("torch.", "sympy.", "mpmath.")
NUMBERED = re.compile(r"\d+")


class Watch:
    """Audit events that no good archive caused."""

    def __init__(self) -> None:
        self.known: set[str] = set(HARMLESS)
        self.found: list[str] = []
        self.learning = True
        sys.addaudithook(self._hear)

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not WATCHED.fullmatch(event):
            return
        key = _key(event, arguments, sys._getframe(1).f_code.co_filename)
        if key is None or key in self.known:
            return
        if self.learning:
            self.known.add(key)
        else:
            self.found.append(key[:300])


def _key(event: str, arguments: tuple[Any, ...], caller: str) -> str | None:
    """What makes two events the same; None where the event does no harm."""
    importing = caller.startswith("<frozen importlib")
    if event == "marshal.loads" and importing:
        return None  # of a module's file; its code is run in the next event
    if event == "open":
        path, mode, flags = arguments[0], arguments[1], arguments[2]
        writes = any(letter in str(mode or "") for letter in "wxa+") or bool(int(flags or 0) & 0x43)
        return f"open for writing {path}" if writes else None
    if event == "compile":
        source, name = arguments[0], arguments[1]
        if isinstance(source, bytes | str) and len(source) == 0:
            return None
        return f"compile {NUMBERED.sub('N', str(name))}"
    if event == "exec":
        if importing and arguments[0].co_filename.startswith(OWN_FOLDERS):
            return None
        return f"exec {NUMBERED.sub('N', arguments[0].co_filename)}"
    if event == "import":  # only of what is not loaded yet
        if arguments[0].startswith(OWN_MODULES):
            return None
        return f"import {arguments[0]}"
    return f"{event} {arguments!r}"


def inputs_of(program: torch.export.ExportedProgram) -> list[Any]:
    """Tensors of the shapes that the export saw, in the order of the user's inputs."""
    generator = torch.Generator().manual_seed(0)
    values = []
    placeholders = {node.name: node for node in program.graph.find_nodes(op="placeholder")}
    for name in program.graph_signature.user_inputs:
        node = placeholders.get(name) if isinstance(name, str) else None
        value = node.meta["val"] if node is not None else name
        if isinstance(value, torch.Tensor):
            shape = [int(size) if isinstance(size, int) else size.node.hint or 3 for size in value.shape]
            if value.dtype.is_floating_point:
                value = torch.randn(shape, generator=generator).to(value.dtype)
            else:
                value = torch.randint(0, 2, shape, generator=generator).to(value.dtype)
        values.append(value)
    return values


def outputs_of(program: torch.export.ExportedProgram) -> list[Any]:
    """The outputs of a run, flat."""
    spec = program.call_spec.in_spec
    arguments, keywords = pytree.tree_unflatten(inputs_of(program), spec)
    torch.manual_seed(0)
    with torch.no_grad():
        return pytree.tree_leaves(program.module()(*arguments, **keywords))


def same(found: list[Any], expected: list[Any]) -> bool:
    """Equal to the bit."""
    return len(found) == len(expected) and all(
        torch.equal(one, other)
        if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor)
        else one == other
        for one, other in zip(found, expected, strict=True)
    )


def outcome_of(path: Path, expected: list[Any]) -> tuple[str, str]:
    """What reading and running the archive gives, with a detail."""
    try:
        program = read_exported(path)
    except InvalidInput as error:
        return ("refused", error.reason)
    except MemoryError:
        return ("memory", "read")
    except Exception as error:
        return ("error", f"{type(error).__name__}: {error}"[:500])
    try:
        found = outputs_of(program)
    except MemoryError:
        return ("unrunnable", "MemoryError")
    except Exception as error:
        return ("unrunnable", f"{type(error).__name__}: {error}"[:500])
    if same(found, expected):
        return ("correct", "equal")
    tensors = [value for value in found if isinstance(value, torch.Tensor)]
    return (
        "correct",
        "finite" if all(bool(torch.isfinite(tensor).all()) for tensor in tensors) else "not finite",
    )


def serve(seeds: dict[str, Path], lines: Iterator[str]) -> None:
    """Answer each line "SEED PATH"."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    watch = Watch()
    expected = {}
    for name, path in seeds.items():
        for _ in range(2):
            expected[name] = outputs_of(read_exported(path))
    limit = int(Path("/proc/self/statm").read_text().split()[5]) * resource.getpagesize() + MEMORY_BYTES
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    watch.learning = False
    print(json.dumps("ready"), flush=True)
    for line in lines:
        name, path_text = line.split(maxsplit=1)
        started = time.perf_counter()
        kind, detail = outcome_of(Path(path_text.strip()), expected[name])
        events, watch.found = watch.found, []
        answer = {"kind": kind, "detail": detail, "events": events, "seconds": time.perf_counter() - started}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    serve({path.stem: path for path in sorted(folder.glob("*.pt2"))}, iter(sys.stdin))
