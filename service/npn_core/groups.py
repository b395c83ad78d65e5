"""Units: which slices of which parameters live or die together.

A group is a set of units with one gate each: the channels of a convolution, the neurons of a linear layer,
the features that a linear layer reads from a flattened tensor.  A feature lies inside a channel, its parent:
it is alive when its own gate and its channel's are open; a channel with no live feature is dead (closure).
"""

from dataclasses import dataclass
from enum import Enum
from functools import cached_property

import torch
from torch import Tensor, fx, nn

from .graph import LAYERS, NORMS


class Kind(Enum):
    """What a unit is."""

    CHANNEL = "channel"
    NEURON = "neuron"
    FEATURE = "feature"


@dataclass(frozen=True, kw_only=True, slots=True)
class Group:
    """`size` units that begin at `offset` in the gate vector.

    With a `parent`, unit i lies inside unit i // per_parent of that group.
    """

    name: str
    kind: Kind
    size: int
    offset: int
    parent: str | None = None
    per_parent: int = 1

    @property
    def slice(self) -> slice:
        """Where the group's gates lie in the gate vector."""
        return slice(self.offset, self.offset + self.size)


@dataclass(frozen=True, kw_only=True, slots=True)
class Axes:
    """The groups along a module's output (`rows`) and input (`cols`); None: the axis never changes."""

    rows: str | None
    cols: str | None


@dataclass(frozen=True, kw_only=True)
class Coupling:
    """The groups of a network and where they lie in it.

    `modules`: module name -> Axes of its parameters and buffers.  `outputs`: node name -> group along
    dimension 1 of the node's output.  `selects`: node name -> feature group picked out of the node's output.
    """

    groups: tuple[Group, ...]
    modules: dict[str, Axes]
    outputs: dict[str, str | None]
    selects: dict[str, str]

    @property
    def size(self) -> int:
        """Number of gates."""
        return sum(group.size for group in self.groups)

    @cached_property
    def by_name(self) -> dict[str, Group]:
        """The groups by name."""
        return {group.name: group for group in self.groups}

    @cached_property
    def children(self) -> dict[str, Group]:
        """The feature group inside a channel group, by the channel group's name."""
        return {group.parent: group for group in self.groups if group.parent is not None}

    def close(self, mask: Tensor) -> Tensor:
        """The units alive under the gates `mask` (G,) bool: see the module's docstring."""
        alive = mask.clone()
        for child in self.children.values():
            parent = self.by_name[child.parent or ""]
            features = alive[child.slice].view(parent.size, child.per_parent)
            features &= alive[parent.slice, None]
            alive[parent.slice] = features.any(dim=1)
        return alive

    def group_of(self, index: int) -> Group:
        """The group of entry `index` of the gate vector."""
        return next(g for g in self.groups if g.offset <= index < g.offset + g.size)

    def gate_name(self, index: int) -> str:
        """The unit behind entry `index` of the gate vector, for messages: "conv1[3]"."""
        group = self.group_of(index)
        return f"{group.name}[{index - group.offset}]"


def find_groups(graph: fx.GraphModule) -> Coupling:
    """The coupled groups of a sequential network traced by `graph.trace`.

    Every convolution's channels and every linear layer's neurons but the last layer's; the features of the
    first linear layer.  The last layer's outputs never change.
    """
    return _Walk(graph).coupling()


