"""Budgets: the feasible range, hardening that meets every limit, and the multipliers of stage 2."""

import pytest
import torch
from cells import masks
from hypothesis import given, settings
from hypothesis import strategies as st
from small_networks import conv_network, network, unit_name
from torch import Tensor, nn

from npn_core.budget import (
    ARRIVAL,
    INTEGRAL_LIMIT,
    Multipliers,
    _Repair,
    check_feasible,
    expected_costs,
    fits,
    harden,
    smallest_mask,
    uniform_probability,
)
from npn_core.catalogue import build
from npn_core.config import Budget
from npn_core.cost import CostModel, cost_model
from npn_core.errors import InfeasibleBudget
from npn_core.progress import Cost


def model_of(module: nn.Module, input_shape: tuple[int, ...]) -> CostModel:
    """The cost model of a plain module."""
    net = network(module, input_shape)
    return cost_model(net.graph, net.coupling)


CONV = conv_network()
CONV_MODEL = cost_model(CONV.graph, CONV.coupling)
EVERYTHING = torch.ones(CONV_MODEL.coupling.size, dtype=torch.bool)
DENSE, SMALLEST = CONV_MODEL.count(EVERYTHING), CONV_MODEL.count(smallest_mask(CONV_MODEL))

budgets = st.builds(
    Budget,
    max_params=st.integers(SMALLEST.params, DENSE.params),
    max_macs=st.none() | st.integers(SMALLEST.macs, DENSE.macs),
    max_bytes=st.none() | st.integers(SMALLEST.bytes, DENSE.bytes),
)


def openings(mask: Tensor, unit: int) -> list[Tensor]:
    """Every smallest closed mask that has `unit` (asleep in the closed `mask`) and all that is alive already."""
    coupling = CONV_MODEL.coupling
    channels, features = coupling.by_name["conv2"], coupling.by_name["fc1.in"]
    alive = mask.clone()
    alive[unit] = True
    if features.offset <= unit < features.offset + features.size:
        alive[channels.offset + (unit - features.offset) // 9] = True
    if not channels.offset <= unit < channels.offset + channels.size:
        return [alive]
    first = features.offset + 9 * (unit - channels.offset)
    choices = [alive.clone() for _ in range(9)]
    for feature, choice in enumerate(choices):
        choice[first + feature] = True
    return choices


@settings(max_examples=60, deadline=None)
@given(budget=budgets, seed=st.integers(0, 2**32), share=st.sampled_from([0.0, 0.1, 0.5, 0.9, 1.0]))
def test_hardening_meets_every_limit_and_uses_it(budget: Budget, seed: int, share: float) -> None:
    """Whatever the gates and scores: at or under each limit, a unit in every group, and no sleeping unit fits."""
    generator = torch.Generator().manual_seed(seed)
    mask = torch.rand(EVERYTHING.shape, generator=generator) < share
    scores = torch.randn(EVERYTHING.shape, generator=generator, dtype=torch.float64)
    hardened = harden(CONV_MODEL, budget, mask, scores)
    coupling = CONV_MODEL.coupling
    assert fits(hardened.cost, budget)
    assert hardened.cost == CONV_MODEL.count(hardened.mask)
    assert hardened.before == CONV_MODEL.count(mask)
    assert hardened.changed == int((hardened.mask ^ coupling.close(mask)).sum())
    assert torch.equal(coupling.close(hardened.mask), hardened.mask)
    assert all(bool(hardened.mask[group.slice].any()) for group in coupling.groups)
    for unit in (~hardened.mask).nonzero().flatten().tolist():
        for larger in openings(hardened.mask, unit):
            assert torch.equal(coupling.close(larger), larger)
            assert not fits(CONV_MODEL.count(larger), budget), unit_name(coupling, unit)


def test_a_mask_at_its_budget_is_left_alone() -> None:
    """Repair changes nothing where nothing is wrong."""
    mask = CONV.coupling.close(torch.rand(EVERYTHING.shape, generator=torch.Generator().manual_seed(0)) < 0.6)
    budget = Budget(max_params=CONV_MODEL.count(mask).params)
    hardened = harden(CONV_MODEL, budget, mask, mask.double())
    assert hardened.changed == 0
    assert torch.equal(hardened.mask, mask)


def test_everything_stays_under_a_loose_budget() -> None:
    """A limit above the dense cost removes no unit, and wakes those whose gates were closed."""
    hardened = harden(
        CONV_MODEL, Budget(max_params=10 * DENSE.params), ~EVERYTHING, torch.rand(EVERYTHING.shape)
    )
    assert bool(hardened.mask.all())


@pytest.mark.parametrize("start", [0, 3, 8])
def test_units_leave_and_come_back_by_their_scores(start: int) -> None:
    """Where all units cost the same, those with the highest scores stay, however many were open before."""
    model = model_of(nn.Sequential(nn.Linear(8, 2)), (8,))
    scores = torch.tensor([0.1, 0.9, -0.3, 0.5, 0.8, -2.0, 0.4, 0.0])
    best = scores.argsort(descending=True)
    mask = torch.zeros(8, dtype=torch.bool)
    mask[best[:start]] = True
    hardened = harden(model, Budget(max_params=2 * 4 + 2), mask, scores)
    assert hardened.mask.nonzero().flatten().tolist() == sorted(best[:4].tolist())
    assert hardened.changed == abs(start - 4)


def test_feasible_range() -> None:
    """Dense and smallest cost: one unit in every group."""
    dense, smallest = check_feasible(CONV_MODEL, Budget(max_params=SMALLEST.params))
    assert dense == DENSE
    # conv1, its norm, conv2, its norm, one feature's norm, fc1, fc2
    assert smallest.params == 9 + 2 + 9 + 2 + 2 + 2 + (3 + 3)


@pytest.mark.parametrize("kind", ["params", "macs", "bytes"])
def test_a_budget_below_the_smallest_network_is_refused(kind: str) -> None:
    """The error names the field and the range that can be met."""
    low, high = getattr(SMALLEST, kind), getattr(DENSE, kind)
    with pytest.raises(InfeasibleBudget) as refused:
        check_feasible(CONV_MODEL, Budget(**{f"max_{kind}": low - 1}))
    assert refused.value.field == f"budget.max_{kind}"
    assert refused.value.reason == "BUDGET_INFEASIBLE"
    assert f"between {low:,} and {high:,}" in refused.value.message


def test_a_network_that_grows_has_no_largest_budget() -> None:
    """What it begins with is no limit to what it may be given."""
    with pytest.raises(InfeasibleBudget, match=f"at least {SMALLEST.params}$"):
        check_feasible(CONV_MODEL, Budget(max_params=SMALLEST.params - 1), grows=True)


def test_every_limit_counts() -> None:
    """A budget with several limits holds when all do."""
    cost = Cost(params=10, macs=20, bytes=40)
    assert fits(cost, Budget(max_params=10, max_macs=20, max_bytes=40))
    assert not fits(cost, Budget(max_params=10, max_macs=19))


SMALL = model_of(
    nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(4, 2), nn.ReLU(), nn.Linear(2, 2)), (1, 3, 4)
)


