"""The cost's part of a gate's step: its gradient by enumeration, and where it drives the expected cost."""

import pytest
import torch
from cells import mask_probabilities, masks
from small_networks import conv_network, network
from torch import Tensor, nn

from npn_core.budget import OVERSHOOT, Multipliers, fits
from npn_core.config import Budget, KSchedule
from npn_core.cost import cost_model
from npn_core.gated import Network
from npn_core.gates import Gates
from npn_core.optimizer import GateAdam
from npn_core.pull import first_gates, first_phi, prices, pull
from npn_core.saliency import Saliency
from npn_core.schedule import Schedule

K = 1.7


def flattened() -> Network:
    """Two channels of two features and two neurons: 8 gates."""
    layers = (nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4, 2), nn.ReLU(), nn.Linear(2, 2))
    return network(nn.Sequential(*layers), (1, 3, 4))


@pytest.mark.parametrize("progress", [0.3, 1.0])
def test_pull_is_the_gradient_of_the_priced_cost(progress: float) -> None:
    """d/dphi of sum lambda log E[cost], factor k and closure included, with E by enumeration of all masks."""
    net, budget = flattened(), Budget(max_params=8, max_macs=6)
    costs, multipliers = cost_model(net.graph, net.coupling), Multipliers(limits=budget.limits)
    phi = torch.randn(8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    gates = Gates(phi=phi.clone(), awake=torch.ones(8, dtype=torch.bool))
    counts = [costs.count(mask) for mask in masks(8)]
    found = pull(costs, budget, multipliers, gates, K, progress, 0.01)

    lambdas = multipliers.value
    assert all(value != 0 for value in lambdas.values())
    variable = phi.clone().requires_grad_()
    probabilities = mask_probabilities(torch.sigmoid(K * variable))
    total = torch.zeros((), dtype=torch.float64)
    for kind, multiplier in lambdas.items():
        table = torch.tensor([getattr(count, kind) for count in counts], dtype=torch.float64)
        total = total + multiplier * (probabilities @ table).log()
    expected = torch.autograd.grad(total, variable)[0]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)
    assert bool((found > 0).all())  # above budget, every phi is to fall
    assert torch.equal(gates.phi, phi)


def test_prices_are_relative_costs_of_a_unit() -> None:
    """Doubling a group's gates costs its price per unit: d log E[cost] / d log pi, per expected unit."""
    net, budget = flattened(), Budget(max_params=20)
    costs = cost_model(net.graph, net.coupling)
    pi = torch.tensor([0.5, 0.5, 0.3, 0.3, 0.3, 0.3, 0.8, 0.8], dtype=torch.float64)
    found = prices(costs, budget, pi)
    for group in net.coupling.groups:
        step = 1e-6

        def log_cost(change: float, group: slice = group.slice) -> Tensor:
            scaled = pi.clone()
            scaled[group] *= 1 + change
            return costs.expected(scaled)[0].log()

        slope = ((log_cost(step) - log_cost(-step)) / (2 * step)).item()
        assert found[group.slice].tolist() == pytest.approx(
            [slope / pi[group.slice].sum().item()] * group.size
        )


def wide() -> tuple[Network, Saliency]:
    """Sixty neurons, each worth more than the one before it, and four inputs that are worth much."""
    net = network(nn.Sequential(nn.Linear(4, 60), nn.ReLU(), nn.Linear(60, 2)), (4,))
    total = torch.arange(net.coupling.size, dtype=torch.float64)
    total[:4] = 1e6
    return net, Saliency(total=total, batches=1)


def test_stage_2_chooses_from_so_many_budgets() -> None:
    """Of a network far above its budget the best units are awake; the others are below them, in their order."""
    net, saliency = wide()
    costs, budget = cost_model(net.graph, net.coupling), Budget(max_params=18)
    found = first_gates(saliency, Gates.open(net.coupling.size, 1.0), costs, budget)
    reach = Budget(max_params=int(OVERSHOOT * 18))
    assert fits(costs.count(found.awake), reach)
    assert found.awake[:4].all()
    assert found.awake[4:].tolist() == sorted(found.awake[4:].tolist())
    asleep = found.phi[~found.awake]
    assert len(asleep) > 5
    assert float(asleep.max()) < float(found.phi[found.awake].min())
    assert (asleep.diff() >= 0).all()


def test_stage_2_keeps_a_network_that_is_no_larger() -> None:
    """Nothing hibernates that did not before, and phi is what the saliency says."""
    net, saliency = wide()
    costs, budget = cost_model(net.graph, net.coupling), Budget(max_params=200)
    gates = Gates.open(net.coupling.size, 1.0)
    gates.awake[4:11] = False
    found = first_gates(saliency, gates, costs, budget)
    assert torch.equal(found.awake, gates.awake)
    expected = first_phi(saliency, gates, costs, budget)
    assert torch.equal(found.phi[gates.awake], expected[gates.awake])


@pytest.mark.parametrize("max_params", [120, 300, 600])
def test_the_expected_cost_arrives_at_the_budget(max_params: int) -> None:
    """With noise for a loss, stage 2 ends with expected and hard cost within 5 % or one unit of the budget."""
    net, budget = conv_network(), Budget(max_params=max_params)
    costs, multipliers = cost_model(net.graph, net.coupling), Multipliers(limits=budget.limits)
    steps, lr = 600, 0.02
    schedule = Schedule.of(4, KSchedule(dense_fraction=0.25, plastic_fraction=0.25), 1.0)
    generator = torch.Generator().manual_seed(0)
    gates = Gates.open(net.coupling.size, 1.5)
    gates.phi += 0.7 * torch.randn(gates.phi.shape, generator=generator, dtype=torch.float64)
    adam = GateAdam(limit=3.0, first=torch.zeros_like(gates.phi))
    for step in range(steps):
        k = schedule.k(step / steps)
        noise = torch.randn(gates.phi.shape, generator=generator, dtype=torch.float64)
        pulled = pull(costs, budget, multipliers, gates, k, step / steps, 1 / steps)
        price = prices(costs, budget, gates.probabilities(k))
        adam.step(gates.phi, noise, pulled, price, gates.awake, lr)
    expected = costs.expected(gates.probabilities(k))[0].item()
    mask = gates.harden()
    hard = costs.count(mask).params
    flips = mask ^ torch.eye(len(mask), dtype=torch.bool)
    unit = max(abs(costs.count(flip).params - hard) for flip in flips)
    assert abs(expected - max_params) <= max(0.05 * max_params, unit)
    assert abs(hard - max_params) <= max(0.05 * max_params, unit)
