"""A device that computes on the CPU, and refuses to mix its tensors with the CPU's as a GPU does.

Where a machine has no GPU it shows that a job keeps each tensor where it belongs, and draws the same random numbers.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

NAME = "pretend"
_MOVES = ("aten::_to_copy", "aten::copy_")
_INDEXED = (
    "aten::index",
    "aten::index_put_",
    "aten::_index_put_impl_",
)  # take indices from the CPU, as on CUDA

_setup_privateuseone_for_python_backend(NAME)


class Held(Tensor):
    """A tensor that says it is on the device; `inner` holds the values."""

    inner: Tensor

    @staticmethod
    def __new__(cls, inner: Tensor) -> "Held":
        """Of the same shape, strides and type."""
        held: Held = Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls,
            inner.size(),
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device=torch.device(NAME, 0),
        )
        held.inner = inner
        return held

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Compute on the CPU."""
        return _run(func, args, kwargs or {})


class _Everything(TorchDispatchMode):
    """Also what makes tensors from none."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


@contextmanager
def pretend_device() -> Iterator[torch.device]:
    """The device, while it is there."""
    with _Everything():
        yield torch.device(NAME, 0)


def _run(func: Any, args: Any, kwargs: Any) -> Any:
    tensors = [one for one in tree_leaves((args, kwargs)) if isinstance(one, Tensor)]
    held = {id(one.inner): one for one in tensors if isinstance(one, Held)}
    name = func._schema.name
    first = isinstance(args[0], Held) if args else False
    alone = [one for one in tensors if not isinstance(one, Held) and one.dim() > 0]
    if held and alone and name not in _MOVES and not (name in _INDEXED and first):
        raise RuntimeError(f"{func}: tensors of two devices")
    device = kwargs.get("device")
    there = first if name == "aten::copy_" else bool(held) if device is None else device.type == NAME
    result = func(*tree_map(_inner, args), **tree_map(_inner, kwargs))

    def outer(one: Any) -> Any:
        if not isinstance(one, Tensor) or isinstance(one, Held):
            return one
        if id(one) in held:  # an operation in place
            return held[id(one)]
        return Held(one) if there else one

    return tree_map(outer, result)


def _inner(one: Any) -> Any:
    if isinstance(one, Held):
        return one.inner
    return torch.device("cpu") if isinstance(one, torch.device) and one.type == NAME else one
