"""From a hard mask to a smaller module, and the way back for its weights."""

import copy

import torch
from torch import Tensor, fx, nn

from .gated import Network, put, take
from .graph import IndexSelect, annotate
from .groups import Active, Axes, Coupling

# Attributes that repeat a module's sizes along rows and columns.
_ROW_SIZES = ("out_channels", "out_features", "num_features")
_COL_SIZES = ("in_channels", "in_features")


def compact(network: Network, active: Active) -> fx.GraphModule:
    """A copy of the network without its sleeping units: plain modules under the same names.

    Computes what the gated network computes under `active`.  Where single features of a channel are gone, an
    index_select picks the ones that stay.
    """
    graph = copy.deepcopy(network.graph)
    for target, axes in network.coupling.modules.items():
        _shrink(graph.get_submodule(target), *active.axes(axes))
    for node in list(graph.graph.nodes):
        positions = active.positions.get(node.name)
        if positions is not None:
            _insert_select(graph, node, positions)
    graph.recompile()
    placeholder = next(node for node in graph.graph.nodes if node.op == "placeholder")
    return annotate(graph, placeholder.meta["shape"])


def without_gates(graph: fx.GraphModule) -> Coupling:
    """The coupling of a network that has no gates left."""
    nodes = list(graph.graph.nodes)
    return Coupling(
        groups=(),
        modules={str(n.target): Axes(rows=None, cols=None) for n in nodes if n.op == "call_module"},
        outputs={node.name: None for node in nodes},
        selects={},
    )


def write_back(network: Network, active: Active, smaller: nn.Module) -> None:
    """Write the weights and statistics of `compact(network, active)` into the full network."""
    full = network.parameters | network.buffers
    with torch.no_grad():
        for name, value in smaller.state_dict().items():
            rows, cols = active.axes(network.axes[name])
            put(full[name].detach(), rows, cols, value)


def _shrink(module: nn.Module, rows: Tensor | None, cols: Tensor | None) -> None:
    for name, parameter in list(module.named_parameters(recurse=False)):
        smaller = take(parameter.detach(), rows, cols).contiguous()
        setattr(module, name, nn.Parameter(smaller, requires_grad=parameter.requires_grad))
    for name, buffer in list(module.named_buffers(recurse=False)):
        setattr(module, name, take(buffer, rows, cols))
    for index, attributes in ((rows, _ROW_SIZES), (cols, _COL_SIZES)):
        for attribute in attributes:
            if index is not None and hasattr(module, attribute):
                setattr(module, attribute, len(index))


def _insert_select(graph: fx.GraphModule, node: fx.Node, positions: Tensor) -> None:
    name = f"{node.name}_kept"
    graph.add_module(name, IndexSelect(positions))
    with graph.graph.inserting_after(node):
        selected = graph.graph.call_module(name, (node,))
    node.replace_all_uses_with(selected, delete_user_cb=lambda user: user is not selected)
