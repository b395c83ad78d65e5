"""What the budget does to the gates: what a unit costs, where phi begins, and which way the multipliers pull it."""

import torch
from torch import Tensor

from .budget import Multipliers, expected_costs, uniform_probability
from .config import Budget
from .cost import CostModel
from .gates import Gates
from .saliency import Saliency, initial_phi

PHI_CENTER, PHI_SPREAD, PHI_LIMIT = 1.5, 0.7, 3.0


def prices(costs: CostModel, budget: Budget, pi: Tensor) -> Tensor:
    """What a unit of each group costs on average at gate probabilities `pi`: (G,), log cost per unit."""
    pi = pi.clone().clamp_min(1e-6).requires_grad_()
    expected = expected_costs(costs, pi, budget)
    gradient = torch.autograd.grad(torch.stack(list(expected.values())).log().sum(), pi)[0]
    weights = pi.detach()
    found = torch.empty_like(weights)
    for group in costs.coupling.groups:
        own = weights[group.slice]
        found[group.slice] = (gradient[group.slice] * own).sum() / own.sum()
    return found


def first_phi(saliency: Saliency, gates: Gates, costs: CostModel, budget: Budget) -> Tensor:
    """phi (G,) before stage 2, from the saliency of stage 1; all the same where there was none."""
    phi, awake = torch.full_like(gates.phi, PHI_CENTER), gates.awake
    if saliency.batches:
        price = prices(costs, budget, uniform_probability(costs, budget, awake))
        phi[awake] = initial_phi(
            saliency.total[awake], price[awake], center=PHI_CENTER, spread=PHI_SPREAD, limit=PHI_LIMIT
        )
    return phi


def pull(
    costs: CostModel,
    budget: Budget,
    multipliers: Multipliers,
    gates: Gates,
    k: float,
    progress: float,
    dt: float,
    *,
    natural: bool = False,
) -> Tensor:
    """d/dphi (G,) of the sum over limits of multiplier times log E[cost], or d/dpi; the multipliers move first.

    `progress` and `dt`, a step, are shares of stage 2.  `natural`: in pi, as the loss's gradient then is too.
    """
    phi = gates.phi.clone().requires_grad_()
    pi = gates.with_phi(phi).probabilities(k)
    pi = pi.detach().requires_grad_() if natural else pi
    expected = expected_costs(costs, pi, budget)
    multipliers.update({kind: cost.item() for kind, cost in expected.items()}, progress, dt)
    total = torch.stack([multipliers.value[kind] * cost.log() for kind, cost in expected.items()]).sum()
    return torch.autograd.grad(total, pi if natural else phi)[0]
