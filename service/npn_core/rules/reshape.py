"""How labels pass a reshape: which axes it merges, and which it divides.

Both shapes are cut into the smallest blocks of axes that hold the same entries.  Merged axes carry the labels
of the one that has units.  A divided axis passes its units to one of its parts: heads come out of
`reshape(batch, length, heads, features)` this way.
"""

import math
from dataclasses import dataclass

import numpy as np
from torch import fx

from npn_core.axes import Axes, Constant, Division, Labelling
from npn_core.graph import Shape, arguments, describe, source
from npn_core.units import Labels

_BATCH = 1_000_003  # stands for the batch size: a prime that no axis has


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Part:
    """A factor of an axis: all of it, or the batch and the rest of a batched one."""

    dim: int
    size: int
    labels: Labels | None = None


def reshape(labelling: Labelling, node: fx.Node) -> Axes:
    """`reshape(x, sizes)`: sizes along axes with units follow them."""
    axes = _through(labelling, node)
    given = arguments(node)
    sizes = given["shape"] if "shape" in given else given["size"]
    for dim, labels in enumerate(axes):
        if labels is not None and sizes[dim] != -1:
            batched = labelling.shape(node)[dim].batched
            labelling.follow(node, Constant(argument=1, item=dim, labels=labels, batched=batched))
    return axes


def flatten(labelling: Labelling, node: fx.Node) -> Axes:
    """`flatten(x, from, to)` says no sizes."""
    return _through(labelling, node)


def _through(labelling: Labelling, node: fx.Node) -> Axes:
    x = source(node)
    for dim, labels in zip(labelling.shape(x), labelling.axes(x), strict=True):
        if dim.size == 1:  # nothing says which axis of the result has it
            labelling.atoms.pin(labels, f"{describe(node)} drops its axis")
    ins = _parts(labelling.shape(x), labelling.axes(x))
    outs = _parts(labelling.shape(node), (None,) * len(labelling.shape(node)))
    result: list[Labels | None] = [None] * len(labelling.shape(node))
    for before, after in _blocks(ins, outs):
        for part, labels in zip(after, _pass(labelling, node, before, after), strict=True):
            if labels is not None:
                result[part.dim] = labels
    return tuple(result)


def _parts(shape: Shape, axes: Axes) -> list[_Part]:
    parts = []
    for dim, ((size, batched), labels) in enumerate(zip(shape, axes, strict=True)):
        if batched:
            parts.append(_Part(dim=dim, size=_BATCH))
        if size != 1:
            parts.append(_Part(dim=dim, size=size, labels=labels))
    return parts


def _blocks(ins: list[_Part], outs: list[_Part]) -> list[tuple[list[_Part], list[_Part]]]:
    blocks = []
    while ins or outs:
        before, after = [ins.pop(0)], [outs.pop(0)]
        while (a := math.prod(p.size for p in before)) != (b := math.prod(p.size for p in after)):
            if a < b:
                before.append(ins.pop(0))
            else:
                after.append(outs.pop(0))
        blocks.append((before, after))
    return blocks


def _pass(
    labelling: Labelling, node: fx.Node, before: list[_Part], after: list[_Part]
) -> list[Labels | None]:
    """The labels of each part of `after`."""
    if len(before) == len(after) == 1:
        return [before[0].labels]
    labelled = [place for place, part in enumerate(before) if part.labels is not None]
    if not labelled:
        return [None] * len(after)
    if any(part.size == _BATCH for part in before):
        for place in labelled:
            labelling.atoms.pin(before[place].labels, f"{describe(node)} mixes it with the batch")
        return [None] * len(after)
    for place in labelled[1:]:
        labelling.atoms.pin(before[place].labels, f"{describe(node)} merges it with another axis of units")
    sizes = [part.size for part in before]
    grid = np.asarray(before[labelled[0]].labels).reshape(
        [-1 if p == labelled[0] else 1 for p in range(len(sizes))]
    )
    flat = np.broadcast_to(grid, sizes).flatten()
    return [flat] if len(after) == 1 else _divide(labelling, node, flat, [part.size for part in after])


def _divide(labelling: Labelling, node: fx.Node, flat: Labels, sizes: list[int]) -> list[Labels | None]:
    """Units pass to the first part that needs no further merging, else to the first part of all."""
    atoms = labelling.atoms
    tables = [np.moveaxis(flat.reshape(sizes), part, 0).reshape(size, -1) for part, size in enumerate(sizes)]
    whole = [part for part, table in enumerate(tables) if _is_constant(labelling, table)]
    order = whole + [part for part in range(len(sizes)) if part not in whole]
    part = order[labelling.divisions.get(node.name, 0)]
    labels = atoms.merge_within(tables[part])
    labelling.divided[node.name] = Division(labels=labels, choices=len(sizes))
    return [labels if place == part else None for place in range(len(sizes))]


def _is_constant(labelling: Labelling, table: Labels) -> bool:
    return all(len(set(labelling.atoms.roots(row))) == 1 for row in table.tolist())
