"""Copies of a network that share with it every tensor that need not differ."""

import copy
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from .device import device_of

_Module = TypeVar("_Module", bound=nn.Module)


def duplicate(module: _Module, memo: dict[int, object] | None = None) -> _Module:
    """A deep copy, whose buffers are stored where those of `module` are; `memo` as in copy.deepcopy.

    That of a graph alone would store every buffer that a node reads.
    """
    copied = copy.deepcopy(module, memo)
    stored = module.state_dict(keep_vars=True).keys()
    for name, buffer in [*copied.named_buffers(remove_duplicate=False)]:
        if name not in stored:
            path, _, attribute = name.rpartition(".")
            copied.get_submodule(path).register_buffer(attribute, buffer, persistent=False)
    return copied


def copy_with(module: _Module, change: Callable[[Tensor], Tensor]) -> _Module:
    """A copy of `module` in eval mode with `change(tensor)` for each parameter and buffer.

    What `change` returns as it is, is shared with `module`; tied tensors stay tied.
    """
    memo: dict[int, object] = {}
    for tensor in (*module.parameters(), *module.buffers()):
        changed = change(tensor)
        if changed is not tensor and isinstance(tensor, nn.Parameter):
            changed = nn.Parameter(changed.detach(), requires_grad=tensor.requires_grad)
        memo[id(tensor)] = changed
    return duplicate(module, memo).eval()  # deepcopy asks its memo first


def on_device(module: _Module, device: torch.device) -> _Module:
    """The module where its parameters are on `device`; else a copy there, in the same mode."""
    if device_of(module) == device:
        return module
    return copy_with(module, lambda tensor: tensor.to(device)).train(module.training)


def in_format(module: _Module, form: torch.memory_format) -> _Module:
    """A copy of `module` in eval mode whose 4-d tensors have the memory format."""

    def change(tensor: Tensor) -> Tensor:
        if tensor.ndim != 4 or tensor.is_contiguous(memory_format=form):
            return tensor
        return tensor.contiguous(memory_format=form)

    return copy_with(module, change)


def stored_alone(module: _Module) -> _Module:
    """A copy of `module` in eval mode, each of whose tensors is contiguous and alone in its storage."""
    seen: set[int] = set()

    def change(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        whole = storage.nbytes() == tensor.numel() * tensor.element_size()
        if whole and tensor.is_contiguous() and storage.data_ptr() not in seen:
            seen.add(storage.data_ptr())
            return tensor
        return tensor.clone(memory_format=torch.contiguous_format)

    return copy_with(module, change)


def fake_copy(module: _Module, mode: FakeTensorMode) -> _Module:
    """A copy of `module` in eval mode with tensors of `mode`: of the same shapes, on the CPU, without data.

    Graphs hold literal `device="cpu"` (positions, masks), so the meta device would not do.
    """

    def change(tensor: Tensor) -> Tensor:
        return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="cpu")

    with mode:
        return copy_with(module, change)


def fake_inputs(inputs: tuple[Tensor, ...], mode: FakeTensorMode) -> tuple[Tensor, ...]:
    """Tensors of `mode` with the shapes and types of `inputs`, which may be on any device."""
    with mode:
        return tuple(torch.empty(x.shape, dtype=x.dtype, device="cpu") for x in inputs)
