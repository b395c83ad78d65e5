"""How much each unit matters, from the gradients that training computes anyway.

With the gate at the consumers, d loss / d z of an open gate is the sum of weight times gradient over the
input weights that the gate multiplies.  Its mean square over minibatches is the Fisher estimate of what
closing the gate would cost (Molchanov et al., "Importance Estimation for Neural Network Pruning", arXiv:1906.10771).
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from .gated import Network, take
from .optimizer import Update


def gate_gradients(network: Network, updates: list[Update]) -> Tensor:
    """d loss / d z (G,) float64 at the open gates of the sample that `updates` belong to; 0 elsewhere."""
    gradients = torch.zeros(network.coupling.size, dtype=torch.float64)
    for update in updates:
        axes = network.axes[update.name]
        if axes.cols is None or update.gradient.dim() < 2:
            continue
        group = network.coupling.by_name[axes.cols]
        weight = take(network.parameters[update.name].detach(), update.rows, update.cols)
        own = (weight * update.gradient).transpose(0, 1).flatten(1).sum(dim=1).double()
        units = torch.arange(group.size) if update.cols is None else update.cols
        gradients.index_add_(0, units + group.offset, own)
        if group.parent is not None:
            parent = network.coupling.by_name[group.parent]
            gradients.index_add_(0, units // group.per_parent + parent.offset, own)
    return gradients


@dataclass(kw_only=True, slots=True)
class Saliency:
    """The running sum of squared gate gradients (G,) of `batches` minibatches."""

    total: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.float64))
    batches: int = 0

    def add(self, gradients: Tensor) -> None:
        """Count one minibatch."""
        self.total = gradients.square() if self.batches == 0 else self.total + gradients.square()
        self.batches += 1


def initial_phi(saliency: Tensor, price: Tensor, *, center: float, spread: float, limit: float) -> Tensor:
    """phi (G,) before stage 2: the standardised log of saliency per cost, `center` on average.

    A multiplier that pulls every phi down by the same amount then closes the gates in the order of what they
    are worth per unit of cost, across all groups.  `saliency`, `price` (G,) in any units; |phi| <= `limit`.
    """
    floor = saliency.max() * 1e-9
    worth = (saliency.clamp_min(float(floor)) / price).log()
    low, high = worth.quantile(torch.tensor([0.01, 0.99], dtype=worth.dtype)).tolist()
    worth = worth.clamp(low, high)
    deviation = float(worth.std())
    score = (worth - worth.mean()) / deviation if deviation > 0 else torch.zeros_like(worth)
    return (center + spread * score).clamp(-limit, limit)
