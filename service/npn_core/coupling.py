"""From a lifted graph to its groups: labels become units, units that belong to the same layers become groups."""

from collections import defaultdict
from typing import Any

import torch
from torch import Tensor, fx

from .axes import Labelling
from .features import select_features
from .graph import annotate, source
from .groups import FIXED, Coupling, Dims, Follower, Group
from .labels import label
from .progress import InputInfo, Unpruned
from .units import Kind, Labels, Origin


def couple(graph: fx.GraphModule, inputs: tuple[InputInfo, ...]) -> Coupling:
    """Annotate a lifted graph, give features their places, and find its groups.

    Raises InvalidInput where samples of `inputs` do not fit the network.
    """
    select_features(annotate(graph, inputs))
    return find_groups(graph)


def find_groups(graph: fx.GraphModule) -> Coupling:
    """The coupled groups of an annotated graph.  A place for features that cannot have gates is removed."""
    while True:
        builder = _Builder(label(graph))
        useless = builder.useless_selections()
        if not useless:
            return builder.coupling()
        for node in useless:
            node.replace_all_uses_with(source(node))
            graph.graph.erase_node(node)
            graph.delete_submodule(str(node.target))
        graph.recompile()


class _Builder:
    """From atoms to units, groups and axes."""

    def __init__(self, labelling: Labelling) -> None:
        self.labelling, self.atoms = labelling, labelling.atoms
        self.pin_what_cannot_leave()
        self.unit_of: dict[int, int] = {}  # root -> unit
        self.axes: list[Tensor] = []
        self.axis_of: dict[bytes, int | None] = {}

    def pin_what_cannot_leave(self) -> None:
        """Units that no layer makes, or that nothing reads, and units that are alone."""
        atoms = self.atoms
        made = {
            root
            for origin in atoms.origins
            if origin.kind is not None
            for root in atoms.roots(range(origin.first, origin.first + origin.size))
        }
        read = [
            *self.labelling.read,
            *(s.parents for s in self.labelling.selections.values() if s.parents is not None),
        ]
        used = {root for labels in read for root in atoms.roots(labels.tolist())}
        for root in set(atoms.roots(range(len(atoms.parent)))):
            if root not in made:
                atoms.pinned.setdefault(root, "no layer makes it")
            elif root not in used:
                atoms.pinned.setdefault(root, "no layer reads it")
        for members in self.origins_of_groups():
            roots = {root for origin in members for root in self.free_roots(origin)}
            if len(roots) == 1:
                atoms.pinned.setdefault(roots.pop(), "it is a single unit")

    def useless_selections(self) -> list[fx.Node]:
        """Features that cannot leave, or are read together with the units that they lie in."""
        atoms, found = self.atoms, []
        pairs = defaultdict(set)
        for (name, _), labels in self.labelling.tensors.items():
            pairs[name].update([] if labels is None else atoms.roots(labels.tolist()))
        for node in self.labelling.graph.graph.nodes:
            selection = self.labelling.selections.get(node.name)
            if selection is None:
                continue
            features = set(atoms.roots(selection.features.tolist()))
            parents = set() if selection.parents is None else set(atoms.roots(selection.parents.tolist()))
            together = any(roots & features and roots & parents for roots in pairs.values())
            if together or any(root in atoms.pinned for root in features):
                found.append(node)
        return found

    def free_roots(self, origin: Origin) -> list[int]:
        roots = self.atoms.roots(range(origin.first, origin.first + origin.size))
        return [root for root in roots if root not in self.atoms.pinned]

    def origins_of_groups(self) -> list[list[Origin]]:
        """Origins whose units are merged with one another, in the order of their first layers."""
        sets: list[tuple[set[int], list[Origin]]] = []
        for origin in self.atoms.origins:
            roots = set(self.free_roots(origin))
            if not roots:
                continue
            touching = [one for one in sets if one[0] & roots]
            sets = [one for one in sets if not one[0] & roots]
            for other_roots, _ in touching:
                roots |= other_roots
            members = [member for _, others in touching for member in others]
            sets.append((roots, sorted([*members, origin], key=lambda o: o.first)))
        sets.sort(
            key=lambda one: (
                next(o.first for o in one[1] if o.kind is not None) if any(o.kind for o in one[1]) else 0
            )
        )
        return [members for _, members in sets]

    def coupling(self) -> Coupling:
        groups = self.make_groups()
        labelling = self.labelling
        parent, closes = self.parents()
        return Coupling(
            groups=groups,
            tensors=self.tensors(),
            values={name: self.dims(value) for name, value in labelling.values.items()},
            readers=frozenset(
                key for key in labelling.readers if self.axis(labelling.tensors[key]) is not None
            ),
            followers=self.followers(),
            selects=self.selects(),
            parent=parent,
            closes=closes,
            unpruned=self.unpruned(),
            axes=tuple(self.axes),
        )

    def make_groups(self) -> tuple[Group, ...]:
        groups: list[Group] = []
        heads = {root for labels in self.labelling.heads for root in self.atoms.roots(labels.tolist())}
        for members in self.origins_of_groups():
            first = next(origin for origin in members if origin.kind is not None)
            offset = len(self.unit_of)
            for origin in [first, *members]:
                for root in self.free_roots(origin):
                    self.unit_of.setdefault(root, len(self.unit_of))
            kind = Kind.HEAD if any(root in heads for root in self.free_roots(first)) else first.kind
            groups.append(
                Group(
                    name=self.group_name(first),
                    kind=kind or Kind.CHANNEL,
                    size=len(self.unit_of) - offset,
                    offset=offset,
                )
            )
        return tuple(groups)

    def group_name(self, origin: Origin) -> str:
        if origin.kind is not Kind.FEATURE:
            return origin.name
        node = next(n for n in self.labelling.graph.graph.nodes if n.target == origin.name)
        return str(node.meta["features"])

    def axis(self, labels: Labels | None) -> int | None:
        """The number of the axis with these units; None where all of them stay."""
        if labels is None:
            return None
        units = torch.tensor([self.unit_of.get(root, FIXED) for root in self.atoms.roots(labels.tolist())])
        key = units.numpy().tobytes()
        if key not in self.axis_of:
            free = bool((units != FIXED).any())
            self.axis_of[key] = len(self.axes) if free else None
            if free:
                self.axes.append(units)
        return self.axis_of[key]

    def dims(self, value: Any) -> Any:
        """The Dims of a node's value, or of each of its values."""
        if value is None:
            return ()
        if value and isinstance(value[0], tuple):
            return tuple(self.dims(part) for part in value)
        return tuple(self.axis(labels) for labels in value)

    def tensors(self) -> dict[str, Dims]:
        graph, names = self.labelling.graph, self.labelling.names
        state = dict(
            (*graph.named_parameters(remove_duplicate=False), *graph.named_buffers(remove_duplicate=False))
        )
        return {
            name: tuple(
                self.axis(self.labelling.tensors.get((names[name], dim))) for dim in range(tensor.dim())
            )
            for name, tensor in state.items()
        }

    def followers(self) -> dict[str, tuple[Follower, ...]]:
        found = {}
        for node, constants in self.labelling.constants.items():
            follows = []
            for constant in constants:
                axis = self.axis(constant.labels)
                if axis is not None:
                    follows.append(
                        Follower(
                            argument=constant.argument,
                            item=constant.item,
                            axis=axis,
                            length=len(constant.labels),
                            batched=constant.batched,
                        )
                    )
            if follows:
                found[node] = tuple(follows)
        return found

    def selects(self) -> dict[str, tuple[int, int | None]]:
        found = {}
        for node, selection in self.labelling.selections.items():
            axis = self.axis(selection.features)
            if axis is not None:
                found[node] = (axis, self.axis(selection.parents))
        return found

    def parents(self) -> tuple[Tensor, Tensor]:
        size = len(self.unit_of)
        parent = torch.full((size,), FIXED)
        closes = torch.zeros(size, dtype=torch.bool)
        for features, outside in self.selects().values():
            if outside is not None:
                own, outer = self.axes[features], self.axes[outside]
                free = own != FIXED
                parent[own[free]] = outer[free]
                closes[outer[(outer != FIXED) & free]] = True
                closes[outer[(outer != FIXED) & ~free]] = False
        for labels in self.labelling.read:
            axis = self.axis(labels)
            if axis is not None:
                units = self.axes[axis]
                closes[units[units != FIXED]] = False
        return parent, closes

    def unpruned(self) -> tuple[Unpruned, ...]:
        """Layers whose units never leave, and why."""
        found = []
        for origin in self.atoms.origins:
            roots = self.atoms.roots(range(origin.first, origin.first + origin.size))
            pinned = [root for root in roots if root in self.atoms.pinned]
            if origin.kind is not None and pinned:
                reason = self.atoms.pinned[pinned[0]]
                name = self.group_name(origin)
                found.append(Unpruned(name=name, size=len(pinned), reason=reason))
        return tuple(found)
