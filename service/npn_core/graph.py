"""A network as a traced `fx.GraphModule` of standard modules, each node knowing its output shape."""

import torch
from torch import Tensor, fx, nn
from torch.fx.passes.shape_prop import ShapeProp

from .errors import InvalidInput


class IndexSelect(nn.Module):
    """Picks entries of dimension 1: (N, F) -> (N, len(index)).

    The index is a constant of the graph, not part of the state dict: the weights stay the user's own.
    """

    index: Tensor

    def __init__(self, index: Tensor) -> None:
        super().__init__()
        self.register_buffer("index", index, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """The chosen entries."""
        return x.index_select(1, self.index)


LAYERS = (nn.Conv2d, nn.Linear)
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)
DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d)
# Act on each channel or feature for itself and map "nothing there" to "nothing there".
PER_UNIT = (
    nn.ReLU,
    nn.ReLU6,
    nn.LeakyReLU,
    nn.ELU,
    nn.GELU,
    nn.SiLU,
    nn.Hardswish,
    nn.Sigmoid,
    nn.Tanh,
    nn.Softplus,
    nn.Identity,
    nn.MaxPool2d,
    nn.AvgPool2d,
    nn.AdaptiveAvgPool2d,
    nn.AdaptiveMaxPool2d,
)
SUPPORTED = LAYERS + NORMS + DROPOUTS + PER_UNIT + (nn.Flatten,)


def trace(module: nn.Module, input_shape: tuple[int, ...]) -> fx.GraphModule:
    """The traced network; every node's `meta["shape"]` is its output shape for one sample.

    Raises InvalidInput naming the module that the method cannot handle.
    """
    graph = fx.symbolic_trace(module)
    for node in graph.graph.nodes:
        _check(graph, node)
    annotate(graph, input_shape)
    for node in graph.graph.nodes:
        _check_flat(graph, node)
    return graph


def annotate(graph: fx.GraphModule, input_shape: tuple[int, ...]) -> fx.GraphModule:
    """Note every node's output shape for one sample in its `meta["shape"]`; returns the same graph."""
    training = graph.training
    graph.eval()
    with torch.no_grad():
        ShapeProp(graph).propagate(torch.zeros(2, *input_shape))
    graph.train(training)
    for node in graph.graph.nodes:
        node.meta["shape"] = tuple(node.meta["tensor_meta"].shape[1:])
    return graph


def _check(graph: fx.GraphModule, node: fx.Node) -> None:
    if node.op in ("placeholder", "output"):
        return
    if node.op != "call_module":
        raise InvalidInput("model", f"operation {node.name!r} ({node.target}) is not supported")
    module = graph.get_submodule(str(node.target))
    if not isinstance(module, SUPPORTED):
        kinds = ", ".join(kind.__name__ for kind in SUPPORTED)
        raise _refusal(node, module, f"is not supported; supported: {kinds}")
    if isinstance(module, nn.Conv2d) and (module.groups != 1 or module.padding_mode != "zeros"):
        raise _refusal(node, module, "must have groups=1 and padding_mode='zeros'")
    if isinstance(module, nn.Flatten) and (module.start_dim, module.end_dim) != (1, -1):
        raise _refusal(node, module, "must flatten from dimension 1 to the last")
    uses = sum(other.op == "call_module" and other.target == node.target for other in graph.graph.nodes)
    if isinstance(module, LAYERS + NORMS) and uses > 1:
        raise _refusal(node, module, f"is used {uses} times; layers with shared weights are not supported")


def _check_flat(graph: fx.GraphModule, node: fx.Node) -> None:
    if node.op != "call_module":
        return
    module = graph.get_submodule(str(node.target))
    if isinstance(module, nn.Linear) and len(node.meta["shape"]) != 1:
        raise _refusal(node, module, "must read a flat tensor; put a Flatten before it")


def _refusal(node: fx.Node, module: nn.Module, what: str) -> InvalidInput:
    return InvalidInput("model", f"module {node.target!r} ({module}) {what}")
