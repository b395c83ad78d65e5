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
from .groups import FIXED, Group
from .progress import Cost
from .units import Kind

ARRIVAL = 0.7  # the share of stage 2 at which the expected cost is to be at the limit
PROPORTIONAL_GAIN = 5.0
INTEGRAL_GAIN = 40.0  # per whole stage 2
INTEGRAL_LIMIT = 20.0
GAIN_LIMIT = 64.0
OVERSHOOT = 12.0  # times the budget: what stage 2 chooses from, where the network is larger or grows


def fits(cost: Cost, budget: Budget) -> bool:
    """Whether every limit holds."""
    return all(getattr(cost, kind) <= limit for kind, limit in budget.limits.items())


def halvings(dense: Cost, budget: Budget) -> float:
    """How often the budget halves the cost of the whole network: log2(cost / limit), of the limit that asks most."""
    return max(math.log2(getattr(dense, kind) / limit) for kind, limit in budget.limits.items())


def smallest_mask(model: CostModel, round_to: int = 1) -> Tensor:
    """A mask of as few units as make a network: (G,) bool; one along every axis, `round_to` in every group.

    Where units are single weights none of them: what is left are the parameters that are no units.
    """
    none = torch.zeros(model.coupling.size, dtype=torch.bool)
    if model.coupling.weights:
        return none
    return _Repair(
        model, Budget(max_params=1), torch.zeros(len(none), dtype=torch.float64), round_to
    ).populate(none)


def check_feasible(
    model: CostModel, budget: Budget, round_to: int = 1, *, grows: bool = False
) -> tuple[Cost, Cost]:
    """The dense cost and the smallest; raises InfeasibleBudget naming the range that can be met.

    A network that `grows` may be given more than it has.
    """
    dense = model.count(torch.ones(model.coupling.size, dtype=torch.bool))
    smallest = model.count(smallest_mask(model, round_to))
    for kind, limit in budget.limits.items():
        low, high = getattr(smallest, kind), getattr(dense, kind)
        if limit < low:
            met = f"at least {low:,}" if grows else f"between {low:,} and {high:,}"
            raise InfeasibleBudget(
                f"budget.max_{kind}",
                f"max_{kind} is {limit:,}; the smallest network that can be returned has {low:,} {kind}, "
                f"so it must be {met}",
            )
    return dense, smallest


@dataclass(kw_only=True, slots=True)
class Multipliers:
    """One multiplier per limit, driving the expected cost along a path from where it was to the limit.

    The violation v = log(E[cost] / target) drives lambda = I + P v, dI = gain v dt.  The target falls
    geometrically from the first expected cost to the limit, where it arrives at ARRIVAL.  Until then
    lambda >= 0; afterwards it may push the other way, because what the budget allows is there to be used.
    `gain` multiplies lambda, by kind, where it was raised.
    """

    limits: dict[str, int]
    first: dict[str, float] = field(default_factory=dict)
    integral: dict[str, float] = field(default_factory=dict)
    value: dict[str, float] = field(default_factory=dict)
    gain: dict[str, float] = field(default_factory=dict)

    def raise_gain(self, kind: str) -> None:
        """Pull twice as hard as until now, at most GAIN_LIMIT times as hard as at first."""
        self.gain[kind] = min(2 * self.gain.get(kind, 1.0), GAIN_LIMIT)

    def update(self, expected: Mapping[str, float], progress: float, dt: float) -> None:
        """Move every multiplier, given E[cost] by kind; `progress` and `dt` are shares of stage 2."""
        low = 0.0 if progress < ARRIVAL else -INTEGRAL_LIMIT
        for kind, limit in self.limits.items():
            first = self.first.setdefault(kind, max(expected[kind], limit))
            target = first * (limit / first) ** min(1.0, progress / ARRIVAL)
            violation = math.log(expected[kind] / target)
            integral = self.integral.get(kind, 0.0) + INTEGRAL_GAIN * violation * dt
            self.integral[kind] = min(max(integral, low), INTEGRAL_LIMIT)
            steered = max(low, self.integral[kind] + PROPORTIONAL_GAIN * violation)
            self.value[kind] = self.gain.get(kind, 1.0) * steered


