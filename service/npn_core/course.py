"""How a job trains: its settings filled in, the rates of its weights, the epochs of its stages."""

import math
from dataclasses import dataclass, replace

from .config import Budget, Expansion, Training
from .data import at_last
from .growth import distance
from .optimizer import settled
from .progress import Cost
from .schedule import Rates, Schedule, rates_of

THINNEST_BRANCH = 0.5  # of a new network under SGD, where half of the multiply-adds may stay; by measurement


@dataclass(frozen=True, kw_only=True, slots=True)
class Course:
    """`training` is settled; `rates` and `schedule` follow from it and from how far the budget is."""

    training: Training
    rates: Rates
    schedule: Schedule

    @classmethod
    def of(
        cls,
        training: Training,
        budget: Budget,
        expansion: Expansion | None,
        first: Cost,
        *,
        normed: bool,
        objective: str,
        trained: bool,
    ) -> "Course":
        """That of a network whose awake units cost `first`; the rest as in `optimizer.settled`."""
        complete = settled(training, normed, objective, trained=trained)
        searches = budget.max_accuracy_drop_points is not None
        searched = searches and not trained
        # the trials of a search begin at one dense network: their limits must not move the end of stage 1
        halvings = math.inf if searches and trained else distance(first, budget, expansion)
        dense_counts = trained or searched or expansion is not None
        # far budgets close early because what hibernates costs no time: single weights always do
        far = halvings if training.units == "coupled" else 0.0
        rates = rates_of(complete.optimizer, dense_counts, far)
        schedule = Schedule.of(training.epochs, training.k, halvings, rates, dense_first=searched)
        if complete.thinnest_branch is None:
            narrows = (
                complete.optimizer == "sgd" and complete.units == "coupled" and [*budget.limits] == ["macs"]
            )
            share = thinnest_branch(halvings) if narrows and not dense_counts else 0.0
            complete = replace(complete, thinnest_branch=share)
        return cls(training=complete, rates=rates, schedule=schedule)

    def augment(self, epoch: int) -> str:
        """How the images of an epoch are augmented."""
        given = self.training.augment
        return at_last(given) if self.schedule.is_last(epoch) else given


def thinnest_branch(halvings: float) -> float:
    """The share of its units below which a branch is thin, `halvings` away from the budget.

    It follows the share that every layer of an evenly thinned network keeps, 2^(-halvings / 2).
    """
    return THINNEST_BRANCH * min(1.0, 2 ** ((1 - halvings) / 2))
