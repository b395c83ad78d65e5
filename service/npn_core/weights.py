"""Single weights as units: a gate for every entry of the layers' weights, and no slice that ever leaves.

The network keeps its shapes, and dense kernels take as long as ever; what becomes smaller is what must be stored.
Biases, norms and whatever no layer multiplies with have no gates.
"""

from dataclasses import replace

import torch
from torch import fx, nn

from .config import Budget, Expansion, Training
from .copies import on_device
from .errors import InvalidInput
from .gated import Network
from .graph import layer_weight, module_of, tensor_names
from .groups import FIXED, Active, Coupling, Group
from .progress import InputInfo
from .surgery import compact, without_gates
from .units import Kind

MOST = 2**24
"""Gates: their seven numbers each are held in float64, and torch's quantiles take no more."""


def weight_coupling(graph: fx.GraphModule) -> Coupling:
    """The coupling of an annotated graph whose units are single weights; a group for the weight of each layer.

    Raises InvalidInput where there are more than MOST of them.
    """
    parameters, names = dict(graph.named_parameters()), tensor_names(graph)
    groups: dict[str, Group] = {}
    offset = 0
    for node in graph.graph.nodes:
        weight = _weight(graph, node)
        name = None if weight is None else names[weight]
        if name in parameters and name not in groups:
            size = parameters[name].numel()
            groups[name] = Group(name=name, kind=Kind.WEIGHT, size=size, offset=offset)
            offset += size
    if offset > MOST:
        raise InvalidInput(
            "training.units",
            f"the network has {offset:,} weights, and at most {MOST:,} can have gates; use units coupled",
        )
    return replace(
        without_gates(graph),
        groups=tuple(groups.values()),
        weights=groups,
        parent=torch.full((offset,), FIXED, dtype=torch.int64),
        closes=torch.zeros(offset, dtype=torch.bool),
    )


def compacted(full: Network, active: Active, inputs: tuple[InputInfo, ...]) -> tuple[Network, Active]:
    """The compact network, where the full one is, and what of it trains: all, or the weights that are `active`."""
    smaller = on_device(compact(full, active, inputs), full.device)
    if full.coupling.weights:
        network = Network(smaller, weight_coupling(smaller))
        return network, network.active(active.alive[:-1])
    network = Network(smaller, without_gates(smaller))
    return network, network.everything


def check_units(budget: Budget, training: Training, expansion: Expansion | None) -> None:
    """Raises InvalidInput where single weights are asked for what they cannot do."""
    if training.units != "weights":
        return
    for kind in budget.limits:
        if kind != "params":
            raise InvalidInput(
                f"budget.max_{kind}",
                f"with units weights the limit is in parameters: set max_params, not max_{kind}; a network "
                "with zeros in it computes as long as without, and its file depends on how many each tensor has",
            )
    if training.round_to > 1:
        raise InvalidInput("training.round_to", "round_to goes with units coupled alone")
    if expansion is not None:
        raise InvalidInput("training.units", "a network grows by channels and neurons: use units coupled")


def _weight(graph: fx.GraphModule, node: fx.Node) -> str | None:
    """The name of what a layer, or an embedding, multiplies with or looks up."""
    return (
        f"{node.target}.weight"
        if isinstance(module_of(graph, node), nn.Embedding)
        else layer_weight(graph, node)
    )
