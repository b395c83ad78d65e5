"""Names in an archive, which torch writes into Python source that it runs: only plain identifiers pass."""

import builtins
import keyword
import re

import torch

from .refusal import refuse, shown

MAX_NAME = 1000
# What torch's generated source refers to; a value of such a name would hide it.
_RESERVED = frozenset(
    {
        "self",
        "torch",
        "device",
        "inf",
        "nan",
        "math",
        "operator",
        "_operator",
        "fx_pytree",
        "pytree",
        "NoneType",
    }
    | {"getattr", "slice", "range", "tuple", "list", "dict", "set", "complex"}
    | {name for name in dir(builtins) if name[0].isupper()}
)
# `register_parameter` refuses these in any model of a user's own.
_MEMBERS = frozenset(dir(torch.nn.Module())) | frozenset(dir(torch.fx.GraphModule))
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_PART = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)


def check_value_name(name: str) -> str:
    """A name of a value in the graph; raises InvalidInput unless it is a plain identifier."""
    good = _IDENTIFIER.fullmatch(name) and len(name) <= MAX_NAME and not keyword.iskeyword(name)
    if not good or name in _RESERVED or name.startswith("__"):
        raise refuse(
            "MODEL_UNSAFE", f"the graph has a value of the name {shown(name)}, which is no plain identifier"
        )
    return name


def check_fqn(name: str) -> str:
    """The dotted name of a parameter, buffer or module; raises InvalidInput where it is none."""
    parts = name.split(".")
    if len(name) > MAX_NAME or not all(_PART.fullmatch(part) for part in parts):
        raise refuse(
            "MODEL_UNSAFE", f"the model has a member of the name {shown(name)}; use letters, digits and _"
        )
    for part in parts:
        if part in _MEMBERS or part.startswith("__"):
            raise refuse(
                "MODEL_UNSAFE", f"{shown(name)}: {shown(part)} is a name of torch's own modules; rename it"
            )
    return name
