"""course.py: what a job's settings come to."""

from typing import Any

import pytest

from npn_core.config import Budget, Expansion, Training
from npn_core.course import THINNEST_BRANCH, Course
from npn_core.progress import Cost
from npn_core.schedule import EARLY, FAR, RATES, Rates

FIRST = Cost(params=2 ** (int(FAR) + 10), macs=1000, bytes=4000)
FAR_BUDGET, NEAR_BUDGET = Budget(max_params=1000), Budget(max_params=2 ** (int(FAR) + 9))
DROP = Budget(max_accuracy_drop_points=0.5)


@pytest.mark.parametrize(
    ("budget", "units", "normed", "trained", "expansion", "rates"),
    [
        (FAR_BUDGET, "coupled", False, False, None, EARLY["adam"]),
        (NEAR_BUDGET, "coupled", False, False, None, RATES["adam"]),
        (FAR_BUDGET, "weights", False, False, None, RATES["adam"]),
        (FAR_BUDGET, "coupled", False, True, None, RATES["adam"]),
        (FAR_BUDGET, "coupled", False, False, Expansion(), RATES["adam"]),
        (DROP, "coupled", False, False, None, RATES["adam"]),
        (NEAR_BUDGET, "coupled", True, False, None, EARLY["sgd"]),
        (NEAR_BUDGET, "weights", True, False, None, EARLY["sgd"]),
        (NEAR_BUDGET, "coupled", True, True, None, RATES["adam"]),
    ],
)
def test_when_the_gates_close(
    budget: Budget, units: str, normed: bool, trained: bool, expansion: Expansion | None, rates: Rates
) -> None:
    """Early in a new network that SGD trains, or whose budget is far and frees coupled units; else as a rule."""
    training = Training(epochs=20, units=units)
    task = training, budget, expansion, FIRST
    course = Course.of(*task, normed=normed, objective="cross_entropy", trained=trained)
    assert course.rates is rates
    assert course.training.optimizer == ("sgd" if normed and not trained else "adam")
    assert course.training.lr is not None


@pytest.mark.parametrize(
    ("budget", "changes", "trained", "expansion", "share"),
    [
        (Budget(max_macs=500), {}, False, None, THINNEST_BRANCH),
        (Budget(max_macs=900), {}, False, None, THINNEST_BRANCH),
        (Budget(max_macs=125), {}, False, None, THINNEST_BRANCH / 2),
        (Budget(max_macs=500), {"thinnest_branch": 0.25}, True, None, 0.25),
        (Budget(max_macs=500), {"optimizer": "adam"}, False, None, 0.0),
        (Budget(max_params=1000), {}, False, None, 0.0),
        (Budget(max_macs=500, max_params=1000), {}, False, None, 0.0),
        (Budget(max_params=1000), {"units": "weights"}, False, None, 0.0),
        (Budget(max_macs=500), {}, True, None, 0.0),
        (Budget(max_macs=500), {}, False, Expansion(), 0.0),
        (DROP, {}, False, None, 0.0),
    ],
)
def test_where_thin_branches_leave(
    budget: Budget, changes: dict[str, Any], trained: bool, expansion: Expansion | None, share: float
) -> None:
    """Where asked; else where SGD trains a new network that is to do with fewer multiply-adds, and no other limit.

    By default the thinner, the thinner the whole network is to be.
    """
    task = Training(epochs=20, **changes), budget, expansion, FIRST
    course = Course.of(*task, normed=True, objective="cross_entropy", trained=trained)
    assert course.training.thinnest_branch == share


def test_a_search_trains_the_dense_network_first() -> None:
    """For all of the job's epochs, unless it came trained."""
    task = Training(epochs=20), DROP, None, FIRST
    found = [
        Course.of(*task, normed=False, objective="cross_entropy", trained=trained).schedule.dense
        for trained in (False, True)
    ]
    assert found[0] == 20
    assert found[1] < 20


@pytest.mark.parametrize(
    ("given", "at_last"), [("none", "none"), ("flip", "flip"), ("crop", "none"), ("crop-flip", "flip")]
)
def test_training_ends_with_images_as_they_are(given: str, at_last: str) -> None:
    """Crops end with the last eighth of the epochs; all else goes on."""
    training = Training(epochs=16, augment=given)
    course = Course.of(
        training, NEAR_BUDGET, None, FIRST, normed=True, objective="cross_entropy", trained=False
    )
    assert [course.augment(epoch) for epoch in range(16)] == [given] * 14 + [at_last] * 2