class _Walk:
    def __init__(self, graph: fx.GraphModule) -> None:
        self.graph = graph
        self.groups: list[Group] = []
        self.modules: dict[str, Axes] = {}
        self.outputs: dict[str, str | None] = {}
        self.selects: dict[str, str] = {}
        nodes = [n for n in graph.graph.nodes if n.op == "call_module"]
        self.layers = [n for n in nodes if isinstance(self.module(n), LAYERS)]

    def module(self, node: fx.Node) -> nn.Module:
        return self.graph.get_submodule(str(node.target))

    def coupling(self) -> Coupling:
        for node in self.graph.graph.nodes:
            if node.op == "placeholder":
                self.outputs[node.name] = None
            elif node.op == "call_module":
                self.outputs[node.name] = self.visit(node, node.all_input_nodes[0])
        return Coupling(
            groups=tuple(self.groups), modules=self.modules, outputs=self.outputs, selects=self.selects
        )

    def visit(self, node: fx.Node, source: fx.Node) -> str | None:
        """The group along the node's output."""
        module, incoming = self.module(node), self.outputs[source.name]
        if isinstance(module, nn.Linear) and not self.selects and self.is_first_linear(node):
            incoming = self.add_features(node, source)
        if isinstance(module, LAYERS):
            rows = None if node is self.layers[-1] else self.add_layer(node, module)
            self.modules[str(node.target)] = Axes(rows=rows, cols=incoming)
            return rows
        if isinstance(module, NORMS):
            self.modules[str(node.target)] = Axes(rows=incoming, cols=None)
        return incoming

    def is_first_linear(self, node: fx.Node) -> bool:
        return node is next(n for n in self.layers if isinstance(self.module(n), nn.Linear))

    def add_layer(self, node: fx.Node, module: nn.Module) -> str:
        kind = Kind.CHANNEL if isinstance(module, nn.Conv2d) else Kind.NEURON
        weight = self.graph.get_parameter(f"{node.target}.weight")
        return self.add(str(node.target), kind, weight.shape[0])

    def add_features(self, node: fx.Node, source: fx.Node) -> str | None:
        """Gates on the features that the first linear layer reads, picked out where they are flattened."""
        at = self.flattened_at(source)
        parent = self.outputs[at.name]
        size = int(source.meta["shape"][0])
        per_parent = size // self.size_of(parent) if parent else 1
        if parent and per_parent == 1:  # one feature a channel: the channel's gate is the feature's
            return parent
        name = self.add(f"{node.target}.in", Kind.FEATURE, size, parent=parent, per_parent=per_parent)
        self.selects[at.name] = name
        while source is not at:
            self.outputs[source.name] = name
            if str(source.target) in self.modules:
                self.modules[str(source.target)] = Axes(rows=name, cols=None)
            source = source.all_input_nodes[0]
        return name

    def flattened_at(self, node: fx.Node) -> fx.Node:
        """The node whose output first has the flat shape that the linear layer reads."""
        while node.op == "call_module":
            source = node.all_input_nodes[0]
            if source.meta["shape"] != node.meta["shape"]:
                break
            node = source
        return node

    def size_of(self, group: str) -> int:
        return next(g.size for g in self.groups if g.name == group)

    def add(self, name: str, kind: Kind, size: int, parent: str | None = None, per_parent: int = 1) -> str:
        offset = sum(g.size for g in self.groups)
        self.groups.append(
            Group(name=name, kind=kind, size=size, offset=offset, parent=parent, per_parent=per_parent)
        )
        return name


@dataclass(frozen=True, kw_only=True, slots=True)
class Active:
    """The active units of a closed mask as indices.

    `units`: group -> indices (n,) int64, or None where all are active.  `positions`: node name -> which
    entries of the node's sliced output its feature group keeps, or None for all.
    """

    units: dict[str, Tensor | None]
    positions: dict[str, Tensor | None]

    def axes(self, axes: Axes) -> tuple[Tensor | None, Tensor | None]:
        """Index tensors along a module's rows and columns."""
        rows = None if axes.rows is None else self.units[axes.rows]
        cols = None if axes.cols is None else self.units[axes.cols]
        return rows, cols


def active_units(coupling: Coupling, alive: Tensor) -> Active:
    """`alive` (G,) bool, closed, as indices."""
    units: dict[str, Tensor | None] = {}
    for group in coupling.groups:
        own = alive[group.slice]
        units[group.name] = None if bool(own.all()) else own.nonzero().flatten()
    positions = {
        node: _positions(coupling, coupling.by_name[name], alive) for node, name in coupling.selects.items()
    }
    return Active(units=units, positions=positions)


def _positions(coupling: Coupling, features: Group, alive: Tensor) -> Tensor | None:
    """Where the live features lie among all features of the live channels."""
    own = alive[features.slice]
    if features.parent is not None:
        channels = alive[coupling.by_name[features.parent].slice]
        own = own.view(-1, features.per_parent)[channels].flatten()
    return None if bool(own.all()) else own.nonzero().flatten()


def all_active(coupling: Coupling) -> Active:
    """Every unit active: nothing is sliced."""
    return active_units(coupling, torch.ones(coupling.size, dtype=torch.bool))
