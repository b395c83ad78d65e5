"""What the loop shows of itself: gates, costs and validation as typed progress."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from .budget import expected_costs
from .config import Budget
from .cost import CostModel
from .gates import Gates, entropy
from .groups import Coupling
from .progress import CostProgress, GroupProgress

DECAY = 0.99


@dataclass(kw_only=True, slots=True)
class Estimates:
    """Running means, decaying by DECAY a step, of the gates' gradient estimates (G,) and of their squares."""

    mean: Tensor
    square: Tensor

    @classmethod
    def none(cls, size: int) -> "Estimates":
        """Of `size` gates, before the first step."""
        zeros = torch.zeros(size, dtype=torch.float64)
        return cls(mean=zeros, square=zeros.clone())

    def add(self, gradient: Tensor) -> None:
        """Count one estimate (G,)."""
        self.mean.lerp_(gradient, 1 - DECAY)
        self.square.lerp_(gradient.square(), 1 - DECAY)

    def variance(self, group: slice, steps: int) -> float:
        """The share of a group's mean square that is variance, after `steps`: 1 is noise alone, 0 no noise.

        The minibatches' noise is in it too.
        """
        square = float(self.square[group].sum()) * (1 - DECAY**steps)
        return 1 - float(self.mean[group].square().sum()) / square if square > 0 else 0.0


def group_progress(
    coupling: Coupling, gates: Gates, k: float, mask: Tensor, estimates: Estimates, steps: int
) -> tuple[GroupProgress, ...]:
    """Every group: live units of the hard `mask` (G,) after closure; entropy at `k`, variance after `steps`."""
    alive, bits = coupling.close(mask), entropy(gates.probabilities(k))
    return tuple(
        GroupProgress(
            name=group.name,
            size=group.size,
            active=int(alive[group.slice].sum()),
            entropy=bits[group.slice].mean().item(),
            variance=estimates.variance(group.slice, steps),
        )
        for group in coupling.groups
    )


def cost_progress(
    costs: CostModel, budget: Budget, pi: Tensor, mask: Tensor, multipliers: Mapping[str, float]
) -> tuple[CostProgress, ...]:
    """Every limited cost: expected at gate probabilities `pi` (G,), and of the hard `mask` (G,)."""
    hard = costs.count(mask)
    return tuple(
        CostProgress(
            kind=kind,
            expected=expected.item(),
            hard=getattr(hard, kind),
            budget=budget.limits[kind],
            multiplier=multipliers.get(kind, 0.0),
        )
        for kind, expected in expected_costs(costs, pi, budget).items()
    )
