"""Operators by their schema: arguments by name, and the functional counterpart of an in-place operator."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch._ops import OpOverload

# Where results lie and in which layout, not what is computed.
_IGNORED = ("device", "pin_memory", "layout", "memory_format", "non_blocking")
_RENAMED = {
    "zero_": torch.ops.aten.zeros_like.default,
    "fill_": torch.ops.aten.full_like.default,
    "detach_": torch.ops.aten.detach.default,
    "copy_": torch.ops.aten.copy.default,
}


def name(target: object) -> str:
    """The operator's bare name, "conv2d" for aten.conv2d.default; "" for what is no operator of aten."""
    if isinstance(target, OpOverload) and target.namespace == "aten":
        return str(target.overloadpacket.__name__)
    return ""


def bind(target: OpOverload, args: Sequence[Any], kwargs: dict[str, Any]) -> dict[str, Any]:
    """Every argument of the schema by name; defaults filled in."""
    bound: dict[str, Any] = {}
    for index, argument in enumerate(target._schema.arguments):
        if index < len(args):
            bound[argument.name] = args[index]
        elif argument.name in kwargs:
            bound[argument.name] = kwargs[argument.name]
        else:
            bound[argument.name] = argument.default_value if argument.has_default_value() else None
    return bound


def spread(target: OpOverload, bound: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Positional arguments, all of them, and the keyword-only ones that differ from their default."""
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    for argument in target._schema.arguments:
        value = bound[argument.name]
        default = argument.default_value if argument.has_default_value() else None
        if not argument.kwarg_only:
            args.append(value)
        elif argument.name not in _IGNORED and value is not None and value != default:
            kwargs[argument.name] = value
    return tuple(args), kwargs


def mutated(target: object) -> list[str]:
    """Names of the arguments that the operator writes to."""
    if not isinstance(target, OpOverload) or not target._schema.is_mutable:
        return []
    return [a.name for a in target._schema.arguments if a.alias_info is not None and a.alias_info.is_write]


def functional(target: OpOverload) -> OpOverload | None:
    """The operator that computes what the in-place `target` leaves in its first argument; None if unknown."""
    if not target._schema.is_mutable:
        return target
    packet = name(target)
    if packet in _RENAMED:
        return _RENAMED[packet]
    if not packet.endswith("_") or packet.endswith("__"):
        return None
    other: Callable[..., Any] | None = getattr(torch.ops.aten, packet[:-1], None)
    found = getattr(other, target._overloadname, None)
    return found if isinstance(found, OpOverload) else None
