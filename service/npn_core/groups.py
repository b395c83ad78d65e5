"""Units: which slices of which tensors live or die together.

A group is a set of units with one gate each: the channels of a convolution together with all that is added
to them, the heads of an attention, the features that a linear layer reads from a flattened tensor.  A feature
lies inside another unit, its parent: it is alive when its own gate and its parent's are open; a unit that is
read through its features alone is dead when none of them lives (closure).

Or a unit is a single weight (`weights.py`): then no slice ever leaves, and its gate makes it zero.
"""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from .device import CPU
from .progress import Unpruned
from .units import Kind

FIXED = -1
"""The unit of a position that never leaves."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Group:
    """`size` units that begin at `offset` in the gate vector."""

    name: str
    kind: Kind
    size: int
    offset: int

    @property
    def slice(self) -> slice:
        """Where the group's gates lie in the gate vector."""
        return slice(self.offset, self.offset + self.size)


@dataclass(frozen=True, kw_only=True, slots=True)
class Follower:
    """An integer at `argument` (and there at `item`) of a node that follows the live positions of axis `axis`.

    Of its first `length` positions; `batched`: a multiple of the batch size by that number.
    """

    argument: int
    item: int | None
    axis: int
    length: int
    batched: bool


Dims = tuple[int | None, ...]
"""For each dimension of a tensor the number of its axis, None where it never changes."""


@dataclass(frozen=True, kw_only=True)
class Coupling:
    """The groups of a network and where they lie in it.

    `axes`: the distinct layouts of units along dimensions, each the unit of every position (n,) int64 or FIXED.
    `tensors`: name of a parameter or buffer -> Dims.  `values`: node name -> Dims of its output (a tuple of them
    for several results).  `readers`: names and dims of the weights along which gates act.  `followers`: node name
    -> its constants that follow the units.  `selects`: node name -> (axis of the features, axis that they are
    picked from, or None).  `parent` (G,) int64: the unit that a feature lies in, or FIXED.  `closes` (G,) bool:
    units that are read through their features alone.  `unpruned`: what is left whole, and why.  `weights`: the
    tensors of which every entry is a unit -> its group, in the order of the entries.
    """

    groups: tuple[Group, ...]
    axes: tuple[Tensor, ...]
    tensors: dict[str, Dims]
    values: dict[str, Any]
    readers: frozenset[tuple[str, int]]
    followers: dict[str, tuple[Follower, ...]]
    selects: dict[str, tuple[int, int | None]]
    parent: Tensor
    closes: Tensor
    unpruned: tuple[Unpruned, ...] = ()
    weights: dict[str, Group] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Number of gates."""
        return sum(group.size for group in self.groups)

    @cached_property
    def by_name(self) -> dict[str, Group]:
        """The groups by name."""
        return {group.name: group for group in self.groups}

    @cached_property
    def features(self) -> Tensor:
        """The units that lie inside another: (F,) int64."""
        return (self.parent != FIXED).nonzero().flatten()

    @cached_property
    def children(self) -> dict[int, Tensor]:
        """The features inside each unit that closes: unit -> (n,) int64."""
        inside = defaultdict(list)
        for feature in self.features.tolist():
            inside[int(self.parent[feature])].append(feature)
        return {unit: torch.tensor(inside[unit]) for unit in self.closes.nonzero().flatten().tolist()}

    def parents_of(self, units: Tensor) -> Tensor:
        """The unit that each of `units` (n,) lies in, or FIXED, which may be among them."""
        return torch.where(units == FIXED, units, self.parent[units])

    def close(self, mask: Tensor) -> Tensor:
        """The units alive under the gates `mask` (G,) bool: see the module's docstring."""
        alive = mask.clone()
        parents = self.parent[self.features]
        alive[self.features] &= mask[parents]
        inhabited = torch.zeros_like(alive).index_put_((parents[alive[self.features]],), torch.tensor(True))
        return alive & (inhabited | ~self.closes)

    @cached_property
    def own_units(self) -> tuple[Tensor, ...]:
        """The units of each axis without fixed positions, small axes first: each needs one that is alive."""
        free = [torch.unique(units) for units in self.axes if not bool((units == FIXED).any())]
        return tuple(sorted(free, key=len))

    def is_network(self, alive: Tensor) -> bool:
        """Whether no axis is empty under the closed mask `alive` (G,): torch's layers need something to compute."""
        return all(bool(alive[units].any()) for units in self.own_units)

    def group_of(self, index: int) -> Group:
        """The group of entry `index` of the gate vector."""
        return next(g for g in self.groups if g.offset <= index < g.offset + g.size)

    def active(self, alive: Tensor) -> "Active":
        """`alive` (G,) bool, closed, as indices."""
        return Active(coupling=self, alive=torch.cat([alive, torch.ones(1, dtype=torch.bool)]))

    def everything(self) -> "Active":
        """Every unit active: nothing is sliced."""
        return self.active(torch.ones(self.size, dtype=torch.bool))


