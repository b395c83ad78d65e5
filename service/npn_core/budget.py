"""Budgets: what can be met, the multipliers of stage 2, and hardening to a mask that meets every limit.

The multiplier is that of constrained optimisation (Gallego-Posada et al., "Controlled Sparsity via Constrained
Optimization", arXiv:2208.04425), with a proportional term (Sohrabi et al., "On PI controllers for updating
Lagrange multipliers", arXiv:2406.04558).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from .config import COST_KINDS, Budget
from .cost import CostModel
from .errors import InfeasibleBudget
from .progress import Cost

ARRIVAL = 0.7  # the share of stage 2 at which the expected cost is to be at the limit
PROPORTIONAL_GAIN = 5.0
INTEGRAL_GAIN = 40.0  # per whole stage 2
INTEGRAL_LIMIT = 20.0


def fits(cost: Cost, budget: Budget) -> bool:
    """Whether every limit holds."""
    return all(getattr(cost, kind) <= limit for kind, limit in budget.limits.items())


def smallest_mask(model: CostModel) -> Tensor:
    """The mask with one unit in every group, the smallest that is still a network: (G,) bool."""
    mask = torch.zeros(model.coupling.size, dtype=torch.bool)
    for group in model.coupling.groups:
        mask[group.offset] = True
    return mask


def check_feasible(model: CostModel, budget: Budget) -> tuple[Cost, Cost]:
    """The dense cost and the smallest; raises InfeasibleBudget naming the range that can be met."""
    dense = model.count(torch.ones(model.coupling.size, dtype=torch.bool))
    smallest = model.count(smallest_mask(model))
    for kind, limit in budget.limits.items():
        low, high = getattr(smallest, kind), getattr(dense, kind)
        if limit < low:
            raise InfeasibleBudget(
                f"budget.max_{kind}",
                f"max_{kind} is {limit:,}; the smallest network that can be returned has {low:,} {kind}, "
                f"so it must be between {low:,} and {high:,}",
            )
    return dense, smallest


@dataclass(kw_only=True, slots=True)
class Multipliers:
    """One multiplier per limit, driving the expected cost along a path from where it was to the limit.

    The violation v = log(E[cost] / target) drives lambda = I + P v, dI = gain v dt.  The target falls
    geometrically from the first expected cost to the limit, where it arrives at ARRIVAL.  Until then
    lambda >= 0; afterwards it may push the other way, because what the budget allows is there to be used.
    """

    limits: dict[str, int]
    first: dict[str, float] = field(default_factory=dict)
    integral: dict[str, float] = field(default_factory=dict)
    value: dict[str, float] = field(default_factory=dict)

    def update(self, expected: Mapping[str, float], progress: float, dt: float) -> None:
        """Move every multiplier, given E[cost] by kind; `progress` and `dt` are shares of stage 2."""
        low = 0.0 if progress < ARRIVAL else -INTEGRAL_LIMIT
        for kind, limit in self.limits.items():
            first = self.first.setdefault(kind, max(expected[kind], limit))
            target = first * (limit / first) ** min(1.0, progress / ARRIVAL)
            violation = math.log(expected[kind] / target)
            integral = self.integral.get(kind, 0.0) + INTEGRAL_GAIN * violation * dt
            self.integral[kind] = min(max(integral, low), INTEGRAL_LIMIT)
            self.value[kind] = max(low, self.integral[kind] + PROPORTIONAL_GAIN * violation)


def expected_costs(model: CostModel, pi: Tensor, budget: Budget) -> dict[str, Tensor]:
    """E[cost] of every limited kind; differentiable in `pi` (G,)."""
    costs = model.expected(pi)
    return {kind: costs[COST_KINDS.index(kind)] for kind in budget.limits}


def uniform_probability(model: CostModel, budget: Budget) -> Tensor:
    """The one probability (G,) at which every gate open meets the budget in expectation, by bisection."""
    low, high = 0.0, 1.0
    for _ in range(30):
        middle = (low + high) / 2
        costs = expected_costs(model, _uniform(model, middle), budget)
        met = all(costs[kind] <= limit for kind, limit in budget.limits.items())
        low, high = (middle, high) if met else (low, middle)
    return _uniform(model, max(low, 1e-3))


def _uniform(model: CostModel, probability: float) -> Tensor:
    return torch.full((model.coupling.size,), probability, dtype=torch.float64)


@dataclass(frozen=True, kw_only=True, slots=True)
class Hardened:
    """A closed mask (G,) that meets the budget, its cost, that before repair, and how many units repair changed."""

    mask: Tensor
    cost: Cost
    before: Cost
    changed: int


def harden(model: CostModel, budget: Budget, mask: Tensor, scores: Tensor) -> Hardened:
    """Repair `mask` (G,) until it meets the budget exactly and no sleeping unit fits in what is left.

    Units leave in the order of rising `scores` (G,) and come back in the order of falling ones; every group
    keeps a unit.
    """
    start = model.coupling.close(mask)
    repair = _Repair(model, budget, scores)
    alive = repair.fill(repair.shrink(repair.populate(mask)))
    return Hardened(
        mask=alive,
        cost=model.count(alive),
        before=model.count(start),
        changed=int((alive != start).sum()),
    )


class _Repair:
    def __init__(self, model: CostModel, budget: Budget, scores: Tensor) -> None:
        self.model, self.budget, self.scores = model, budget, scores
        self.coupling = model.coupling
        self.order = scores.argsort(descending=True).tolist()

    def fits(self, mask: Tensor) -> bool:
        return fits(self.model.count(mask), self.budget)

    def populate(self, mask: Tensor) -> Tensor:
        """Closed, and with the best unit of every group that has none left."""
        alive = self.coupling.close(mask)
        for group in self.coupling.groups:
            if not alive[group.slice].any():
                best = group.offset + int(self.scores[group.slice].argmax())
                alive = self.wake(alive, best)
        return alive

    def wake(self, alive: Tensor, unit: int) -> Tensor:
        """Open a unit together with what it needs: its channel, or its channel's best feature."""
        alive = alive.clone()
        alive[unit] = True
        group = self.coupling.group_of(unit)
        if group.parent is not None:
            parent = self.coupling.by_name[group.parent]
            alive[parent.offset + (unit - group.offset) // group.per_parent] = True
        child = self.coupling.children.get(group.name)
        if child is not None:
            first = child.offset + (unit - group.offset) * child.per_parent
            own = slice(first, first + child.per_parent)
            if not alive[own].any():
                alive[first + int(self.scores[own].argmax())] = True
        return alive

    def shrink(self, alive: Tensor) -> Tensor:
        """Close the lowest-scored units until the budget is met: the fewest, found by bisection."""
        removable = [unit for unit in reversed(self.order) if alive[unit]]
        low, high = 0, len(removable)
        while low < high:
            middle = (low + high) // 2
            if self.fits(self.without(alive, removable[:middle])):
                high = middle
            else:
                low = middle + 1
        return self.without(alive, removable[:low])

    def without(self, alive: Tensor, units: list[int]) -> Tensor:
        alive = alive.clone()
        alive[units] = False
        return self.populate(alive)

    def fill(self, alive: Tensor) -> Tensor:
        """Open sleeping units, best first, wherever one fits."""
        # one pass is enough: a unit that does not fit now does not fit after others were opened
        for unit in self.order:
            if not alive[unit] and self.fits(larger := self.wake(alive, unit)):
                alive = larger
        return alive
