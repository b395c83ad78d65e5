"""Rules for where values come from, where they end, and operations that nothing is known of."""

from typing import Any

import numpy as np
from torch import fx

from npn_core.axes import Axes, Labelling
from npn_core.graph import describe, source
from npn_core.units import Labels


def fixed(labelling: Labelling, node: fx.Node) -> Any:
    """What it gives never changes its sizes."""
    return _fixed(node.meta["shape"])


def _fixed(shape: Any) -> Any:
    if shape is None:
        return None
    several = bool(shape) and isinstance(shape[0], tuple) and not hasattr(shape[0], "batched")
    return tuple(_fixed(one) for one in shape) if several else (None,) * len(shape)


def attribute(labelling: Labelling, node: fx.Node) -> Axes:
    """A parameter or buffer that is used as it is: its units are those of what it meets."""
    name, shape = str(node.target), labelling.shape(node)
    if name not in labelling.names:
        return (None,) * len(shape)
    return tuple(
        labelling.make(name, dim, size, None) if size > 1 else None for dim, (size, _) in enumerate(shape)
    )


def output(labelling: Labelling, node: fx.Node) -> None:
    """The sizes of what the network gives never change."""
    for value in node.all_input_nodes:
        pin_all(labelling, value, "it is an output of the network")


def nothing(labelling: Labelling, node: fx.Node) -> Any:
    """Arithmetic of sizes, and tensors made of nothing."""
    return fixed(labelling, node)


def unknown(labelling: Labelling, node: fx.Node) -> Any:
    """An operation that may mix anything."""
    for value in node.all_input_nodes:
        pin_all(labelling, value, f"{describe(node)} is not known to keep its units apart")
    return fixed(labelling, node)


def getitem(labelling: Labelling, node: fx.Node) -> Axes:
    """One of several results."""
    found: Axes = labelling.values[source(node).name][node.args[1]]
    return found


def pin_all(labelling: Labelling, node: fx.Node, reason: str) -> None:
    """No unit of the node's value leaves."""
    value = labelling.values[node.name]
    for labels in _all_labels(value):
        labelling.atoms.pin(labels, reason)


def _all_labels(value: Any) -> list[Labels]:
    if value is None:
        return []
    if isinstance(value, np.ndarray):
        return [value]
    return [labels for part in value for labels in _all_labels(part)]
