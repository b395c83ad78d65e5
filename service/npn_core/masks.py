"""What hardening begins with: what the gates have learned, or a baseline that they must beat."""

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType

import torch
from torch import Generator, Tensor

from .config import Budget
from .cost import CostModel
from .gated import Network
from .groups import FIXED
from .pull import first_phi
from .state import LoopState


def random_scores(network: Network, generator: Generator) -> Tensor:
    """A uniform random number per unit (G,)."""
    return torch.rand(network.coupling.size, generator=generator, dtype=torch.float64)


def magnitude_scores(network: Network, _: Generator) -> Tensor:
    """The L2 norm of each unit's weights, divided by its group's mean (G,).

    A channel's or neuron's own weights; a feature's weights in the layer that reads it; a weight itself.
    """
    coupling = network.coupling
    squares = torch.zeros(coupling.size, dtype=torch.float64)
    for name, parameter in network.parameters.items():
        square = parameter.detach().cpu().double().square()
        if (group := coupling.weights.get(name)) is not None:
            squares[group.slice] = square.flatten()
        for dim, axis in enumerate(network.dims[name]):
            if axis is None or parameter.dim() < 2:
                continue
            units = coupling.axes[axis]
            own = units != FIXED
            if (name, dim) in coupling.readers:  # a layer's weights belong to the units that it makes
                own &= coupling.parent[units] != FIXED
            sums = square.transpose(0, dim).flatten(1).sum(dim=1)
            squares.index_add_(0, units[own], sums[own])
    norms = squares.sqrt()
    for group in coupling.groups:
        norms[group.slice] /= norms[group.slice].mean().clamp_min(1e-30)
    return norms


SCORES: Mapping[str, Callable[[Network, Generator], Tensor]] = MappingProxyType(
    {"random": random_scores, "magnitude": magnitude_scores}
)


def chosen(
    kind: str, network: Network, state: LoopState, costs: CostModel, budget: Budget
) -> tuple[Tensor, Tensor]:
    """The mask (G,) before repair and the scores (G,) by which that goes: the learned ones, or a baseline's."""
    mask, gates = state.candidates, state.gates
    if kind == "learned":
        mask, scores = gates.harden(), gates.phi
    elif kind == "saliency":
        scores = first_phi(state.saliency, gates, costs, budget)
    else:
        scores = SCORES[kind](network, state.generators.masks)
    return mask, scores.masked_fill(~state.candidates, -math.inf)
