"""From a hard mask to a smaller module, and the way back for its weights."""

import operator
from typing import Any, Protocol

import torch
from torch import Tensor, fx, nn

from .copies import duplicate, on_device
from .device import CPU
from .gated import Network
from .graph import CONVOLUTIONS, TRANSPOSED, Dim, IndexSelect, annotate, source, tensor_names
from .groups import Active, Coupling, Dims, Follower
from .progress import InputInfo
from .slices import Indices, put, take


def compact(network: Network, active: Active, inputs: tuple[InputInfo, ...]) -> fx.GraphModule:
    """A copy of the network without its sleeping units, on the CPU: plain modules under the same names.

    Computes what the gated network computes under `active`; sizes in reshapes and the like follow.  Where single
    features are gone, an index_select picks the ones that stay; where single weights are gone, they are 0.
    """
    graph = on_device(duplicate(network.graph), CPU)
    resize_tensors(graph, network, active)
    _close_weights(graph, network.coupling, active)
    follow_sizes(graph, network.coupling, active)
    for node in list(graph.graph.nodes):
        if node.name in network.coupling.selects:
            _select(graph, node, active.picked(node.name))
        elif isinstance(node.target, str) and isinstance(getattr(graph, node.target, None), IndexSelect):
            _select(graph, node, None)
    graph.graph.eliminate_dead_code()
    graph.recompile()
    return annotate(graph, inputs)


def _close_weights(graph: fx.GraphModule, coupling: Coupling, active: Active) -> None:
    parameters = dict(graph.named_parameters())
    with torch.no_grad():
        for name in coupling.weights:
            parameters[name].copy_(active.gated(name, parameters[name]))


def without_gates(graph: fx.GraphModule) -> Coupling:
    """The coupling of a network that has no gates left."""
    tensors = (*graph.named_parameters(remove_duplicate=False), *graph.named_buffers(remove_duplicate=False))
    return Coupling(
        groups=(),
        axes=(),
        tensors={name: (None,) * tensor.dim() for name, tensor in tensors},
        values={node.name: _whole(node.meta["shape"]) for node in graph.graph.nodes},
        readers=frozenset(),
        followers={},
        selects={},
        parent=torch.zeros(0, dtype=torch.int64),
        closes=torch.zeros(0, dtype=torch.bool),
    )


def _whole(shape: Any) -> Dims:
    """No axis of a node's one tensor changes; () for anything else."""
    return (None,) * len(shape) if shape and all(isinstance(dim, Dim) for dim in shape) else ()


def write_back(network: Network, active: Active, smaller: nn.Module) -> None:
    """Write the weights and statistics of `compact(network, active)` into the full network."""
    full = network.parameters | network.buffers
    tensors = dict((*smaller.named_parameters(), *smaller.named_buffers()))
    with torch.no_grad():
        for name, value in tensors.items():
            if name in full and not _is_index(smaller, name):
                tensor, dims = full[name].detach(), network.dims[name]
                gate = active.gate(name, tensor)
                kept = value.detach() if gate is None else torch.where(gate > 0, value.detach(), tensor)
                put(tensor, active.indices(dims, tensor.device), kept)


def _is_index(module: nn.Module, name: str) -> bool:
    return isinstance(module.get_submodule(name.rpartition(".")[0]), IndexSelect)


class Sizes(Protocol):
    """Which positions the axes of a resized network have: those that live, or more than there were."""

    def indices(self, dims: Dims) -> Indices:
        """The old positions along every dimension of a tensor."""

    def count(self, axis: int, length: int | None = None) -> int:
        """How many positions stand for an axis, or for its first `length`."""


def resize_tensors(graph: fx.GraphModule, network: Network, sizes: Sizes) -> None:
    """Every tensor at its positions; what was one tensor under several names stays one."""
    resized: dict[str, Tensor] = {}
    for name, first in tensor_names(graph).items():
        if _is_index(graph, name):
            continue
        path, _, attribute = name.rpartition(".")
        owner = graph.get_submodule(path)
        if first not in resized:
            tensor = getattr(owner, attribute)
            value = take(tensor.detach(), sizes.indices(network.coupling.tensors[name])).contiguous()
            is_parameter = isinstance(tensor, nn.Parameter)
            resized[first] = (
                nn.Parameter(value, requires_grad=tensor.requires_grad) if is_parameter else value
            )
        setattr(owner, attribute, resized[first])
    for module in graph.modules():
        _say_sizes(module)


def _say_sizes(module: nn.Module) -> None:
    """Attributes that repeat the sizes of a module's tensors."""
    if isinstance(module, CONVOLUTIONS) and 1 < module.groups == module.in_channels:
        # depthwise: a whole number of outputs for each input
        per_channel = module.out_channels // module.in_channels
        module.out_channels = module.weight.shape[0]
        module.in_channels = module.groups = module.out_channels // per_channel
    elif isinstance(module, CONVOLUTIONS):
        module.out_channels, module.in_channels = (
            module.weight.shape[0],
            module.weight.shape[1] * module.groups,
        )
    elif isinstance(module, TRANSPOSED):
        module.in_channels, module.out_channels = (
            module.weight.shape[0],
            module.weight.shape[1] * module.groups,
        )
    elif isinstance(module, nn.Linear):
        module.out_features, module.in_features = module.weight.shape
    elif isinstance(module, nn.Embedding):
        module.embedding_dim = module.weight.shape[1]
    elif isinstance(module, nn.modules.batchnorm._BatchNorm):
        sized = next((t for t in (module.weight, module.running_mean) if t is not None), None)
        module.num_features = module.num_features if sized is None else len(sized)


def _select(graph: fx.GraphModule, node: fx.Node, positions: Tensor | None) -> None:
    """Pick the features that stay; nothing is left of a selection that picks all."""
    if positions is None:
        node.replace_all_uses_with(source(node))
        graph.graph.erase_node(node)
        graph.delete_submodule(str(node.target))
    else:
        graph.get_submodule(str(node.target)).index = positions


def follow_sizes(graph: fx.GraphModule, coupling: Coupling, sizes: Sizes) -> None:
    """Constants that repeat the sizes of axes."""
    for node in list(graph.graph.nodes):
        if node.name in coupling.followers:
            _follow(node, coupling.followers[node.name], sizes)


def _follow(node: fx.Node, followers: tuple[Follower, ...], sizes: Sizes) -> None:
    """Write the number of positions into the node's arguments."""
    arguments: list[Any] = [list(a) if isinstance(a, list | tuple) else a for a in node.args]
    for follower in followers:
        live = sizes.count(follower.axis, follower.length)
        count: int | fx.Node = live
        if follower.item is None:
            arguments[follower.argument] = count
            continue
        if follower.batched:
            size = arguments[follower.argument][follower.item]
            count = _times_batch(node, size, follower.length, live)
        arguments[follower.argument][follower.item] = count
    node.args = tuple(arguments)


def _times_batch(node: fx.Node, size: fx.Node, length: int, count: int) -> fx.Node:
    """size / length * count, where `size` is the batch size times `length`."""
    graph = node.graph
    with graph.inserting_before(node):
        batch = graph.call_function(operator.floordiv, (size, length))
        return graph.call_function(operator.mul, (batch, count))
