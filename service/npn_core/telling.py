"""The state of the loop as the progress that watchers see."""

import math

from .config import Budget
from .cost import CostModel
from .observe import cost_progress, group_progress
from .progress import GroupProgress, Progress, Stage
from .state import LoopState


def groups_of(state: LoopState, costs: CostModel) -> tuple[GroupProgress, ...]:
    """How every group stands."""
    steps = state.gate_adam.steps
    return group_progress(costs.coupling, state.gates, state.k, state.mask, state.estimates, steps)


def progress_of(
    state: LoopState, costs: CostModel, budget: Budget, *, epochs: int, loss: float, past: int = 0
) -> Progress:
    """Where the loop is of `epochs`, with the loss of its last step, after `past` steps of earlier trials."""
    mask = state.mask
    pi = state.gates.probabilities(state.k) if math.isfinite(state.k) else mask.double()
    prepared = state.stage is not Stage.PREPARE
    return Progress(
        step=past + state.meter.step,
        steps=past + state.meter.steps,
        epoch=state.epoch + prepared,
        epochs=epochs,
        stage=state.stage,
        k=state.k,
        loss=loss,
        metrics=state.metrics,
        costs=cost_progress(costs, budget, pi, mask, state.multipliers.value),
        groups=groups_of(state, costs),
        samples_per_second=state.meter.rate,
        time_left=state.meter.time_left(state.stage),
        warning="" if prepared else " ".join(state.warnings),
    )
