"""Rules for layout: axes in another order, joined, cut, repeated, padded.  Sizes among the arguments follow."""

from typing import Any

import numpy as np
from torch import fx

from npn_core.axes import Axes, Constant, Labelling
from npn_core.graph import arguments, describe, operator_name, source
from npn_core.units import Labels

from .between import broadcast
from .ends import unknown


def permute(labelling: Labelling, node: fx.Node) -> Axes:
    """Another order of the axes."""
    x = labelling.axes(source(node))
    name = operator_name(node)
    order = list(range(len(x)))
    given = arguments(node)
    if name == "aten.permute.default":
        order = [dim % len(x) for dim in given["dims"]]
    elif name == "aten.transpose.int":
        a, b = given["dim0"] % len(x), given["dim1"] % len(x)
        order[a], order[b] = b, a
    else:
        order.reverse()
    return tuple(x[dim] for dim in order)


def unsqueeze(labelling: Labelling, node: fx.Node) -> Axes:
    """A new axis of size 1."""
    x = list(labelling.axes(source(node)))
    x.insert(arguments(node)["dim"] % (len(x) + 1), None)
    return tuple(x)


def squeeze(labelling: Labelling, node: fx.Node) -> Axes:
    """Axes of size 1 go."""
    x, shape = labelling.axes(source(node)), labelling.shape(source(node))
    dims = arguments(node).get("dim", list(range(len(x))))
    asked = {dim % len(x) for dim in (dims if isinstance(dims, list | tuple) else [dims])}
    gone = {dim for dim in asked if shape[dim] == (1, False)}
    for dim in gone:
        labelling.atoms.pin(x[dim], f"{describe(node)} removes it")
    return tuple(labels for dim, labels in enumerate(x) if dim not in gone)


def expand(labelling: Labelling, node: fx.Node) -> Axes:
    """Axes of size 1 are repeated; new ones come in front."""
    x, before = labelling.axes(source(node)), labelling.shape(source(node))
    after, sizes = labelling.shape(node), arguments(node)["size"]
    new = len(after) - len(before)
    result: list[Labels | None] = [None] * new
    for dim, labels in enumerate(x):
        if before[dim] != after[new + dim]:
            labelling.atoms.pin(labels, f"{describe(node)} repeats it")
            labels = None
        elif labels is not None and sizes[new + dim] != -1:
            follows = Constant(argument=1, item=new + dim, labels=labels, batched=before[dim].batched)
            labelling.follow(node, follows)
        result.append(labels)
    return tuple(result)


def repeat(labelling: Labelling, node: fx.Node) -> Axes:
    """Copies behind each other."""
    x, counts = labelling.axes(source(node)), arguments(node)["repeats"]
    new = len(counts) - len(x)
    result: list[Labels | None] = [None] * new
    for labels, count in zip(x, counts[new:], strict=True):
        if labels is not None and not isinstance(count, int):
            labelling.atoms.pin(labels, f"{describe(node)} repeats it as often as the batch is large")
            labels = None
        result.append(labels if labels is None or count == 1 else np.tile(labels, count))
    return tuple(result)


def repeat_interleave(labelling: Labelling, node: fx.Node) -> Any:
    """Copies of every entry beside each other."""
    given = arguments(node)
    if operator_name(node) != "aten.repeat_interleave.self_int" or given["dim"] is None:
        return unknown(labelling, node)
    x = list(labelling.axes(source(node)))
    dim = given["dim"] % len(x)
    if x[dim] is not None:
        x[dim] = np.repeat(np.asarray(x[dim]), given["repeats"])
    return tuple(x)


def cat(labelling: Labelling, node: fx.Node) -> Axes:
    """The units of the parts, one after the other."""
    parts: list[fx.Node] = list(arguments(node)["tensors"])
    along = arguments(node)["dim"] % len(labelling.shape(node))
    reason = f"{describe(node)} joins it with an axis that never changes"
    result = [
        _joined(labelling, parts, node, dim)
        if dim == along
        else broadcast(labelling, parts, len(labelling.shape(node)) - dim, reason)
        for dim in range(len(labelling.shape(node)))
    ]
    return tuple(result)


