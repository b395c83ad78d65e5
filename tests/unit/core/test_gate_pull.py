"""The cost's part of a gate's step: its gradient by enumeration, and where it drives the expected cost."""

import pytest
import torch
from cells import mask_probabilities, masks
from small_networks import CONV_INPUT, conv_network, infos, network
from torch import Tensor, nn

from npn_core.config import Budget, Training
from npn_core.cost import cost_model
from npn_core.data import Data, Split
from npn_core.gated import Network
from npn_core.gates import Gates
from npn_core.objective import Objective
from npn_core.optimizer import GateAdam
from npn_core.progress import DatasetInfo, Stage
from npn_core.report import AppliedPreprocessing
from npn_core.train import Trainer

K = 1.7


def trainer(net: Network, input_shape: tuple[int, ...], budget: Budget) -> Trainer:
    """A trainer at the beginning of stage 2, with data that nobody looks at."""
    x, y = torch.zeros(20, *input_shape), torch.zeros(20, dtype=torch.int64)
    info = DatasetInfo(
        train_samples=20,
        validation_samples=20,
        test_samples=1,
        inputs=infos(input_shape),
        target="classes",
        classes=2,
    )
    data = Data(
        train=Split(x=(x,), y=y),
        validation=Split(x=(x,), y=y),
        info=info,
        preprocessing=AppliedPreprocessing(scale=1.0, mean=(0.0,), std=(1.0,)),
    )
    found = Trainer(
        network=net,
        costs=cost_model(net.graph, net.coupling),
        data=data,
        objective=Objective(kind="cross_entropy", output=0),
        budget=budget,
        training=Training(epochs=4, batch_size=10),
        trained=False,
        should_stop=lambda: False,
    )
    found.k = K
    return found


def flattened() -> Network:
    """Two channels of two features and two neurons: 8 gates."""
    layers = (nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4, 2), nn.ReLU(), nn.Linear(2, 2))
    return network(nn.Sequential(*layers), (1, 3, 4))


@pytest.mark.parametrize("progress", [0.3, 1.0])
def test_pull_is_the_gradient_of_the_priced_cost(progress: float) -> None:
    """d/dphi of sum lambda log E[cost], factor k and closure included, with E by enumeration of all masks."""
    found = trainer(flattened(), (1, 3, 4), Budget(max_params=8, max_macs=6))
    phi = torch.randn(8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found.gates.phi = phi.clone()
    counts = [found.costs.count(mask) for mask in masks(8)]
    pull = found.pull(progress)

    lambdas = found.multipliers.value
    assert all(value != 0 for value in lambdas.values())
    variable = phi.clone().requires_grad_()
    probabilities = mask_probabilities(torch.sigmoid(K * variable))
    total = torch.zeros((), dtype=torch.float64)
    for kind, multiplier in lambdas.items():
        table = torch.tensor([getattr(count, kind) for count in counts], dtype=torch.float64)
        total = total + multiplier * (probabilities @ table).log()
    expected = torch.autograd.grad(total, variable)[0]
    torch.testing.assert_close(pull, expected, rtol=0, atol=1e-10)
    assert bool((pull > 0).all())  # above budget, every phi is to fall
    assert torch.equal(found.gates.phi, phi)


def test_prices_are_relative_costs_of_a_unit() -> None:
    """Doubling a group's gates costs its price per unit: d log E[cost] / d log pi, per expected unit."""
    found = trainer(flattened(), (1, 3, 4), Budget(max_params=20))
    pi = torch.tensor([0.5, 0.5, 0.3, 0.3, 0.3, 0.3, 0.8, 0.8], dtype=torch.float64)
    prices = found.prices(pi)
    for group in found.network.coupling.groups:
        step = 1e-6

        def log_cost(change: float, group: slice = group.slice) -> Tensor:
            scaled = pi.clone()
            scaled[group] *= 1 + change
            return found.costs.expected(scaled)[0].log()

        slope = ((log_cost(step) - log_cost(-step)) / (2 * step)).item()
        assert prices[group.slice].tolist() == pytest.approx(
            [slope / pi[group.slice].sum().item()] * group.size
        )


@pytest.mark.parametrize("max_params", [120, 300, 600])
def test_the_expected_cost_arrives_at_the_budget(max_params: int) -> None:
    """With noise for a loss, stage 2 ends with expected and hard cost within 5 % or one unit of the budget."""
    found = trainer(conv_network(), CONV_INPUT, Budget(max_params=max_params))
    steps, lr = 600, 0.02
    found.meter.ahead[Stage.PLASTIC] = steps
    generator = torch.Generator().manual_seed(0)
    found.gates = Gates.open(found.network.coupling.size, 1.5)
    found.gates.phi += 0.7 * torch.randn(found.gates.phi.shape, generator=generator, dtype=torch.float64)
    adam = GateAdam(limit=3.0, first=torch.zeros_like(found.gates.phi))
    for step in range(steps):
        found.k = found.schedule.k(step / steps)
        noise = torch.randn(found.gates.phi.shape, generator=generator, dtype=torch.float64)
        pull = found.pull(step / steps)
        price = found.prices(found.gates.probabilities(found.k))
        adam.step(found.gates.phi, noise, pull, price, found.gates.awake, lr)
    expected = found.costs.expected(found.gates.probabilities(found.k))[0].item()
    mask = found.gates.harden()
    hard = found.costs.count(mask).params
    flips = mask ^ torch.eye(len(mask), dtype=torch.bool)
    unit = max(abs(found.costs.count(flip).params - hard) for flip in flips)
    assert abs(expected - max_params) <= max(0.05 * max_params, unit)
    assert abs(hard - max_params) <= max(0.05 * max_params, unit)
