"""The two baselines that learned gates must beat: random scores and weight magnitude."""

import torch
from torch import Generator, Tensor

from .gated import Network
from .groups import Kind


def random_scores(network: Network, generator: Generator) -> Tensor:
    """A uniform random number per unit (G,)."""
    return torch.rand(network.coupling.size, generator=generator, dtype=torch.float64)


def magnitude_scores(network: Network) -> Tensor:
    """The L2 norm of each unit's weights, divided by its group's mean (G,).

    A channel's or neuron's own weights; a feature's weights in the layer that reads it.
    """
    coupling = network.coupling
    squares = torch.zeros(coupling.size, dtype=torch.float64)
    for name, parameter in network.parameters.items():
        axes = network.axes[name]
        rows = coupling.by_name[axes.rows] if axes.rows else None
        cols = coupling.by_name[axes.cols] if axes.cols else None
        square = parameter.detach().double().square()
        if rows is not None and parameter.dim() > 1:
            squares[rows.slice] += square.flatten(1).sum(dim=1)
        if cols is not None and parameter.dim() > 1 and cols.kind is Kind.FEATURE:
            squares[cols.slice] += square.transpose(0, 1).flatten(1).sum(dim=1)
    norms = squares.sqrt()
    for group in coupling.groups:
        norms[group.slice] /= norms[group.slice].mean().clamp_min(1e-30)
    return norms
