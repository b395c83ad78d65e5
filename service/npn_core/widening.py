"""Room for more units: a wider network that computes what the narrow one does.

The last unit of a group is copied, with all of its positions along every axis and the features that lie inside it.
They sleep at first, so the outputs are what they were (Chen et al., "Net2Net", arXiv:1511.05641, keeps the function by
splitting units; here there is nothing to split).  Their weights are drawn as a new network's are.  In a quiet widening
those that read them are 0, so that even awake they change no output until they have learned something.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import torch
from torch import Generator, Tensor

from .copies import duplicate, on_device
from .coupling import find_groups
from .device import CPU
from .gated import Network
from .graph import annotate
from .groups import FIXED, Coupling, Dims, carried
from .lift.reinitialise import reinitialise
from .progress import InputInfo
from .slices import Indices, take
from .surgery import follow_sizes, resize_tensors
from .units import Kind


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Where every position of a wider network comes from.

    `more` (G,) int64: how many copies each unit gets; the features inside a copied unit get as many.
    """

    coupling: Coupling
    more: Tensor

    @classmethod
    def of(cls, coupling: Coupling, more: Mapping[str, int]) -> "Layout":
        """Copies of the last unit of each named group; raises ValueError for a group of features."""
        copies = torch.zeros(coupling.size, dtype=torch.int64)
        for name, count in more.items():
            group = coupling.by_name[name]
            if group.kind is Kind.FEATURE:
                raise ValueError(f"{name} are features: they come with the units that they lie in")
            copies[group.offset + group.size - 1] = count
        inside = coupling.features
        copies[inside] = copies[coupling.parent[inside]]
        return cls(coupling=coupling, more=copies)

    @cached_property
    def axes(self) -> tuple[tuple[Tensor, Tensor], ...]:
        """Of each axis, for every new position: the old one (n,), and the number of its copy (n,), 0 if none."""
        return tuple(self._stretch(units) for units in self.coupling.axes)

    def _stretch(self, units: Tensor) -> tuple[Tensor, Tensor]:
        """Each run of a copied unit's positions is followed by its copies."""
        parent = self.coupling.parents_of(units)
        holder = torch.where(parent == FIXED, units, parent)
        count = torch.where(units == FIXED, 0, self.more[units])
        starts = [0, *((holder[1:] != holder[:-1]).nonzero().flatten() + 1).tolist(), len(units)]
        source, number = [], []
        for start, end in pairwise(starts):
            for which in range(int(count[start]) + 1):
                source.append(torch.arange(start, end))
                number.append(torch.full((end - start,), which))
        return torch.cat(source), torch.cat(number)

    def index(self, axis: int | None) -> Tensor | None:
        """The old position (n,) of every new one along an axis; None where it stays as it is."""
        if axis is None or not bool(self.more[self.coupling.axes[axis]].any()):
            return None
        return self.axes[axis][0]

    def indices(self, dims: Dims) -> Indices:
        """The same along every dimension of a tensor."""
        return tuple(self.index(axis) for axis in dims)

    def count(self, axis: int, length: int | None = None) -> int:
        """How many positions an axis, or what grew from its first `length`, has now."""
        old, _ = self.axes[axis]
        return len(old) if length is None else int((old < length).sum())

    def inserted(self, axis: int) -> Tensor:
        """Which new positions (n,) of an axis are copies: bool."""
        return self.axes[axis][1] > 0

    def blank(self, tensor: Tensor, dims: Dims) -> Tensor:
        """A copy at the new size and on the same device, 0 at the inserted positions: for moments."""
        wider = take(tensor.cpu(), self.indices(dims)).clone()
        for dim, axis in enumerate(dims):
            if axis is not None:
                wider = wider.index_fill(dim, self.inserted(axis).nonzero().flatten(), 0)
        return wider.to(tensor.device)


@dataclass(frozen=True, kw_only=True, slots=True)
class Wider:
    """A wider network: for each of its units the old one that it is or was copied from (G',), and which are copies."""

    network: Network
    layout: Layout
    origin: Tensor
    inserted: Tensor


def widen(
    network: Network,
    more: Mapping[str, int],
    inputs: tuple[InputInfo, ...],
    generator: Generator,
    *,
    quiet: bool = False,
) -> Wider:
    """A copy of the network with `more` units in the named groups: the same outputs while they sleep, or always."""
    layout = Layout.of(network.coupling, more)
    graph = on_device(duplicate(network.graph), CPU)
    resize_tensors(graph, network, layout)
    for node in graph.graph.nodes:
        if node.name in network.coupling.selects:
            axis, _ = network.coupling.selects[node.name]
            select = graph.get_submodule(str(node.target))
            select.index = torch.arange(layout.count(axis), device="cpu")
    follow_sizes(graph, network.coupling, layout)
    graph.recompile()
    coupling = find_groups(annotate(graph, inputs))
    narrow = network.coupling
    origin = carried(narrow, coupling, lambda axis: narrow.axes[axis][layout.axes[axis][0]])
    inserted = carried(narrow, coupling, lambda axis: layout.axes[axis][1]) > 0
    wider = Network(graph, coupling)
    _initialise(wider, network.coupling, layout, generator, quiet=quiet)
    wider = Network(on_device(graph, network.device), coupling)
    return Wider(network=wider, layout=layout, origin=origin, inserted=inserted)


def _initialise(wider: Network, old: Coupling, layout: Layout, generator: Generator, *, quiet: bool) -> None:
    """Where copies are made and read, what a new network would have there; 0 where they are read, if `quiet`."""
    fresh = duplicate(wider.graph)
    reinitialise(fresh, int(torch.randint(2**62, (), generator=generator)))
    drawn = fresh.state_dict()
    with torch.no_grad():
        for name, tensor in (wider.parameters | wider.buffers).items():
            axes = [(dim, axis) for dim, axis in enumerate(old.tensors[name]) if axis is not None]
            axes.sort(
                key=lambda one: (name, one[0]) in wider.coupling.readers
            )  # what reads has the last word
            for dim, axis in axes:
                places = layout.inserted(axis).nonzero().flatten()
                if quiet and (name, dim) in wider.coupling.readers:
                    tensor.index_fill_(dim, places, 0)
                else:
                    tensor.index_copy_(dim, places, drawn[name].index_select(dim, places))