def test_marginal_costs_are_true_increments() -> None:
    """Of every mask and every gate alone: the cost with the gate open less that with it closed, closure included."""
    limits = Budget(max_params=1, max_macs=1, max_bytes=1)
    repair = _Repair(SMALL, limits, torch.zeros(8, dtype=torch.float64), 1)
    for mask in masks(8):
        marginal = repair.marginal(mask)
        for unit in range(8):
            with_unit, without = mask.clone(), mask.clone()
            with_unit[unit], without[unit] = True, False
            more, less = SMALL.count(with_unit), SMALL.count(without)
            added = [getattr(more, kind) - getattr(less, kind) for kind in limits.limits]
            assert marginal[:, unit].tolist() == pytest.approx(added), (mask, unit)


@pytest.mark.parametrize("limit", [16, 20, 27, 33])
def test_no_larger_network_fits(limit: int) -> None:
    """From any mask: no network with more units than the one found, and all of its own, meets the budget."""
    networks = [mask for mask in masks(8) if torch.equal(SMALL.coupling.close(mask), mask)]
    budget = Budget(max_params=limit)
    fitting = torch.stack([mask for mask in networks if fits(SMALL.count(mask), budget)])
    scores = torch.randn(8, generator=torch.Generator().manual_seed(limit), dtype=torch.float64)
    for start in masks(8)[::5]:
        found = harden(SMALL, budget, start, scores).mask
        larger = fitting[(fitting | ~found).all(dim=1)]  # those that have all of its units
        assert larger.tolist() == [found.tolist()]


