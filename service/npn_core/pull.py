"""What the budget does to the gates: what a unit costs, where phi begins, and which way the multipliers pull it."""

import math

import torch
from torch import Tensor

from .budget import OVERSHOOT, Multipliers, expected_costs, harden, uniform_probability
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
    """phi (G,) before stage 2, from the saliency of stage 1; all the same where there was none.

    Of units that hibernate it stays what it is.
    """
    phi, awake = gates.phi.clone(), gates.awake
    phi[awake] = PHI_CENTER
    if saliency.batches:
        price = prices(costs, budget, uniform_probability(costs, budget, awake))
        phi[awake] = initial_phi(
            saliency.total[awake], price[awake], center=PHI_CENTER, spread=PHI_SPREAD, limit=PHI_LIMIT
        )
    return phi


def first_gates(saliency: Saliency, gates: Gates, costs: CostModel, budget: Budget) -> Gates:
    """The gates before stage 2: of what is awake as much stays so as makes OVERSHOOT budgets, by saliency.

    The others hibernate through stage 2, which then costs no more than if they had never been.  Their phi is below
    all that stays, in the order of their own saliency: repair wakes them last.
    """
    phi = first_phi(saliency, gates, costs, budget)
    reach = Budget(**{f"max_{kind}": int(OVERSHOOT * limit) for kind, limit in budget.limits.items()})
    scores = phi.masked_fill(~gates.awake, -torch.inf)
    reached = Gates(
        phi=phi - 2 * PHI_LIMIT * gates.awake, awake=harden(costs, reach, gates.awake, scores).mask
    )
    return reached.with_phi(first_phi(saliency, reached, costs, budget))


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
    if not natural and (k == 0 or math.isinf(k)):  # where phi has no gradient
        return torch.zeros_like(gates.phi)
    total = torch.stack([multipliers.value[kind] * cost.log() for kind, cost in expected.items()]).sum()
    return torch.autograd.grad(total, pi if natural else phi)[0]
