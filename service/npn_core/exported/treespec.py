"""How a model's inputs and outputs are nested: read as plain containers and written afresh.

torch builds any registered type from such a text, with contexts that may import modules.  Here tuples, lists and
dicts pass.  Named tuples are read as tuples.  Outputs of another type whose context is a list of keys, such as the
dataclasses of the transformers library, are read as dicts of these keys.
"""

import json
from typing import Any

from .refusal import refuse, shown

MAX_DEPTH = 20
MAX_LEAVES = 10_000

_SEQUENCES = {
    "builtins.tuple": "builtins.tuple",
    "builtins.list": "builtins.list",
    "torch.fx.immutable_collections.immutable_list": "builtins.list",
    "collections.namedtuple": "builtins.tuple",
    "torch.Size": "builtins.tuple",
}
_DICTS = {
    "builtins.dict": "builtins.dict",
    "torch.fx.immutable_collections.immutable_dict": "builtins.dict",
    "collections.OrderedDict": "collections.OrderedDict",
}
_LEAF: dict[str, Any] = {"type": None, "context": None, "children_spec": []}

Node = dict[str, Any]


def read_inputs(text: str) -> tuple[str, int, list[str]]:
    """The inputs' treespec, its number of leaves, and the names of keyword inputs."""
    node = _node(_load(text), 0, foreign=False)
    children = node["children_spec"]
    is_call = node["type"] == "builtins.tuple" and [child["type"] for child in children] == [
        "builtins.tuple",
        "builtins.dict",
    ]
    if not is_call:
        raise refuse(
            "MODEL_NOT_PT2", "the inputs are no arguments and keyword arguments; export an nn.Module"
        )
    keys = json.loads(children[1]["context"])
    if not all(isinstance(key, str) and key.isidentifier() for key in keys):
        raise refuse("MODEL_UNSAFE", "the model has a keyword input whose name is no identifier")
    return _dump(node), _leaves(node), keys


def read_outputs(text: str) -> tuple[str, int]:
    """The outputs' treespec and its number of leaves."""
    node = _node(_load(text), 0, foreign=True)
    return _dump(node), _leaves(node)


def positional_inputs(text: str) -> int:
    """How many positional inputs a treespec from `read_inputs` has."""
    _, node = json.loads(text)
    return len(node["children_spec"][0]["children_spec"])


def _load(text: str) -> Any:
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        document = None
    if type(document) is not list or len(document) != 2 or document[0] != 1:
        raise refuse("MODEL_NOT_PT2", f"the nesting of inputs or outputs is not readable: {shown(text)}")
    return document[1]


def _node(node: object, depth: int, *, foreign: bool) -> Node:
    if type(node) is not dict or depth > MAX_DEPTH or set(node) != {"type", "context", "children_spec"}:
        raise refuse("MODEL_NOT_PT2", "the nesting of inputs or outputs is malformed or too deep")
    kind, context, children = node["type"], node["context"], node["children_spec"]
    if type(children) is not list or len(children) > MAX_LEAVES:
        raise refuse("MODEL_NOT_PT2", "the nesting of inputs or outputs is malformed or too large")
    if kind is None and context is None and not children:
        return _LEAF
    plain = [_node(child, depth + 1, foreign=foreign) for child in children]
    if type(kind) is str and kind in _SEQUENCES:
        return {"type": _SEQUENCES[kind], "context": "null", "children_spec": plain}
    keys = _keys(context, len(plain))
    if type(kind) is str and keys is not None and (kind in _DICTS or foreign):
        return {
            "type": _DICTS.get(kind, "builtins.dict"),
            "context": json.dumps(keys),
            "children_spec": plain,
        }
    raise refuse(
        "MODEL_UNSAFE",
        f"inputs or outputs of the type {shown(kind)} are not read; use tensors, tuples, lists and dicts",
    )


def _keys(context: object, count: int) -> list[str | int] | None:
    """The keys of a dict's context: distinct texts or numbers, one for each child; None where it has others."""
    try:
        keys = json.loads(context) if type(context) is str else None
    except (ValueError, RecursionError):
        return None
    if type(keys) is not list or len(keys) != count or any(type(key) not in (str, int) for key in keys):
        return None
    return keys if len(set(keys)) == count else None


def _leaves(node: Node) -> int:
    if node["type"] is None:
        return 1
    return sum(_leaves(child) for child in node["children_spec"])


def _dump(node: Node) -> str:
    return json.dumps([1, node])
