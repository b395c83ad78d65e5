"""Sizes of a program: which follow the batch and which are fixed."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx

from npn_core.errors import InvalidInput

from .source import refusal


class Symbols:
    """The batch symbols of a program: the dynamic first dimensions of its inputs.

    `batch` is the example's batch size where the program has it fixed, otherwise None.
    Another dynamic size keeps the example's value.
    """

    def __init__(self, inputs: Sequence[fx.Node]) -> None:
        self._symbols: set[Any] = set()
        fixed: set[int] = set()
        for node in inputs:
            first = _first(node)
            if isinstance(first, torch.SymInt):
                if not first.node.expr.is_Symbol:
                    raise _input(node, "must have the batch itself as its first dimension")
                self._symbols.add(first.node.expr)
            else:
                fixed.add(int(first))
        if len(fixed) + bool(self._symbols) > 1:
            raise InvalidInput(
                "model.uri",
                "the model's inputs must share their first dimension, the batch; "
                f"the export has {sorted(fixed)}" + (" and a dynamic one" if self._symbols else ""),
                reason="MODEL_INPUT",
            )
        self.batch: int | None = fixed.pop() if fixed else None

    def follows(self, size: int | torch.SymInt) -> bool:
        """Does the size depend on the batch? Always False where the program has a fixed batch."""
        return isinstance(size, torch.SymInt) and bool(size.node.expr.free_symbols & self._symbols)

    def static(self, size: int | torch.SymInt, node: fx.Node) -> int | None:
        """The size as a number; None if it follows the batch."""
        if not isinstance(size, torch.SymInt):
            return int(size)
        if self.follows(size):
            return None
        hint = size.node.hint
        if hint is None:
            raise refusal(node, "has a shape that depends on the data")
        return int(hint)


def shape(node: Any) -> tuple[Any, ...]:
    """Sizes of the old node's tensor; each an int or a SymInt."""
    value = node.meta.get("val") if isinstance(node, fx.Node) else None
    if not isinstance(value, Tensor):
        raise InvalidInput(
            "model.uri", f"the archive does not say the shape of {node}", reason="MODEL_OPERATOR"
        )
    return tuple(value.shape)


def dtype(node: Any) -> torch.dtype:
    """The type of the old node's tensor."""
    shape(node)  # raises where it has none
    found: torch.dtype = node.meta["val"].dtype
    return found


def _first(node: fx.Node) -> Any:
    sizes = shape(node)
    if not sizes:
        raise _input(node, "has no dimensions; the first must be the batch")
    return sizes[0]


def _input(node: fx.Node, what: str) -> InvalidInput:
    return InvalidInput("model.uri", f"the model's input {node.name!r} {what}", reason="MODEL_INPUT")