def expected_costs(model: CostModel, pi: Tensor, budget: Budget) -> dict[str, Tensor]:
    """E[cost] of every limited kind; differentiable in `pi` (G,)."""
    costs = model.expected(pi)
    return {kind: costs[COST_KINDS.index(kind)] for kind in budget.limits}


def uniform_probability(model: CostModel, budget: Budget, awake: Tensor) -> Tensor:
    """The one probability (G,) of every `awake` gate at which the budget is met in expectation, by bisection."""
    low, high = 0.0, 1.0
    for _ in range(30):
        middle = (low + high) / 2
        costs = expected_costs(model, middle * awake.double(), budget)
        met = all(costs[kind] <= limit for kind, limit in budget.limits.items())
        low, high = (middle, high) if met else (low, middle)
    return max(low, 1e-3) * awake.double()


@dataclass(frozen=True, kw_only=True, slots=True)
class Hardened:
    """A closed mask (G,) that meets the budget, its cost, that before repair, and how many units repair changed."""

    mask: Tensor
    cost: Cost
    before: Cost
    changed: int


def harden(model: CostModel, budget: Budget, mask: Tensor, scores: Tensor, round_to: int = 1) -> Hardened:
    """Repair `mask` (G,) until it meets the budget exactly and no sleeping unit fits in what is left.

    Units leave in the order of rising `scores` (G,) and come back in the order of falling ones; every axis of
    the network keeps a unit.  Those with a score of -inf do not come back.

    With `round_to`, channels, neurons and embedding entries stay in multiples of it,
    or all of them; where a group has fewer, all of them.
    """
    if model.coupling.weights:
        return _keep_best(model, budget, mask, scores)
    start = model.coupling.close(mask)
    repair = _Repair(model, budget, scores, round_to)
    alive = repair.fill(repair.shrink(repair.populate(mask)))
    return Hardened(
        mask=alive,
        cost=model.count(alive),
        before=model.count(start),
        changed=int((alive != start).sum()),
    )


def _keep_best(model: CostModel, budget: Budget, mask: Tensor, scores: Tensor) -> Hardened:
    """The best scored weights that the budget has room for: each costs one parameter, and none needs another."""
    room = budget.limits["params"] - model.count(torch.zeros_like(mask)).params
    best = scores.topk(min(room, len(scores))).indices
    alive = torch.zeros_like(mask)
    alive[best[scores[best] > -math.inf]] = True
    return Hardened(
        mask=alive, cost=model.count(alive), before=model.count(mask), changed=int((alive != mask).sum())
    )


