"""Operators that move or rename entries: reshape, permute, split, slice and what reduces to them."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import fx

from .builder import Builder
from .symbols import dtype, shape
from .weights import Weight

aten = torch.ops.aten
_END = 2**63 - 1


def reshape(builder: Builder, old: fx.Node, bound: dict[str, Any]) -> Any:
    """view, reshape, _unsafe_view, _reshape_alias."""
    sizes = bound["size"] if "size" in bound else bound["shape"]
    return builder.emit(aten.reshape.default, bound["self"], sizes, old=old)


def view_dtype_or_size(builder: Builder, old: fx.Node, bound: dict[str, Any]) -> Any:
    """aten.view: other sizes, or other bits (kept)."""
    return builder.keep(old.target, bound, old) if "dtype" in bound else reshape(builder, old, bound)


def like_output(builder: Builder, old: fx.Node, bound: dict[str, Any]) -> Any:
    """A reshape whose sizes are read from the result: unflatten, view_as, reshape_as."""
    x = bound["self"]
    if "other" in bound:
        return builder.emit(
            aten.reshape.default, x, _sizes(builder, bound["other"], old.args[1], old), old=old
        )
    before = _sizes(builder, x, old.args[0], old)
    dim = bound["dim"] % len(before)
    sizes = [*before[:dim], *bound["sizes"], *before[dim + 1 :]]
    return builder.emit(aten.reshape.default, x, sizes, old=old)


def expand_as(builder: Builder, old: fx.Node, bound: dict[str, Any]) -> Any:
    """aten.expand_as."""
    sizes = _sizes(builder, bound["other"], old.args[1], old)
    return builder.emit(aten.expand.default, bound["self"], sizes, old=old)


def copy(builder: Builder, old: fx.Node, bound: dict[str, Any]) -> Any:
    """aten.copy, which has no gradient: the source in the target's size and type."""
    value: Any = bound["src"]
    if shape(old.args[1]) != shape(old.args[0]):
        value = builder.emit(
            aten.expand.default, value, _sizes(builder, bound["self"], old.args[0], old), old=old
        )
    if dtype(old.args[1]) != dtype(old.args[0]):
        value = builder.emit(aten.to.dtype, value, dtype(old.args[0]), old=old)
    return value


def expand(builder: Builder, old: fx.Node, bound: dict[str, Any]) -> Any:
    """aten.expand."""
    return builder.emit(aten.expand.default, bound["self"], bound["size"], old=old)


def flatten(builder: Builder, old: fx.Node, bound: dict[str, Any]) -> Any:
    """aten.flatten."""
    rank = len(shape(old.args[0]))
    start, end = bound["start_dim"] % rank, bound["end_dim"] % rank
    if start == end:
        return bound["self"]
    return builder.emit(aten.flatten.using_ints, bound["self"], start, end, old=old)


def permute(builder: Builder, old: fx.Node, bound: dict[str, Any]) -> Any:
    """permute, transpose, t, movedim, swapaxes, mT and friends."""
    x, rank = bound["self"], len(shape(old.args[0]))
    order = _order(bound, rank)
    if order == list(range(rank)):
        return x
    if isinstance(x, Weight) and rank == 2:
        return builder.transpose(x)
    return builder.emit(aten.permute.default, x, order, old=old)


def _order(bound: dict[str, Any], rank: int) -> list[int]:
    order = list(range(rank))
    if "dims" in bound:
        return [dim % rank for dim in bound["dims"]]
    if "source" in bound:
        source, target = (_list(bound[key]) for key in ("source", "destination"))
        source, target = [dim % rank for dim in source], [dim % rank for dim in target]
        rest = iter([dim for dim in order if dim not in source])
        return [source[target.index(dim)] if dim in target else next(rest) for dim in order]
    pair = [bound[key] for key in ("dim0", "dim1", "axis0", "axis1") if key in bound] or [-2, -1]
    if rank < 2:
        return order
    first, second = pair[0] % rank, pair[1] % rank
    order[first], order[second] = order[second], order[first]
    return order


def _list(value: Any) -> list[int]:
    return list(value) if isinstance(value, list | tuple) else [value]


def reverse(builder: Builder, old: fx.Node, bound: dict[str, Any]) -> Any:
    """Tensor.T: all axes in reverse."""
    rank = len(shape(old.args[0]))
    return permute(builder, old, {"self": bound["self"], "dims": list(range(rank))[::-1]})


def squeeze(builder: Builder, old: fx.Node, bound: dict[str, Any]) -> Any:
    """squeeze of given dimensions, or of all that have one entry (never the batch)."""
    sizes = [builder.symbols.static(size, old) for size in shape(old.args[0])]
    dims = _list(bound["dim"]) if "dim" in bound else list(range(1, len(sizes)))
    dims = [dim % len(sizes) for dim in dims if sizes[dim] == 1] if sizes else []
    if not dims:
        return bound["self"]
    return builder.emit(aten.squeeze.dims, bound["self"], dims, old=old)


def unsqueeze(builder: Builder, old: fx.Node, bound: dict[str, Any]) -> Any:
    """aten.unsqueeze, its dimension counted from the front."""
    return builder.emit(aten.unsqueeze.default, bound["self"], bound["dim"] % len(shape(old)), old=old)


