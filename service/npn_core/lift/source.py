"""Where a node came from in the user's code: "layer1.0.conv1 (model.py:31: x = self.conv1(x))"."""

import re
from pathlib import PurePath

from torch import fx

from npn_core.errors import InvalidInput

_FRAME = re.compile(
    r'File "(?P<file>[^"\n]*)", line (?P<line>\d+)[^\n]*(?:\n(?! *File ")[ \t]*(?P<code>[^\n]*))?'
)
_TORCH = re.compile(r"[/\\]torch[/\\]")
_PATH = re.compile(r"[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)*")
_CODE = 120  # characters of a source line that are shown


def module_stack(node: fx.Node) -> list[tuple[str, str]]:
    """(path, qualified class name) of the modules that the node was called in, outermost first."""
    found: list[tuple[str, str]] = []
    for entry in (node.meta.get("nn_module_stack") or {}).values():
        if not (isinstance(entry, tuple) and len(entry) == 2):
            continue
        path, kind = entry
        name = kind if isinstance(kind, str) else f"{kind.__module__}.{kind.__qualname__}"
        if path == "" or (isinstance(path, str) and _PATH.fullmatch(path) and "metadata_hook" not in path):
            found.append((path, name))
    return found


def enclosing(node: fx.Node) -> tuple[str, str]:
    """Path and class of the innermost module that the node was called in; two empty strings if unknown."""
    stack = module_stack(node)
    return stack[-1] if stack else ("", "")


def line(node: fx.Node) -> str:
    """The last line of the user's code that led to the node, "model.py:31: x = self.conv1(x)", or ""."""
    frames = list(_FRAME.finditer(node.meta.get("stack_trace") or ""))
    frames = [
        frame for frame in frames if not frame["file"].startswith("<eval_with_key>")
    ]  # code that torch generated
    users = [frame for frame in frames if not _TORCH.search(frame["file"])] or frames
    if not users:
        return ""
    frame = users[-1]
    code = (frame["code"] or "").strip()[:_CODE]
    name = PurePath(frame["file"].replace("\\", "/")).name
    return f"{name}:{frame['line']}" + (f": {code}" if code else "")


def describe(node: fx.Node, path: str = "") -> str:
    """`path`, or else the enclosing module's, with the source line in brackets."""
    path = path or enclosing(node)[0]
    where = line(node)
    return f"{path} ({where})".strip() if where else path


def operator_name(target: object) -> str:
    """The operator's name without overload: "aten.lstm"."""
    packet = getattr(target, "overloadpacket", None)
    text = str(packet if packet is not None else getattr(target, "__name__", target))
    return text.removeprefix("torch.ops.")


def refusal(node: fx.Node, what: str) -> InvalidInput:
    """The error that names the node's operator and source line; `what` completes the sentence."""
    where = node.meta.get("source") or describe(node)
    place = f" at {where}" if where else ""
    return InvalidInput(
        "model.uri", f"operator {operator_name(node.target)}{place} {what}", reason="MODEL_OPERATOR"
    )