@dataclass(kw_only=True)
class Active:
    """The active units of a closed mask, as indices along axes.  `alive` (G + 1,): the last is FIXED, always true."""

    coupling: Coupling
    alive: Tensor
    _index: dict[int, Tensor | None] = field(default_factory=dict)
    _picked: dict[str, Tensor | None] = field(default_factory=dict)
    _sent: dict[tuple[int | str, torch.device], Tensor] = field(default_factory=dict)

    def index(self, axis: int | None) -> Tensor | None:
        """The live positions (n,) int64 of an axis; None for all."""
        if axis is None:
            return None
        if axis not in self._index:
            live = self.alive[self.coupling.axes[axis]]
            self._index[axis] = None if bool(live.all()) else live.nonzero().flatten()
        return self._index[axis]

    def count(self, axis: int, length: int | None = None) -> int:
        """How many of an axis' positions, or of its first `length`, are live."""
        index, size = self.index(axis), len(self.coupling.axes[axis])
        length = size if length is None else length
        if index is None:
            return length
        return len(index) if length == size else int((index < length).sum())

    def indices(self, dims: Dims, device: torch.device = CPU) -> tuple[Tensor | None, ...]:
        """The live positions along every dimension of a tensor on `device`."""
        return tuple(self._on(device, axis, self.index(axis)) for axis in dims)

    def gate(self, name: str, tensor: Tensor) -> Tensor | None:
        """1 where an entry of the tensor called `name` is alive and 0 elsewhere, in its shape, type and place.

        None where all are, or where they are no units of their own.
        """
        group = self.coupling.weights.get(name)
        if group is None or self.whole:
            return None
        key = (name, tensor.device)
        if key not in self._sent:
            alive = self.alive[group.slice].view(tensor.shape)
            self._sent[key] = alive.to(tensor.device, tensor.dtype)
        return self._sent[key]

    def gated(self, name: str, tensor: Tensor) -> Tensor:
        """The tensor called `name` with zeros for its entries that sleep; itself where `gate` is None."""
        gate = self.gate(name, tensor)
        return tensor if gate is None else tensor * gate

    def picked_on(self, device: torch.device, node: str) -> Tensor | None:
        """`picked`, for what is read on `device`."""
        return self._on(device, node, self.picked(node))

    def _on(self, device: torch.device, key: int | str | None, index: Tensor | None) -> Tensor | None:
        """The index on `device`, sent there once."""
        if key is None or index is None or device == index.device:
            return index
        if (key, device) not in self._sent:
            self._sent[key, device] = index.to(device)
        return self._sent[key, device]

    @cached_property
    def units(self) -> tuple[Tensor, ...]:
        """Of each axis the units of its live positions, (n,) int64, FIXED among them."""
        axes = enumerate(self.coupling.axes)
        return tuple(units if (index := self.index(axis)) is None else units[index] for axis, units in axes)

    def gates_of(self, other: "Active", device: torch.device) -> tuple[Tensor, ...]:
        """Of each axis, for the live positions, 1 where `other` has them too and 0 elsewhere: (n,) float32."""
        live = other.alive.float()[torch.cat(self.units)].to(device)  # sent at once
        return torch.split(live, [len(units) for units in self.units])

    def picked(self, node: str) -> Tensor | None:
        """Which live positions of what a selection reads it keeps; None for all."""
        if node not in self._picked:
            features, source = self.coupling.selects[node]
            live = self.alive[self.coupling.axes[features]]
            before = None if source is None else self.index(source)
            live = live if before is None else live[before]
            self._picked[node] = None if bool(live.all()) else live.nonzero().flatten()
        return self._picked[node]

    @cached_property
    def whole(self) -> bool:
        """Whether nothing sleeps."""
        return bool(self.alive.all())


def carried(old: Coupling, new: Coupling, told: Callable[[int], Tensor]) -> Tensor:
    """What each unit of `new` (G,) has from `old`: `told` is that of an axis' positions (n,) int64.

    The networks may differ in size and in tensors; what both have says which axis became which.  Raises LookupError
    where a unit of `new` was none of `old`.
    """
    found, known = torch.zeros(new.size, dtype=torch.int64), torch.zeros(new.size, dtype=torch.bool)
    for name, dims in new.tensors.items():
        for before, now in zip(old.tensors[name], dims, strict=True):
            if before is not None and now is not None:
                units = new.axes[now]
                free = units != FIXED
                found[units[free]] = told(before)[free]
                known[units[free]] = True
    if not bool(known.all()):
        raise LookupError("a unit of the new network was none of the old one")
    return found


def units_of(old: Coupling, new: Coupling) -> Tensor:
    """The unit of `old` that each unit of `new`, a part of it, is: (G,) int64; raises LookupError."""
    return carried(old, new, lambda axis: old.axes[axis])
