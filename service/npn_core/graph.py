"""What the lifted graph of a network tells of itself: layers, names, shapes.

The graph is that of `lift`: standard modules with weights, and functional `aten` operations between them.
"""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.passes.fake_tensor_prop import FakeTensorProp
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from .errors import InvalidInput
from .progress import InputInfo

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
LAYERS = (*CONVOLUTIONS, *TRANSPOSED, nn.Linear)
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)
ALPHA_DROPOUTS = (nn.AlphaDropout, nn.FeatureAlphaDropout)
INSTANCE_NORMS = (nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)

# Two batch sizes that no axis of a network is likely to have: a size that differs between them follows the batch.
_BATCHES = (13, 17)


class Dim(NamedTuple):
    """The size of an axis: `size`, or where `batched` that many times the batch size."""

    size: int
    batched: bool


Shape = tuple[Dim, ...]


class IndexSelect(nn.Module):
    """Picks entries of the last axis: (..., F) -> (..., len(index)).

    The index is a constant of the graph, not part of the state dict: the weights stay the user's own.
    """

    index: Tensor

    def __init__(self, index: Tensor) -> None:
        super().__init__()
        self.register_buffer("index", index, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """The chosen entries."""
        return x.index_select(-1, self.index)


def annotate(graph: fx.GraphModule, inputs: tuple[InputInfo, ...]) -> fx.GraphModule:
    """Note every node's output shape in its `meta["shape"]`, its cost in `meta["macs"]`; returns the same graph.

    A `Shape` for a tensor, a tuple of them for several, None for anything else.  The cost is the multiply-adds that
    PyTorch counts for one sample, with all units there.  Nothing is computed.
    Raises InvalidInput where the samples do not fit the network.
    """
    training = graph.training
    graph.eval()
    (small, few), (large, many) = (_propagate(graph, inputs, batch) for batch in _BATCHES)
    graph.train(training)
    for node in graph.graph.nodes:
        node.meta["shape"] = _shape(node, small[node.name], large[node.name])
        more = (many[node.name] - few[node.name]) / (_BATCHES[1] - _BATCHES[0])  # with each sample
        node.meta["macs"] = (few[node.name] - more * (_BATCHES[0] - 1)) / 2
    return graph


class _Counting(FakeTensorProp):
    """Notes the floating-point operations of every node."""

    def __init__(self, graph: fx.GraphModule, mode: FakeTensorMode, counter: FlopCounterMode) -> None:
        super().__init__(graph, mode)
        self.counter, self.found = counter, dict[str, int]()

    def run_node(self, n: fx.Node) -> Any:
        """The node's value, as ever."""
        before = self.counter.get_total_flops()
        value = super().run_node(n)
        self.found[n.name] = self.counter.get_total_flops() - before
        return value


def _propagate(
    graph: fx.GraphModule, inputs: tuple[InputInfo, ...], batch: int
) -> tuple[dict[str, Any], dict[str, int]]:
    """What every node gives for so many samples, and its floating-point operations."""
    names = input_names(graph)
    if len(names) != len(inputs):
        raise InvalidInput(
            "dataset.uri",
            f"the network takes {len(names)} inputs ({', '.join(names)}); the dataset has {len(inputs)}",
            reason="DATASET_SHAPES",
        )
    device = next((p.device for p in graph.parameters()), torch.device("cpu"))
    mode, counter = FakeTensorMode(allow_non_fake_inputs=True), FlopCounterMode(display=False)
    # attention as two products: its fused kernels have no count on the CPU
    with torch.no_grad(), mode, sdpa_kernel(SDPBackend.MATH), counter:
        counting = _Counting(graph, mode, counter)
        arguments = [torch.empty(batch, *i.shape, dtype=_taken(i.dtype), device=device) for i in inputs]
        try:
            counting.propagate_dont_convert_inputs(*arguments)
        except Exception as error:
            raise _does_not_fit(inputs, error) from error
    return {node.name: node.meta.pop("val", None) for node in graph.graph.nodes}, counting.found


def _taken(stored: str) -> torch.dtype:
    """The type in which a network takes what is stored as `stored`."""
    if stored.startswith("int"):
        return torch.int64
    return torch.bool if stored == "bool" else torch.float32


def _does_not_fit(inputs: tuple[InputInfo, ...], error: Exception) -> InvalidInput:
    shapes = ", ".join(str(i.shape) for i in inputs)
    hint = (
        "; x_train of shape N,H,W gets a channel axis, x_train.NAME does not"
        if inputs[0].shape[:1] == (1,)
        else ""
    )
    cause = str(error).strip().splitlines()
    return InvalidInput(
        "dataset.uri",
        f"the network cannot take samples of shape {shapes}: {cause[0] if cause else type(error).__name__:.200}{hint}",
        reason="DATASET_SHAPES",
    )


def _shape(node: fx.Node, small: Any, large: Any) -> Any:
    if isinstance(small, Tensor):
        return tuple(_dim(node, s, t) for s, t in zip(small.shape, large.shape, strict=True))
    if isinstance(small, tuple | list) and node.op != "output":
        return tuple(_shape(node, s, t) for s, t in zip(small, large, strict=True))
    return None


def _dim(node: fx.Node, small: int, large: int) -> Dim:
    if small == large:
        return Dim(int(small), False)
    size = int(small) // _BATCHES[0]
    if (size * _BATCHES[0], size * _BATCHES[1]) != (small, large):
        raise InvalidInput(
            "model.uri",
            f"{describe(node)} gives an axis whose size is no multiple of the batch size",
            reason="MODEL_OPERATOR",
        )
    return Dim(size, True)


def describe(node: fx.Node) -> str:
    """The operation and where it stands in the user's source, for messages."""
    what = f"module {node.target!r}" if node.op == "call_module" else f"operator {operator_name(node)}"
    source = node.meta.get("source", "")
    return f"{what} at {source}" if source else what


def operator_name(node: fx.Node) -> str:
    """ "aten.add.Tensor" for an aten overload, the function's name otherwise."""
    return (
        str(node.target)
        if isinstance(node.target, torch._ops.OpOverload)
        else getattr(node.target, "__name__", str(node.target))
    )


def makes_tensor(node: fx.Node) -> bool:
    """Whether the node's operator makes a tensor out of none, as arange and full do, on a device that it is told."""
    if not isinstance(node.target, torch._ops.OpOverload):
        return False
    arguments = node.target._schema.arguments
    return any(a.name == "device" for a in arguments) and not any("Tensor" in str(a.type) for a in arguments)


def source(node: fx.Node, place: int = 0) -> fx.Node:
    """The node that gives a positional argument; a graph that passes anything else there is no lifted one."""
    found = node.args[place]
    if not isinstance(found, fx.Node):
        raise TypeError(f"argument {place} of {node.name} is no node")
    return found


def arguments(node: fx.Node) -> dict[str, Any]:
    """The arguments of an aten operation by the names of its schema, defaults filled in."""
    if not isinstance(node.target, torch._ops.OpOverload):
        raise TypeError(f"{node.name} is no aten operation")
    found: dict[str, Any] = {}
    for place, argument in enumerate(node.target._schema.arguments):
        given = node.args[place] if place < len(node.args) else argument.default_value
        found[argument.name] = node.kwargs.get(argument.name, given)
    return found


def module_of(graph: fx.GraphModule, node: fx.Node) -> nn.Module | None:
    """The module that a node calls; None for any other node."""
    return graph.get_submodule(str(node.target)) if node.op == "call_module" else None


def layer_weight(graph: fx.GraphModule, node: fx.Node) -> str | None:
    """The name of the weight that a linear or convolution layer multiplies with; None for anything else."""
    if isinstance(module_of(graph, node), LAYERS):
        return f"{node.target}.weight"
    name = operator_name(node) if node.op == "call_function" else ""
    if name.startswith(("aten.linear", "aten.conv")) and source(node, 1).op == "get_attr":
        return str(source(node, 1).target)
    return None


def tensor_names(graph: fx.GraphModule) -> dict[str, str]:
    """Every name of a parameter or buffer -> the first name of the same tensor."""
    first: dict[int, str] = {}
    tensors = (*graph.named_parameters(remove_duplicate=False), *graph.named_buffers(remove_duplicate=False))
    return {name: first.setdefault(id(tensor), name) for name, tensor in tensors}


def input_names(graph: fx.GraphModule) -> tuple[str, ...]:
    """The user's names of the inputs; a node of that name would hide Python's own `input`, so nodes differ."""
    return tuple(str(node.target) for node in graph.graph.find_nodes(op="placeholder"))


def positions(shape: Shape, dims: range) -> int:
    """Product of the sizes at `dims`, for one sample."""
    return math.prod(shape[dim].size for dim in dims)
