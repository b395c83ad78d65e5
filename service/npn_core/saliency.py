"""How much each unit matters, from the gradients that training computes anyway.

With the gate at the consumers, d loss / d z of an open gate is the sum of weight times gradient over the
input weights that the gate multiplies, or over the one that it belongs to.  Its mean square over minibatches is the
Fisher estimate of what closing the gate would cost (Molchanov et al., "Importance Estimation for Neural Network
Pruning", arXiv:1906.10771).
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .gated import Network
from .groups import FIXED, Active
from .optimizer import Update
from .slices import take


def gate_gradients(
    network: Network, active: Active, updates: list[Update], z: Tensor | None = None
) -> Tensor:
    """d loss / d z (G,) float64 at the gates that are open in `active`, to which `updates` belong; 0 elsewhere.

    At all gates where `updates` are of the whole network, computed with its weights gated by `z` (G,) bool.
    """
    return per_unit(network, active, updates, lambda weight, gradient: weight * gradient, z)


def per_unit(
    network: Network,
    active: Active,
    updates: list[Update],
    measure: Callable[[Tensor, Tensor], Tensor],
    z: Tensor | None = None,
) -> Tensor:
    """The sum (G,) float64 of `measure(weight, gradient)` over the weights that read each unit.

    What reads a feature reads the unit that it lies in, too: with `z` (G,) bool either counts where the other's gate
    is open.
    """
    coupling = network.coupling
    own_gate = torch.ones(coupling.size, dtype=torch.float64) if z is None else z.double()
    gate = torch.cat((own_gate, torch.ones(1, dtype=torch.float64)))  # FIXED is the last
    found, places = [], []
    sums = torch.zeros(coupling.size, dtype=torch.float64)
    for update in updates:
        if (group := coupling.weights.get(update.name)) is not None:
            measured = measure(network.parameters[update.name].detach(), update.gradient)
            sums[group.slice] = measured.flatten().cpu().double()
        for dim, axis in enumerate(network.dims[update.name]):
            if axis is None or (update.name, dim) not in coupling.readers:
                continue
            measured = measure(
                take(network.parameters[update.name].detach(), update.indices), update.gradient
            )
            others = [d for d in range(measured.dim()) if d != dim]
            found.append(measured.sum(dim=others) if others else measured)
            index = active.index(axis)
            places.append(coupling.axes[axis] if index is None else coupling.axes[axis][index])
    if not found:
        return sums
    own, units = torch.cat(found).cpu().double(), torch.cat(places)  # they leave the device at once
    parents = coupling.parents_of(units)
    _add(sums, units, own * gate[parents])
    _add(sums, parents, own * gate[units])
    return sums


def _add(sums: Tensor, units: Tensor, own: Tensor) -> None:
    free = units != FIXED
    sums.index_add_(0, units[free], own[free])


@dataclass(kw_only=True, slots=True)
class Saliency:
    """The running sum of squared gate gradients (G,) of `batches` minibatches."""

    total: Tensor
    batches: int = 0

    @classmethod
    def none(cls, size: int) -> "Saliency":
        """Of `size` gates, before the first minibatch."""
        return cls(total=torch.zeros(size, dtype=torch.float64))

    def add(self, gradients: Tensor) -> None:
        """Count one minibatch."""
        self.total = self.total + gradients.square()
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