def split(builder: Builder, old: fx.Node, bound: dict[str, Any]) -> Any:
    """split, split_with_sizes, chunk, tensor_split, as split_with_sizes."""
    parts = old.meta.get("val")
    rank = len(shape(old.args[0]))
    dim = bound["dim"] % rank
    if not isinstance(parts, list | tuple):
        return builder.keep(old.target, bound, old)
    sizes = [builder.symbols.static(part.shape[dim], old) for part in parts]
    if None in sizes:
        return builder.keep(old.target, bound, old)
    return builder.emit(aten.split_with_sizes.default, bound["self"], sizes, dim, old=old)


def slice_(builder: Builder, old: fx.Node, bound: dict[str, Any]) -> Any:
    """aten.slice; the whole range is no operator at all."""
    start, end, step = bound["start"] or 0, bound["end"], bound["step"]
    end = _END if end is None else end
    dim = bound["dim"] % len(shape(old))
    size = builder.symbols.static(shape(old.args[0])[dim], old)
    beyond = isinstance(end, int) and (end == _END or (size is not None and end >= size and dim > 0))
    if step == 1 and beyond and isinstance(start, int) and start == 0:
        return bound["self"]
    return builder.emit(aten.slice.Tensor, bound["self"], dim, start, end, step, old=old)


def narrow(builder: Builder, old: fx.Node, bound: dict[str, Any]) -> Any:
    """aten.narrow as a slice."""
    start, length = bound["start"], bound["length"]
    if not (isinstance(start, int) and isinstance(length, int) and start >= 0):
        return builder.keep(old.target, bound, old)
    dim = bound["dim"] % len(shape(old))
    return builder.emit(aten.slice.Tensor, bound["self"], dim, start, start + length, 1, old=old)


def select(builder: Builder, old: fx.Node, bound: dict[str, Any]) -> Any:
    """aten.select, its dimension counted from the front."""
    dim = bound["dim"] % len(shape(old.args[0]))
    return builder.emit(aten.select.int, bound["self"], dim, bound["index"], old=old)


def unbind(builder: Builder, old: fx.Node, bound: dict[str, Any]) -> Any:
    """aten.unbind, its dimension counted from the front."""
    dim = bound["dim"] % len(shape(old.args[0]))
    return builder.emit(aten.unbind.int, bound["self"], dim, old=old)


def joined(builder: Builder, old: fx.Node, bound: dict[str, Any]) -> Any:
    """cat and stack, their dimension counted from the front."""
    return builder.keep(old.target, {**bound, "dim": bound["dim"] % len(shape(old))}, old)


def concat(builder: Builder, old: fx.Node, bound: dict[str, Any]) -> Any:
    """Other names of cat."""
    return builder.emit(aten.cat.default, bound["tensors"], bound["dim"] % len(shape(old)), old=old)


def pad(builder: Builder, old: fx.Node, bound: dict[str, Any]) -> Any:
    """aten.pad; with a constant it is constant_pad_nd."""
    if bound["mode"] != "constant":
        return builder.keep(old.target, bound, old)
    value = bound["value"] or 0.0
    return builder.emit(aten.constant_pad_nd.default, bound["self"], bound["pad"], value, old=old)


def _sizes(builder: Builder, new: Any, source: Any, old: fx.Node) -> Sequence[Any]:
    found: list[Any] = []
    for dim, size in enumerate(shape(source)):
        number = builder.symbols.static(size, old)
        found.append(builder.emit(aten.sym_size.int, new, dim, old=old) if number is None else number)
    return found


HANDLERS = {
    **dict.fromkeys(("reshape", "_unsafe_view", "_reshape_alias", "_reshape_copy", "view_copy"), reshape),
    "view": view_dtype_or_size,
    **dict.fromkeys(("unflatten", "view_as", "reshape_as"), like_output),
    "expand": expand,
    "expand_copy": expand,
    "expand_as": expand_as,
    "copy": copy,
    "flatten": flatten,
    **dict.fromkeys(("permute", "permute_copy", "transpose", "transpose_copy", "t", "movedim"), permute),
    **dict.fromkeys(("moveaxis", "swapaxes", "swapdims", "mT", "mH", "adjoint"), permute),
    "numpy_T": reverse,
    "squeeze": squeeze,
    "squeeze_copy": squeeze,
    "unsqueeze": unsqueeze,
    "unsqueeze_copy": unsqueeze,
    **dict.fromkeys(
        ("split", "split_copy", "split_with_sizes", "split_with_sizes_copy", "unsafe_split"), split
    ),
    **dict.fromkeys(("chunk", "unsafe_chunk", "unsafe_split_with_sizes", "tensor_split"), split),
    "slice": slice_,
    "slice_copy": slice_,
    "narrow": narrow,
    "narrow_copy": narrow,
    "select": select,
    "select_copy": select,
    "unbind": unbind,
    "unbind_copy": unbind,
    "cat": joined,
    "stack": joined,
    "concat": concat,
    "concatenate": concat,
    "pad": pad,
}
