"""A stage 2 that will not arrive is seen in time, said, and hurried."""

import pytest
import torch
from small_networks import conv_network

from npn_core.budget import GAIN_LIMIT, Multipliers
from npn_core.config import Budget, KSchedule
from npn_core.cost import cost_model
from npn_core.gates import Gates
from npn_core.optimizer import GateAdam
from npn_core.pace import FIRST_CHECK, expected_at_end, hurry, is_due, is_still
from npn_core.pull import prices, pull
from npn_core.schedule import Schedule


def multipliers() -> Multipliers:
    """On the way from 1,000 parameters to 100, at the beginning."""
    found = Multipliers(limits={"params": 100})
    found.update({"params": 1_000.0}, 0.0, 0.01)
    return found


def test_checks_come_at_even_shares() -> None:
    """Eight from 0.6 of stage 2 on, however many steps it has; every step where it has fewer."""
    for steps in (200, 1_000, 1_237):
        due = [step / steps for step in range(steps) if is_due(step / steps, 1 / steps)]
        assert len(due) == 8
        assert due[0] == pytest.approx(FIRST_CHECK, abs=1 / steps)
    assert [step for step in range(5) if is_due(step / 5, 1 / 5)] == [3, 4]


def test_the_pace_so_far_is_extrapolated() -> None:
    """A cost that has halved in half of the stage will be a quarter at its end."""
    assert expected_at_end(1_000.0, 500.0, 0.5) == pytest.approx(250)
    assert expected_at_end(1_000.0, 1_000.0, 0.5) == 1_000


def test_who_is_in_time_is_left_alone() -> None:
    """At half of stage 2 a tenth is reached at the end by 316; a little above is tolerated."""
    found = multipliers()
    assert not list(hurry(found, {"params": 320.0}, 0.5))
    assert not found.gain


def test_who_is_late_is_told_once_and_pulled_harder_each_time() -> None:
    """The warning has the numbers; the gain doubles up to its limit, and multiplies lambda."""
    found = multipliers()
    (warning,) = hurry(found, {"params": 500.0}, 0.5)
    assert "250 params" in warning
    assert "max_params 100" in warning
    assert not list(hurry(found, {"params": 500.0}, 0.5))
    assert found.gain == {"params": 4.0}
    alone = multipliers()
    for one in (found, alone):
        one.update({"params": 500.0}, 0.5, 0.01)
    assert found.value["params"] == pytest.approx(4 * alone.value["params"])
    for _ in range(10):
        list(hurry(found, {"params": 500.0}, 0.5))
    assert found.gain == {"params": GAIN_LIMIT}


def test_gates_that_stand_still() -> None:
    """None has changed sides, none has moved a tenth."""
    phi = torch.tensor([0.02, -1.0, 2.0])
    assert is_still(phi, phi + 0.09)
    assert not is_still(phi, phi + 0.11)
    assert not is_still(phi, phi - 0.03)


@pytest.mark.parametrize("hurried", [False, True])
def test_hurrying_reaches_a_budget_that_would_be_missed(hurried: bool) -> None:
    """With a hundredth of the usual rate the hard cost ends far above the limit; hurried, within 5 % or one unit."""
    net, limit = conv_network(), 120
    budget = Budget(max_params=limit)
    costs, found = cost_model(net.graph, net.coupling), Multipliers(limits=budget.limits)
    steps, lr = 600, 0.0002
    schedule = Schedule.of(4, KSchedule(dense_fraction=0.25, plastic_fraction=0.25), 1.0)
    generator = torch.Generator().manual_seed(0)
    gates = Gates.open(net.coupling.size, 1.5)
    gates.phi += 0.7 * torch.randn(gates.phi.shape, generator=generator, dtype=torch.float64)
    adam = GateAdam(limit=3.0, first=torch.zeros_like(gates.phi))
    for step in range(steps):
        progress, k = step / steps, schedule.k(step / steps)
        noise = torch.randn(gates.phi.shape, generator=generator, dtype=torch.float64)
        pulled = pull(costs, budget, found, gates, k, progress, 1 / steps)
        price = prices(costs, budget, gates.probabilities(k))
        adam.step(gates.phi, noise, pulled, price, gates.awake, lr)
        if hurried and is_due(progress, 1 / steps):
            list(hurry(found, {"params": costs.expected(gates.probabilities(k))[0].item()}, progress))
    mask = gates.harden()
    hard = costs.count(mask).params
    flips = mask ^ torch.eye(len(mask), dtype=torch.bool)
    unit = max(abs(costs.count(flip).params - hard) for flip in flips)
    if hurried:
        assert abs(hard - limit) <= max(0.05 * limit, unit)
    else:
        assert hard > 1.5 * limit