class _Repair:
    """Moves from one closed mask to the next.

    A step (tuple of units) opens or closes at once: one unit, or `round_to` of a group.
    """

    def __init__(self, model: CostModel, budget: Budget, scores: Tensor, round_to: int) -> None:
        self.model, self.budget, self.scores, self.round_to = model, budget, scores, round_to
        self.coupling = model.coupling
        self.order = scores.argsort(descending=True).tolist()

    def step_of(self, group: Group) -> int:
        """How many units of the group leave or come together; heads and features are not rounded."""
        rounded = group.kind not in (Kind.FEATURE, Kind.HEAD)
        return min(self.round_to, group.size) if rounded else 1

    def fits(self, mask: Tensor) -> bool:
        return fits(self.model.count(mask), self.budget)

    def ranked(self, group: Group) -> list[int]:
        """The group's units, best first."""
        order = self.scores[group.slice].argsort(descending=True, stable=True) + group.offset
        return [int(unit) for unit in order]

    def populate(self, mask: Tensor) -> Tensor:
        """Closed, with the best unit of every axis that is empty, and every group a multiple of its step."""
        alive = self.coupling.close(mask)
        for units in self.coupling.own_units:
            if not alive[units].any():
                alive = self.wake(alive, self.best(units, alive))
        for group in self.coupling.groups:
            alive = self.round(alive, group)
        return self.coupling.close(alive)

    def round(self, alive: Tensor, group: Group) -> Tensor:
        """Close the worst units above a multiple of the group's step; open the best where axes need them all."""
        alive, step = alive.clone(), self.step_of(group)
        live = [unit for unit in self.ranked(group) if alive[unit]]
        excess = 0 if len(live) < step or len(live) == group.size else len(live) % step
        for unit in reversed(live):
            if excess and not self.is_last(alive, unit):
                alive[unit] = False
                excess -= 1
        live_now = int(alive[group.slice].sum())
        missing = max(step - live_now, -live_now % step if live_now < group.size else 0)
        for _ in range(min(missing, group.size - live_now)):
            sleeping = torch.arange(group.offset, group.offset + group.size)[~alive[group.slice]]
            alive = self.wake(alive, self.best(sleeping, alive))
        return alive

    def is_rounded(self, alive: Tensor, group: Group) -> bool:
        """Whether the group has a multiple of its step, or all of its units."""
        live = int(alive[group.slice].sum())
        return live % self.step_of(group) == 0 or live == group.size

    def is_last(self, alive: Tensor, unit: int) -> bool:
        """Whether an axis has no other unit left."""
        return any(unit in units and int(alive[units].sum()) == 1 for units in self.coupling.own_units)

    def best(self, units: Tensor, alive: Tensor) -> int:
        """The one with the highest score, of those that open no other unit if there are any."""
        parents = self.coupling.parent[units]
        inside = units[(parents == FIXED) | alive[parents]]
        candidates = inside if len(inside) else units
        return int(candidates[self.scores[candidates].argmax()])

    def wake(self, alive: Tensor, unit: int) -> Tensor:
        """Open a unit together with what it needs: the unit that it lies in, or the best feature inside."""
        alive = alive.clone()
        alive[unit] = True
        parent = int(self.coupling.parent[unit])
        if parent != FIXED:
            alive[parent] = True
        inside = self.coupling.children.get(unit)
        if inside is not None and not alive[inside].any():
            alive[inside[self.scores[inside].argmax()]] = True
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
        """Open sleeping units, best first, wherever they fit."""
        larger = self.fill_once(alive)
        # one pass is enough for single units: what does not fit now does not fit after others were opened
        while self.round_to > 1 and not torch.equal(larger, alive):
            alive, larger = larger, self.fill_once(larger)
        return larger

    def fill_once(self, alive: Tensor) -> Tensor:
        """Try every step."""
        room, marginal = self.room(alive), self.marginal(alive)
        for step in self.steps(alive):
            # the exact count is dear: leave out what its lower bound, less rounding, rules out
            if bool((marginal[:, list(step)].sum(dim=1) - 0.5 > room).any()):
                continue
            larger = alive
            for unit in step:
                larger = self.wake(larger, unit)
            if self.fits(larger) and self.is_rounded(larger, self.coupling.group_of(step[0])):
                alive, room, marginal = larger, self.room(larger), self.marginal(larger)
        return alive

    def steps(self, alive: Tensor) -> list[tuple[int, ...]]:
        """What can be opened, best first."""
        steps: list[tuple[int, ...]] = []
        for group in self.coupling.groups:
            sleeping = [
                unit for unit in self.ranked(group) if not alive[unit] and self.scores[unit] > -math.inf
            ]
            size = self.step_of(group)
            steps += [tuple(sleeping[at : at + size]) for at in range(0, len(sleeping), size)]
        if self.round_to > 1:  # a feature must not open a unit alone
            steps = [
                s for s in steps if self.coupling.parent[s[0]] == FIXED or alive[self.coupling.parent[s[0]]]
            ]
        return sorted(steps, key=lambda step: -float(self.scores[list(step)].mean()))

    def room(self, alive: Tensor) -> Tensor:
        """What the budget leaves of each limited cost."""
        cost = self.model.count(alive)
        left = [limit - getattr(cost, kind) for kind, limit in self.budget.limits.items()]
        return torch.tensor(left, dtype=torch.float64)

    def marginal(self, alive: Tensor) -> Tensor:
        """What opening each gate alone would add to each limited cost, (kinds, G).

        The expected cost is linear in each gate, so this is its derivative.  Several gates add at least the sum.
        """
        p = alive.double().requires_grad_()
        costs = expected_costs(self.model, p, self.budget).values()
        return torch.stack([torch.autograd.grad(cost, p, retain_graph=True)[0] for cost in costs])
