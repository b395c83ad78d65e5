"""Stage 2's gates: phi follows the loss and the budget, and where that leads is told on the way and at the end."""

from collections.abc import Mapping

from torch import Tensor

from .budget import expected_costs
from .config import Budget
from .cost import CostModel
from .course import Course
from .estimators import ESTIMATORS
from .pace import check, is_due, missed
from .progress import Stage
from .pull import first_phi, prices, pull
from .state import LoopState


def move(
    state: LoopState, costs: CostModel, budget: Budget, course: Course, gradient: Tensor, progress: float
) -> tuple[str, ...]:
    """phi follows the loss's `gradient` (G,) and the multipliers' pull, at `progress` within stage 2; warnings."""
    gates, training, estimator = state.gates, course.training, ESTIMATORS[course.training.estimator]
    dt = estimator.every / state.meter.ahead[Stage.PLASTIC]
    lr = estimator.every * training.gate_lr
    lr *= course.schedule.natural_rate(state.k) if estimator.natural else 1.0
    pulled = pull(costs, budget, state.multipliers, gates, state.k, progress, dt, natural=estimator.natural)
    price = prices(costs, budget, gates.probabilities(state.k))
    state.estimates.add(gradient)
    state.gate_adam.step(gates.phi, gradient, pulled, price, gates.awake, lr)
    if not is_due(progress, dt):
        return ()
    expected = expected_costs(costs, gates.probabilities(state.k), budget)
    return check(state.multipliers, expected, progress, _first_and_now(state, costs, budget))


def arrival(
    state: LoopState, costs: CostModel, budget: Budget, expected: Mapping[str, Tensor]
) -> tuple[str, ...]:
    """Warnings of a stage 2 that is over and ended at these `expected` costs, by kind."""
    return missed(budget.limits, expected, _first_and_now(state, costs, budget))


def _first_and_now(state: LoopState, costs: CostModel, budget: Budget) -> tuple[Tensor, Tensor]:
    return first_phi(state.saliency, state.gates, costs, budget), state.gates.phi
