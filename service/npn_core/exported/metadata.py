"""What is kept of a node's metadata: where in the user's source it came from, as text.

torch looks up names of functions, builds objects and reads JSON from other metadata; those are dropped.
"""

import re
from collections.abc import Mapping
from pathlib import PurePosixPath

from .refusal import shown

_FRAME = re.compile(r'File "([^"\n]{1,1000})", line ([0-9]{1,9}), in [^\n]*\n([^\n]*)')
MAX_TRACE = 1 << 16
MAX_STACK = 1 << 14


def keep_metadata(metadata: Mapping[str, str]) -> dict[str, str]:
    """`stack_trace` and `nn_module_stack`, with nothing but printable characters and line ends."""
    kept = {}
    if trace := metadata.get("stack_trace", "")[:MAX_TRACE]:
        kept["stack_trace"] = "\n".join(_printable(line) for line in trace.split("\n"))
    stack = metadata.get("nn_module_stack", "")
    if 0 < len(stack) <= MAX_STACK and stack == _printable(stack) and _is_module_stack(stack):
        kept["nn_module_stack"] = stack
    return kept


def source_of(metadata: Mapping[str, str]) -> str:
    """A place such as "layer1.conv1 (model.py:31: x = self.conv1(x))" for a message; "" where it is unknown."""
    frames = _FRAME.findall(metadata.get("stack_trace", "")[:MAX_TRACE])
    own = [frame for frame in frames if "/torch/nn/" not in frame[0]] or frames
    stack = metadata.get("nn_module_stack", "")[:MAX_STACK]
    parts = _split(stack.rsplit(";", 1)[-1])
    module = shown(parts[1])[1:-1] if len(parts) == 3 and parts[1] else ""
    if not own:
        return module
    path, line, code = own[-1]
    place = f"{shown(PurePosixPath(path).name)[1:-1]}:{line}: {shown(code.strip())[1:-1]}"
    return f"{module} ({place})" if module else place


def _printable(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(character if character.isprintable() else " " for character in text)


def _is_module_stack(stack: str) -> bool:
    """Whether torch can split it into "key,path,type" items; it raises where it cannot."""
    return all(len(_split(item)) == 3 for item in stack.split(";"))


def _split(item: str) -> list[str]:
    """At commas outside of brackets, as torch does."""
    parts, start, depth = [], 0, 0
    for position, character in enumerate(item):
        depth += (character in "[(") - (character in ")]")
        if character == "," and depth == 0:
            parts.append(item[start:position])
            start = position + 1
    return [*parts, item[start:]]