def _joined(labelling: Labelling, parts: list[fx.Node], node: fx.Node, dim: int) -> Labels | None:
    axes = [labelling.axes(part)[dim] for part in parts]
    if all(labels is None for labels in axes):
        return None
    reason = f"{describe(node)} has it beside an axis that never changes"
    pieces = []
    for part, labels in zip(parts, axes, strict=True):
        if labels is None:
            labels = labelling.atoms.fresh(part.name, labelling.shape(part)[dim].size, None)
            labelling.atoms.pin(labels, reason)
        pieces.append(labels)
    return np.concatenate(pieces)


def stack(labelling: Labelling, node: fx.Node) -> Axes:
    """A new axis; along the others the same units."""
    parts: list[fx.Node] = list(arguments(node)["tensors"])
    rank = len(labelling.shape(parts[0]))
    reason = f"{describe(node)} joins it with an axis that never changes"
    axes = [broadcast(labelling, parts, rank - dim, reason) for dim in range(rank)]
    axes.insert(arguments(node)["dim"] % (rank + 1), None)
    return tuple(axes)


def split(labelling: Labelling, node: fx.Node) -> Any:
    """Pieces of an axis; their sizes follow the units."""
    x = labelling.axes(source(node))
    given = arguments(node)
    dim, sizes = given["dim"] % len(x), list(given["split_sizes"])
    labels = x[dim]
    if labels is None:
        return (x,) * len(sizes)
    pieces = np.split(labels, np.cumsum(sizes)[:-1])
    for item, piece in enumerate(pieces):
        labelling.follow(node, Constant(argument=1, item=item, labels=piece))
    return tuple((*x[:dim], piece, *x[dim + 1 :]) for piece in pieces)


def unbind(labelling: Labelling, node: fx.Node) -> Any:
    """Every entry of an axis on its own, or one of them: the axis stays whole."""
    x = labelling.axes(source(node))
    dim = arguments(node)["dim"] % len(x)
    labelling.atoms.pin(x[dim], f"{describe(node)} picks entries of it by number")
    rest = (*x[:dim], *x[dim + 1 :])
    return (rest,) * len(node.meta["shape"]) if operator_name(node).startswith("aten.unbind") else rest


def slice_(labelling: Labelling, node: fx.Node) -> Axes:
    """A range of an axis; its ends follow the units."""
    x = list(labelling.axes(source(node)))
    given = arguments(node)
    dim, start, end, step = given["dim"] % len(x), given["start"], given["end"], given["step"]
    labels = x[dim]
    if labels is None:
        return tuple(x)
    ends = [value for value in (start, end) if value is not None]
    if step != 1 or labelling.shape(source(node))[dim].batched or not all(isinstance(e, int) for e in ends):
        labelling.atoms.pin(labels, f"{describe(node)} picks entries of it by number")
        x[dim] = None
        return tuple(x)
    first, last, _ = slice(start, end).indices(len(labels))
    for argument, place in ((2, first), (3, last)):
        if len(node.args) > argument and node.args[argument] is not None:
            labelling.follow(node, Constant(argument=argument, item=None, labels=labels[:place]))
    x[dim] = labels[first:last]
    return tuple(x)


def pad(labelling: Labelling, node: fx.Node) -> Axes:
    """Constants around an axis: units of their own, which join those that they meet later."""
    x, sizes = list(labelling.axes(source(node))), list(arguments(node)["pad"])
    for pair in range(len(sizes) // 2):
        dim, (left, right) = len(x) - 1 - pair, sizes[2 * pair : 2 * pair + 2]
        labels = x[dim]
        if labels is None or left == right == 0:
            continue
        if min(left, right) < 0:
            labelling.atoms.pin(labels, f"{describe(node)} cuts it")
            x[dim] = None
            continue
        before, after = (labelling.atoms.fresh(node.name, size, None) for size in (left, right))
        for item, padding in ((2 * pair, before), (2 * pair + 1, after)):
            labelling.follow(node, Constant(argument=1, item=item, labels=padding))
        x[dim] = np.concatenate([before, labels, after])
    return tuple(x)


def pixel_shuffle(labelling: Labelling, node: fx.Node) -> Axes:
    """r^2 channels become one, r times as large in both directions."""
    x = list(labelling.axes(source(node)))
    channels = labelling.shape(node)[-3].size
    for labels in x[-2:]:
        labelling.atoms.pin(labels, f"{describe(node)} stretches it")
    x[-2:] = None, None
    if x[-3] is not None:
        x[-3] = labelling.atoms.merge_within(np.asarray(x[-3]).reshape(channels, -1))
    return tuple(x)
