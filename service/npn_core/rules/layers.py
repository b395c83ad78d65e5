"""Rules for layers: what makes units, what reads them, and what has an entry for each."""

from typing import Any

import numpy as np
from torch import Tensor, fx

from npn_core.axes import Axes, Labelling, Selection
from npn_core.graph import TRANSPOSED, arguments, describe, operator_name, source
from npn_core.units import Kind, Labels

from .ends import unknown


def _tensors(node: fx.Node) -> tuple[str, str] | None:
    """Names of the weight and bias of a layer; None where the weight is computed."""
    if node.op == "call_module":
        return f"{node.target}.weight", f"{node.target}.bias"
    given = arguments(node)
    weight, bias = given["weight"], given["bias"]
    if not isinstance(weight, fx.Node) or weight.op != "get_attr":
        return None
    if isinstance(bias, fx.Node) and bias.op != "get_attr":
        return None
    return str(weight.target), str(bias.target) if isinstance(bias, fx.Node) else ""


def _tensor(labelling: Labelling, name: str) -> Tensor:
    path, _, attribute = name.rpartition(".")
    found: Tensor = getattr(labelling.graph.get_submodule(path), attribute)
    return found


def linear(labelling: Labelling, node: fx.Node) -> Any:
    """y = x W^T + b: the rows of W make units, its columns read them."""
    names = _tensors(node)
    if names is None:
        return unknown(labelling, node)
    weight, bias = names
    x = labelling.axes(source(node))
    for labels in x[:-1]:
        labelling.atoms.pin(labels, f"{describe(node)} acts on each of its positions with the same weights")
    rows = labelling.make(weight, 0, _tensor(labelling, weight).shape[0], Kind.NEURON)
    labelling.reads(weight, 1, x[-1], f"{describe(node)} reads an axis that never changes")
    labelling.tie(bias, 0, rows, "its bias is shared with an axis that never changes")
    return (*(None,) * (len(x) - 1), rows)


def convolution(labelling: Labelling, node: fx.Node) -> Any:
    """A convolution, transposed or not, of any number of groups."""
    names, groups, transposed = _tensors(node), *_convolution_kind(labelling, node)
    if names is None or (transposed and groups > 1):
        return unknown(labelling, node)
    weight, bias = names
    x = labelling.axes(source(node))
    for labels in (x[0], *x[2:]):
        labelling.atoms.pin(labels, f"{describe(node)} moves along it")
    reason = f"{describe(node)} reads an axis that never changes"
    shape = _tensor(labelling, weight).shape
    outputs, inputs = (1, 0) if transposed else (0, 1)
    if groups == 1:
        rows = labelling.make(weight, outputs, shape[outputs], Kind.CHANNEL)
        labelling.reads(weight, inputs, x[1], reason)
    elif shape[1] == 1:  # depthwise: shape[0] / groups outputs for every input channel
        rows = None if x[1] is None else np.repeat(x[1], shape[0] // groups)
        labelling.tie(weight, 0, rows, reason)
    else:
        rows = _grouped(labelling, weight, x[1], groups, reason)
    labelling.tie(bias, 0, rows, reason)
    return (None, rows, *(None,) * (len(x) - 2))


def _convolution_kind(labelling: Labelling, node: fx.Node) -> tuple[int, bool]:
    """Groups, and whether it is transposed."""
    module = labelling.module(node)
    if module is not None:
        return int(getattr(module, "groups", 1)), isinstance(module, TRANSPOSED)
    return int(arguments(node)["groups"]), "transpose" in operator_name(node)


def _grouped(
    labelling: Labelling, weight: str, channels: Labels | None, groups: int, reason: str
) -> Labels | None:
    """Every group of channels loses the same positions."""
    if channels is not None:
        channels = labelling.atoms.merge_within(channels.reshape(groups, -1).T)
    labelling.reads(weight, 1, channels, reason)
    rows = labelling.make(weight, 0, _tensor(labelling, weight).shape[0], Kind.CHANNEL)
    if rows is not None:
        labelling.atoms.merge_within(rows.reshape(groups, -1).T)
    return rows


def embedding(labelling: Labelling, node: fx.Node) -> Any:
    """Rows of the weight, picked by number: its columns make units."""
    if node.op == "call_module":
        weight, index = f"{node.target}.weight", source(node)
    elif source(node).op == "get_attr":
        weight, index = str(source(node).target), source(node, 1)
    else:
        return unknown(labelling, node)
    labelling.tie(weight, 0, None, "its rows are picked by number")
    columns = labelling.make(weight, 1, _tensor(labelling, weight).shape[1], Kind.EMBEDDING)
    return (*labelling.axes(index), columns)


def batch_norm(labelling: Labelling, node: fx.Node) -> Axes:
    """Each channel for itself, with an entry in every tensor of the module."""
    x = labelling.axes(source(node))
    for name in ("weight", "bias", "running_mean", "running_var"):
        labelling.tie(f"{node.target}.{name}", 0, x[1], "its normalisation is shared")
    for labels in (x[0], *x[2:]):
        labelling.atoms.pin(labels, f"{describe(node)} averages over it")
    return x


def layer_norm(labelling: Labelling, node: fx.Node) -> Axes:
    """Mixes the last axes: they stay whole."""
    x = labelling.axes(source(node))
    module = labelling.module(node)
    sizes = arguments(node)["normalized_shape"] if module is None else module.normalized_shape
    count = len(list(sizes))  # type: ignore[arg-type]
    return _mixes(labelling, node, x, range(len(x) - count, len(x)))


def group_norm(labelling: Labelling, node: fx.Node) -> Axes:
    """Mixes channels and all behind them."""
    x = labelling.axes(source(node))
    return _mixes(labelling, node, x, range(1, len(x)))


def _mixes(labelling: Labelling, node: fx.Node, x: Axes, dims: range) -> Axes:
    for dim in dims:
        labelling.atoms.pin(x[dim], f"{describe(node)} normalises over it")
    names = [f"{node.target}.weight", f"{node.target}.bias"] if node.op == "call_module" else []
    for name in names:
        for dim in range(len(dims)):
            labelling.tie(name, dim, None, f"{describe(node)} normalises over it")
    return tuple(None if dim in dims else labels for dim, labels in enumerate(x))


def prelu(labelling: Labelling, node: fx.Node) -> Any:
    """A slope for each channel, or one for all."""
    if node.op != "call_module":
        return unknown(labelling, node)
    x = labelling.axes(source(node))
    shared = _tensor(labelling, f"{node.target}.weight").numel() == 1
    labels = None if shared or len(x) < 2 else x[1]
    labelling.tie(f"{node.target}.weight", 0, labels, "its slopes are shared")
    return x


def selection(labelling: Labelling, node: fx.Node) -> Axes:
    """Feature gates: every entry of the last axis is a unit inside the unit that it comes from."""
    x = labelling.axes(source(node))
    features = labelling.atoms.fresh(str(node.target), labelling.shape(node)[-1].size, Kind.FEATURE)
    labelling.selections[node.name] = Selection(features=features, parents=x[-1])
    return (*x[:-1], features)
