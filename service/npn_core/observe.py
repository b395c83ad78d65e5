"""What the loop shows of itself: gates, costs and validation as typed progress."""

from collections.abc import Mapping

from torch import Tensor

from .budget import expected_costs
from .config import Budget
from .cost import CostModel
from .gates import Gates, entropy
from .groups import Coupling
from .progress import CostProgress, GroupProgress


def group_progress(coupling: Coupling, gates: Gates, k: float, mask: Tensor) -> tuple[GroupProgress, ...]:
    """Every group: live units of the hard `mask` (G,) after closure, and mean gate entropy at `k`."""
    alive, bits = coupling.close(mask), entropy(gates.probabilities(k))
    return tuple(
        GroupProgress(
            name=group.name,
            size=group.size,
            active=int(alive[group.slice].sum()),
            entropy=bits[group.slice].mean().item(),
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
