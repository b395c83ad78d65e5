"""Where single features get gates of their own: in front of a linear layer that reads a flattened tensor.

800 gates on the flattened features of LeNet-5's first linear layer, instead of 50 on its channels, are what
lets that layer become small.  An `IndexSelect` that still picks everything marks the place in the graph.
"""

import math

import torch
from torch import fx, nn

from .graph import DROPOUTS, NORMS, IndexSelect, Shape, module_of, operator_name

_PASS = (
    *DROPOUTS,
    *NORMS,
    nn.ReLU,
    nn.ReLU6,
    nn.LeakyReLU,
    nn.ELU,
    nn.GELU,
    nn.SiLU,
    nn.Sigmoid,
    nn.Tanh,
    nn.Identity,
)
_FLATTENS = ("aten.flatten.", "aten.reshape.", "aten.view.")


def select_features(graph: fx.GraphModule) -> fx.GraphModule:
    """Insert an `IndexSelect` where features are flattened, or come in flat; returns the same, annotated, graph."""
    for node in list(graph.graph.nodes):
        if isinstance(module_of(graph, node), nn.Linear):
            _insert(graph, node)
    graph.recompile()
    return graph


def _insert(graph: fx.GraphModule, linear: fx.Node) -> None:
    source = _origin(graph, linear.args[0])
    if source is None or any(isinstance(module_of(graph, user), IndexSelect) for user in source.users):
        return
    features: Shape = source.meta["shape"]
    name = _free_name(graph, f"{str(linear.target).replace('.', '_')}_in")
    graph.add_module(name, IndexSelect(torch.arange(features[-1].size, device="cpu")))
    with graph.graph.inserting_after(source):
        select = graph.graph.call_module(name, (source,))
    select.meta |= {
        "shape": features,
        "source": linear.meta.get("source", ""),
        "features": f"{linear.target}.in",
    }
    source.replace_all_uses_with(select, delete_user_cb=lambda user: user is not select)


def _origin(graph: fx.GraphModule, node: object) -> fx.Node | None:
    """The node that flattens what `node` hands on, if it is one; None where nothing is flattened."""
    while isinstance(node, fx.Node) and isinstance(module_of(graph, node), _PASS):
        node = node.args[0]
    if not isinstance(node, fx.Node) or node.meta["shape"] is None:
        return None
    shape: Shape = node.meta["shape"]
    if len(shape) != 2 or not shape[0].batched or shape[1].batched or shape[1].size < 2:
        return None
    if node.op == "placeholder":
        return node
    if node.op != "call_function" or not operator_name(node).startswith(_FLATTENS):
        return None
    before: Shape = node.args[0].meta["shape"]  # type: ignore[union-attr]
    kept = before and before[0].batched and before[0].size == shape[0].size == 1
    return node if kept and math.prod(dim.size for dim in before[2:]) > 1 else None


def _free_name(graph: fx.GraphModule, name: str) -> str:
    while hasattr(graph, name):
        name += "_"
    return name