@settings(max_examples=60, deadline=None)
@given(budget=budgets, seed=st.integers(0, 2**32), round_to=st.sampled_from([2, 3, 4, 5, 8]))
def test_units_stay_in_multiples(budget: Budget, seed: int, round_to: int) -> None:
    """Channels and neurons in multiples of round_to or all of them, small groups whole; features one by one."""
    low = check_feasible(CONV_MODEL, Budget(max_params=10**9), round_to)[1]
    kinds = {kind: max(limit, getattr(low, kind)) for kind, limit in budget.limits.items()}
    budget = Budget(**{f"max_{kind}": limit for kind, limit in kinds.items()})
    generator = torch.Generator().manual_seed(seed)
    mask = torch.rand(EVERYTHING.shape, generator=generator) < 0.5
    scores = torch.randn(EVERYTHING.shape, generator=generator, dtype=torch.float64)
    hardened = harden(CONV_MODEL, budget, mask, scores, round_to)
    assert fits(hardened.cost, budget)
    assert torch.equal(CONV_MODEL.coupling.close(hardened.mask), hardened.mask)
    for name, size in (("conv1", 4), ("conv2", 5), ("fc1", 6)):
        live = int(hardened.mask[CONV_MODEL.coupling.by_name[name].slice].sum())
        assert live == size if size <= round_to else live == size or (live and live % round_to == 0)
    channels = CONV_MODEL.coupling.by_name["conv2"]
    features = hardened.mask[CONV_MODEL.coupling.by_name["fc1.in"].slice].view(5, 9)
    for channel in hardened.mask[channels.slice].nonzero().flatten().tolist():
        for feature in (~features[channel]).nonzero().flatten().tolist():
            larger = openings(hardened.mask, channels.offset + channels.size + 9 * channel + feature)
            assert not any(fits(CONV_MODEL.count(one), budget) for one in larger)


def test_the_smallest_network_follows_round_to() -> None:
    """Two channels and two neurons instead of one each; groups that are smaller than round_to are whole."""
    counts = {
        round_to: [
            int(smallest_mask(CONV_MODEL, round_to)[g.slice].sum()) for g in CONV_MODEL.coupling.groups
        ]
        for round_to in (1, 2, 5, 100)
    }
    assert counts == {1: [1, 1, 1, 1], 2: [2, 2, 2, 2], 5: [4, 5, 5, 5], 100: [4, 5, 5, 6]}


def test_a_budget_that_rounding_forbids_is_refused() -> None:
    """The range is that of networks whose units are multiples of round_to."""
    with pytest.raises(InfeasibleBudget):
        check_feasible(CONV_MODEL, Budget(max_params=SMALLEST.params), 2)
    dense, smallest = check_feasible(CONV_MODEL, Budget(max_params=DENSE.params), 100)
    assert dense == DENSE
    # all channels and neurons; one feature in each channel, its norm and its weights
    assert smallest.params == DENSE.params - 40 * (2 + 6)


@pytest.mark.parametrize("limit", [2_000, 10_000, 100_000])
def test_uniform_probability(limit: int) -> None:
    """Open with this probability, all gates together meet the budget in expectation, and just so."""
    model = model_of(build("lenet5-caffe", {}, input_shape=(1, 28, 28), classes=10, seed=0), (1, 28, 28))
    budget = Budget(max_params=limit)
    awake = torch.ones(model.coupling.size, dtype=torch.bool)
    expected = expected_costs(model, uniform_probability(model, budget, awake), budget)["params"].item()

    assert 0.999 * limit <= expected <= limit


def multipliers(limit: int = 100, expected: float = 1000.0) -> Multipliers:
    """Multipliers that have seen the expected cost at the beginning of stage 2."""
    found = Multipliers(limits={"params": limit})
    found.update({"params": expected}, 0.0, 0.01)
    return found


def test_multipliers_pull_when_the_cost_is_above_its_path() -> None:
    """The path falls geometrically from the first cost to the limit; on it the multiplier rests."""
    on_path, above = multipliers(), multipliers()
    half_way = 1000 * (100 / 1000) ** 0.5
    on_path.update({"params": half_way}, ARRIVAL / 2, 0.01)
    assert on_path.value["params"] == pytest.approx(0)
    above.update({"params": 2 * half_way}, ARRIVAL / 2, 0.01)
    first = above.value["params"]
    above.update({"params": 2 * half_way}, ARRIVAL / 2, 0.01)
    assert 0 < first < above.value["params"]


def test_multipliers_push_back_only_after_arrival() -> None:
    """Before it a cost below the path is good; after it the budget is there to be used."""
    early, late = multipliers(), multipliers()
    early.update({"params": 50.0}, ARRIVAL / 2, 0.01)
    assert early.value["params"] == 0
    late.update({"params": 50.0}, 1.0, 0.01)
    assert late.value["params"] < 0


def test_multipliers_do_not_wind_up() -> None:
    """However long the cost stood above its limit, the pull is bounded and gone soon after it falls below."""
    found = multipliers()
    for _ in range(10_000):
        found.update({"params": 900.0}, 1.0, 0.01)
    assert found.integral["params"] <= INTEGRAL_LIMIT
    for _ in range(100):
        found.update({"params": 50.0}, 1.0, 0.01)
    assert found.value["params"] < 0


def test_every_limit_has_a_multiplier() -> None:
    """They move by their own violations."""
    both = Multipliers(limits={"params": 100, "macs": 100})
    both.update({"params": 200.0, "macs": 50.0}, 1.0, 0.01)
    assert both.value["params"] > 0 > both.value["macs"]
