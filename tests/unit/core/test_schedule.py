"""The three stages and k."""

import math

import pytest

from npn_core.config import KSchedule
from npn_core.errors import InvalidInput
from npn_core.progress import Stage
from npn_core.schedule import EARLY, FAR, RATES, Rates, Schedule, half_cosine, rates_of


@pytest.mark.parametrize("halvings", [-1.0, 0.5, 1.0, 2.5, 6.0])
@pytest.mark.parametrize("epochs", [1, 2, 3, 4, 5, 10, 20, 57])
@pytest.mark.parametrize("rates", [*RATES.values(), *EARLY.values()])
def test_every_epoch_has_its_stage_in_order(rates: Rates, epochs: int, halvings: float) -> None:
    """Dense, plastic, fine-tune, without going back; from 4 epochs on each has one at least."""
    schedule = Schedule.of(epochs, KSchedule(), halvings, rates)
    stages = [schedule.stage(epoch) for epoch in range(epochs)]
    order = [Stage.DENSE, Stage.PLASTIC, Stage.FINE_TUNE]
    assert stages == sorted(stages, key=order.index)
    assert epochs < 4 or set(stages) == set(order)


def test_fractions_are_kept() -> None:
    """Of 20 epochs, a quarter and 45 % by fractions."""
    schedule = Schedule.of(20, KSchedule(dense_fraction=0.25, plastic_fraction=0.45), 1.0)
    assert (schedule.dense, schedule.plastic, schedule.epochs) == (5, 14, 20)


def test_a_distant_budget_takes_a_longer_stage_2() -> None:
    """Of 30 epochs: a tenth per halving of the cost, three tenths at most, and stage 3 begins in the middle."""
    schedules = [Schedule.of(30, KSchedule(), halvings) for halvings in (0.1, 1.0, 2.0, 3.0, 8.0)]
    assert [one.plastic - one.dense for one in schedules] == [3, 3, 6, 9, 9]
    assert {one.plastic for one in schedules} == {15}


def test_stage_2_has_two_epochs_where_stage_1_keeps_one() -> None:
    """However near the budget is: of few epochs on few samples one would be over before a gate has moved."""
    stages = [Schedule.of(epochs, KSchedule(), 0.5).stage_epochs.values() for epochs in (4, 6, 8, 10)]
    assert [tuple(one) for one in stages] == [(1, 1, 2), (1, 2, 3), (2, 2, 4), (3, 2, 5)]


def test_sgd_hardens_a_new_network_early() -> None:
    """A tenth of the epochs for the dense network, whose rate does not fall, a twentieth per halving for the gates.

    Five epochs together at least, where that is no more than half of all.
    """
    schedules = [Schedule.of(40, KSchedule(), halvings, EARLY["sgd"]) for halvings in (1.0, 2.0, 6.0, 9.0)]
    assert [(one.dense, one.plastic) for one in schedules] == [(4, 6), (4, 8), (4, 16), (4, 16)]
    few = [Schedule.of(epochs, KSchedule(), 1.0, EARLY["sgd"]) for epochs in (30, 20, 10, 6)]
    assert [(one.dense, one.plastic) for one in few] == [(3, 5), (3, 5), (3, 5), (1, 3)]
    assert rates_of("sgd", False, 1.0) is EARLY["sgd"]
    assert rates_of("sgd", True, 8.0) is RATES["sgd"]
    assert [EARLY["sgd"].dense(progress) for progress in (0.0, 0.5, 1.0)] == [1.0, 1.0, 1.0]
    assert [RATES["sgd"].teaches, EARLY["sgd"].teaches] == [True, False]


def test_adam_hardens_early_where_the_budget_is_far() -> None:
    """A new network after a fifth of the epochs, or six where that is no more than half; half of it is stage 2."""
    schedules = [Schedule.of(epochs, KSchedule(), FAR, EARLY["adam"]) for epochs in (10, 20, 60)]
    assert [(one.dense, one.plastic) for one in schedules] == [(2, 5), (3, 6), (6, 12)]
    assert rates_of("adam", False, FAR) is EARLY["adam"]
    assert rates_of("adam", False, FAR - 0.1) is RATES["adam"]
    assert rates_of("adam", True, FAR) is RATES["adam"]
    assert EARLY["adam"].teaches


def test_the_last_eighth() -> None:
    """Of all epochs, in stage 3 alone; where the dense network is measured of its own epochs, too."""

    def last(schedule: Schedule) -> list[int]:
        return [epoch for epoch in range(schedule.epochs) if schedule.is_last(epoch)]

    counts = {epochs: len(last(Schedule.of(epochs, KSchedule(), 1.0))) for epochs in (1, 4, 10, 16, 30, 40)}
    assert counts == {1: 0, 4: 0, 10: 1, 16: 2, 30: 4, 40: 5}
    assert last(Schedule.of(30, KSchedule(), 1.0, EARLY["sgd"])) == [26, 27, 28, 29]
    late = KSchedule(dense_fraction=0.5, plastic_fraction=0.45)
    assert last(Schedule.of(40, late, 1.0)) == [38, 39]
    searched = Schedule.of(16, KSchedule(), 1.0, dense_first=True)
    assert last(searched) == [14, 15, searched.epochs - 2, searched.epochs - 1]


def test_one_fraction_given() -> None:
    """The other one is fitted to it."""
    only_dense = Schedule.of(10, KSchedule(dense_fraction=0.9), 8.0)
    assert (only_dense.dense, only_dense.plastic) == (9, 10)
    only_plastic = Schedule.of(10, KSchedule(plastic_fraction=0.8), 8.0)
    assert (only_plastic.dense, only_plastic.plastic) == (0, 8)


def test_k_rises_from_start_to_end() -> None:
    """k never falls, begins at its start and closes at its end, where gates are all but hard."""
    schedule = Schedule.of(10, KSchedule(start=2.0, end=40.0), 1.0)
    ks = [schedule.k(i / 100) for i in range(101)]
    assert ks == sorted(ks)
    assert ks[0] == 2.0
    assert ks[-1] == pytest.approx(40.0)


def test_a_natural_step_is_as_long_in_the_logits_at_any_k() -> None:
    """Its factor in phi times k stays what it was; a k that does not change, 0 and infinity too, leaves it at 1."""
    schedule = Schedule.of(10, KSchedule(start=2.0, end=40.0), 1.0)
    assert [k * schedule.natural_rate(k) for k in (2.0, 7.0, 40.0)] == pytest.approx([2.0, 2.0, 2.0])
    for k in (0.0, 7.0, math.inf):
        assert Schedule.of(10, KSchedule(start=k, end=k), 1.0).natural_rate(k) == 1.0


@pytest.mark.parametrize("k", [0.0, 3.0, math.inf])
def test_constant_k(k: float) -> None:
    """Start and end may be the same, and then also 0 or infinite."""
    schedule = Schedule.of(10, KSchedule(start=k, end=k), 1.0)
    assert {schedule.k(i / 10) for i in range(11)} == {k}
    if k != 3.0:
        with pytest.raises(InvalidInput, match="or start and end be the same"):
            KSchedule(start=k, end=5.0)


def test_learning_rate_factor() -> None:
    """Half a cosine from 1 to the last factor."""
    assert [half_cosine(p) for p in (0, 0.5, 1)] == pytest.approx([1, 0.5, 0])
    assert [half_cosine(p, last=0.2) for p in (0, 0.5, 1)] == pytest.approx([1, 0.6, 0.2])
