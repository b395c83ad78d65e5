"""Rules for what stands between layers: entry by entry, channel by channel, sums, products, attention."""

import re
from typing import Any

import numpy as np
from torch import fx, nn

from npn_core.axes import Axes, Labelling
from npn_core.graph import Dim, Shape, arguments, describe, operator_name, source
from npn_core.units import Labels

from .ends import pin_all, unknown


def entrywise(labelling: Labelling, node: fx.Node) -> Any:
    """Entry by entry, with broadcasting: what meets in an entry has the same units."""
    shape = node.meta["shape"]
    if shape is None or not all(hasattr(dim, "batched") for dim in shape):
        return unknown(labelling, node)
    operands = [n for n in node.all_input_nodes if isinstance(labelling.values[n.name], tuple)]
    reason = f"{describe(node)} joins it with an axis that never changes"
    return tuple(broadcast(labelling, operands, len(shape) - dim, reason) for dim in range(len(shape)))


def broadcast(labelling: Labelling, operands: list[fx.Node], from_end: int, reason: str) -> Labels | None:
    """The labels at the axis that is `from_end` places before the end."""
    found = []
    for operand in operands:
        shape, axes = labelling.shape(operand), labelling.axes(operand)
        if len(shape) >= from_end:
            found.append((shape[-from_end], axes[-from_end]))
    largest = max(dim.size for dim, _ in found)
    batched = any(dim.batched for dim, _ in found)
    spread = [labels for dim, labels in found if dim.size < largest or dim.batched != batched]
    for labels in spread:
        labelling.atoms.pin(labels, reason)
    met = [labels for dim, labels in found if dim.size == largest and dim.batched == batched]
    if not met:
        return None
    labels = met[0]
    for other in met[1:]:
        labels = labels if labels is None and other is None else labelling.atoms.merge(labels, other, reason)
    return labels


def channelwise(labelling: Labelling, node: fx.Node) -> Any:
    """Each channel for itself, along the axes behind it: as many as the operation's name says, or all but two."""
    x = labelling.axes(source(node))
    module = labelling.module(node)
    said = re.search(r"([123])d", operator_name(node) if module is None else type(module).__name__)
    places = int(said[1]) if said else len(x) - 2
    for labels in x[len(x) - places :]:
        labelling.atoms.pin(labels, f"{describe(node)} moves along it")
    axes = (*x[: len(x) - places], *(None,) * places)
    several = not all(hasattr(dim, "batched") for dim in node.meta["shape"])
    return (axes,) * len(node.meta["shape"]) if several else axes


def reduction(labelling: Labelling, node: fx.Node) -> Any:
    """Sums and the like over some axes, which stay whole."""
    x = labelling.axes(source(node))
    shape = node.meta["shape"]
    several = bool(shape) and not hasattr(shape[0], "batched")
    dims = arguments(node).get("dim")
    if dims is None or dims == []:
        dims = list(range(len(x)))
    gone = {dim % len(x) for dim in (dims if isinstance(dims, list | tuple) else [dims])} if x else set()
    for dim in gone:
        labelling.atoms.pin(x[dim], f"{describe(node)} reduces it to one")
    keeps = len(shape[0] if several else shape) == len(x)
    kept = tuple(None if dim in gone else labels for dim, labels in enumerate(x) if keeps or dim not in gone)
    return (kept,) * len(shape) if several else kept


def along_a_dim(labelling: Labelling, node: fx.Node) -> Axes:
    """Softmax and the like: mixes one axis."""
    x = labelling.axes(source(node))
    module = labelling.module(node)
    dim = _dim(node, module) % len(x)
    labelling.atoms.pin(x[dim], f"{describe(node)} mixes it")
    return tuple(None if d == dim else labels for d, labels in enumerate(x))


def _dim(node: fx.Node, module: nn.Module | None) -> int:
    return int(arguments(node)["dim"] if module is None else getattr(module, "dim", 0))


def glu(labelling: Labelling, node: fx.Node) -> Axes:
    """The first half of an axis times a function of the second."""
    x = list(labelling.axes(source(node)))
    module = labelling.module(node)
    dim = _dim(node, module) % len(x)
    if x[dim] is not None:
        x[dim] = labelling.atoms.merge_within(np.asarray(x[dim]).reshape(2, -1).T)
    return tuple(x)


def matmul(labelling: Labelling, node: fx.Node) -> Any:
    """A product of two values: the axis that is summed over stays whole."""
    left, right = labelling.axes(source(node)), labelling.axes(source(node, 1))
    if len(left) < 2 or len(left) != len(right):
        return unknown(labelling, node)
    for labels in (left[-1], right[-2]):
        labelling.atoms.pin(labels, f"{describe(node)} sums over it")
    before = _leading(labelling, node, 2)
    if sum(labels is not None for labels in (*before, left[-2], right[-1])) > 1:
        for labels in (left[-2], right[-1]):
            labelling.atoms.pin(labels, f"{describe(node)} pairs it with another axis of units")
        return (*before, None, None)
    return (*before, left[-2], right[-1])


def _leading(labelling: Labelling, node: fx.Node, inner: int) -> Axes:
    """The axes before the last `inner` ones of the node's output: heads, where they carry units."""
    reason = f"{describe(node)} joins it with an axis that never changes"
    operands = [source(node), source(node, 1)]
    rank = len(labelling.shape(node))
    axes = tuple(broadcast(labelling, operands, rank - dim, reason) for dim in range(rank - inner))
    labelling.heads.extend(labels for labels in axes if labels is not None)
    return axes


def attention(labelling: Labelling, node: fx.Node) -> Any:
    """softmax(q k^T) v, head by head; several query heads may share a key-value head."""
    values = [labelling.axes(source(node, place)) for place in range(3)]
    mask = arguments(node)["attn_mask"]
    rank = len(labelling.shape(node))
    per_head = rank > 3  # (..., heads, length, features), not (batch, length, features)
    for axes in values:
        for labels in (*axes[:-3], *axes[-2:]) if per_head else axes:
            labelling.atoms.pin(labels, f"{describe(node)} sums over it")
    if isinstance(mask, fx.Node):
        pin_all(labelling, mask, f"{describe(node)} takes it as its mask")
    if not per_head:
        return (None,) * rank
    heads = _joined_heads(labelling, node, *(axes[-3] for axes in values))
    if heads is not None and isinstance(mask, fx.Node) and _is_per_head(labelling.shape(mask)):
        labelling.atoms.pin(heads, f"{describe(node)} has a mask of its own for each")
    if heads is not None:
        labelling.heads.append(heads)
    return (*(None,) * (rank - 3), heads, None, None)


def _is_per_head(mask: Shape) -> bool:
    return len(mask) > 2 and mask[-3] != Dim(1, False)


def _joined_heads(
    labelling: Labelling, node: fx.Node, q: Labels | None, k: Labels | None, v: Labels | None
) -> Labels | None:
    queries, keys = (labelling.shape(source(node, place))[-3] for place in range(2))
    reason = f"{describe(node)} joins it with heads that never change"
    heads = labelling.atoms.merge(k, v, reason) if not (k is v is None) else None
    if heads is not None and queries.size != keys.size:
        heads = np.repeat(heads, queries.size // keys.size)
    return heads if heads is q is None else labelling.atoms.merge(q, heads, reason)
