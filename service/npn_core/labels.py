"""The walk that labels every axis of a graph."""

from torch import fx

from .axes import Labelling
from .graph import tensor_names
from .rules import rule_for
from .units import Atoms, Labels


def label(graph: fx.GraphModule) -> Labelling:
    """The labels of every axis of an annotated graph.

    Where a reshape can divide an axis in several ways (heads from features, say), and the first leaves nothing
    that can be pruned, the next is tried.
    """
    divisions: dict[str, int] = {}
    while True:
        labelling = _walk(graph, divisions)
        better = {
            name: divisions.get(name, 0) + 1
            for name, division in labelling.divided.items()
            if divisions.get(name, 0) + 1 < division.choices and _is_useless(labelling.atoms, division.labels)
        }
        if not better:
            return labelling
        divisions |= better


def _is_useless(atoms: Atoms, labels: Labels) -> bool:
    roots = set(atoms.roots(labels.tolist()))
    return len(roots) == 1 or any(root in atoms.pinned for root in roots)


def _walk(graph: fx.GraphModule, divisions: dict[str, int]) -> Labelling:
    labelling = Labelling(graph=graph, names=tensor_names(graph), divisions=divisions)
    for node in graph.graph.nodes:
        labelling.values[node.name] = rule_for(labelling, node)(labelling, node)
    return labelling
