"""Which unit every position of every axis belongs to, in a lifted graph.

Labels flow through the graph: a layer's output axis carries the labels of its weight's rows; tensors that are
added have the same units; a concatenation has the units of its parts; a layer that reads an axis shares its
labels with its weight's columns.  `rules` has one for each operation.  What an operation without a
rule touches is left whole.
"""

from dataclasses import dataclass, field
from typing import Any

from torch import fx, nn

from .graph import Shape, module_of
from .units import Atoms, Kind, Labels

Axes = tuple[Labels | None, ...]
"""The labels of each axis of a tensor; None for an axis that never changes."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Constant:
    """An integer among a node's arguments that follows the number of live units.

    It stands at `argument`, and there at `item` of a list, and becomes the number of live positions of `labels`;
    where `batched` it is a multiple of the batch size, by the length of `labels`.
    """

    argument: int
    item: int | None
    labels: Labels
    batched: bool = False


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Division:
    """A reshape that could have divided an axis in `choices` ways, and the labels it gave."""

    labels: Labels
    choices: int


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Selection:
    """Feature gates: `features` are picked out of an axis that carries `parents` (None: no units)."""

    features: Labels
    parents: Labels | None


@dataclass(kw_only=True, slots=True)
class Labelling:
    """What is known of the axes of `graph` so far.

    `names`: every name of a parameter or buffer -> its first name.  `divisions`: node name -> which of the ways
    to divide an axis to take.  `values`: node name -> Axes, a tuple of them for several results, None for no
    tensor.  `tensors`: (first name, dim) -> labels of the axis.  `readers`: the axes of weights along which
    layers read units: where the gates are.  `read`: labels that layers read.
    """

    graph: fx.GraphModule
    names: dict[str, str]
    divisions: dict[str, int]
    atoms: Atoms = field(default_factory=Atoms)
    values: dict[str, Any] = field(default_factory=dict)
    tensors: dict[tuple[str, int], Labels | None] = field(default_factory=dict)
    readers: set[tuple[str, int]] = field(default_factory=set)
    read: list[Labels] = field(default_factory=list)
    heads: list[Labels] = field(default_factory=list)
    constants: dict[str, list[Constant]] = field(default_factory=dict)
    divided: dict[str, Division] = field(default_factory=dict)
    selections: dict[str, Selection] = field(default_factory=dict)

    def axes(self, node: fx.Node) -> Axes:
        """The axes of a node's one tensor."""
        found: Axes = self.values[node.name]
        return found

    def shape(self, node: fx.Node) -> Shape:
        """The shape of a node's one tensor."""
        found: Shape = node.meta["shape"]
        return found

    def module(self, node: fx.Node) -> nn.Module | None:
        """The module that a node calls."""
        return module_of(self.graph, node)

    def make(self, name: str, dim: int, size: int, kind: Kind | None) -> Labels | None:
        """The labels of a tensor's axis along which units are made; the same every time."""
        key = (self.names[name], dim)
        if key not in self.tensors:
            origin = key[0].removesuffix(".weight")
            self.tensors[key] = self.atoms.fresh(origin, size, kind)
        labels = self.tensors[key]
        if labels is not None and kind is not None:
            self.atoms.make(int(labels[0]), kind)
        return labels

    def tie(self, name: str, dim: int, labels: Labels | None, reason: str) -> None:
        """The axis of the tensor, if there is such a tensor, has these units."""
        if name not in self.names:
            return
        key = (self.names[name], dim)
        if key in self.tensors:
            self.tensors[key] = self.atoms.merge(self.tensors[key], labels, reason)
        else:
            self.tensors[key] = labels

    def reads(self, name: str, dim: int, labels: Labels | None, reason: str) -> None:
        """A layer reads units along this axis of its weight."""
        self.tie(name, dim, labels, reason)
        if labels is not None:
            self.readers.add((self.names[name], dim))
            self.read.append(labels)

    def follow(self, node: fx.Node, constant: Constant) -> None:
        """The constant follows the number of live units."""
        self.constants.setdefault(node.name, []).append(constant)
