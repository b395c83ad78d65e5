"""The training step: its gate gradient against enumeration, and what it leaves alone."""

import math
from collections import OrderedDict

import pytest
import torch
import torch.nn.functional as F
from cells import mask_probabilities, masks, mean
from small_networks import batch, conv_net, network
from torch import Generator, Tensor, nn
from torch.func import functional_call

from npn_core.estimators import ESTIMATORS
from npn_core.gated import Network, Noise
from npn_core.gates import Gates
from npn_core.step import GateStep, Masked, Sliced, gate_step

K = 1.7
PHI = torch.tensor([0.4, -0.2, 0.9, 0.0, -0.7], dtype=torch.float64)
SAMPLES, DROPOUT = 6, 0.4
INPUT = (1, 3, 4)


class Times(nn.Module):
    """Dropout with its mask given."""

    def __init__(self, keep: Tensor) -> None:
        super().__init__()
        self.keep = keep

    def forward(self, x: Tensor) -> Tensor:
        """x times the mask."""
        return x * self.keep


def tiny(dropout: nn.Module) -> nn.Sequential:
    """One channel of two features, two neurons: gates c f0 f1 n0 n1."""
    layers = {
        "conv": nn.Conv2d(1, 1, 3),
        "bn1": nn.BatchNorm2d(1),
        "act1": nn.Tanh(),
        "flatten": nn.Flatten(),
        "drop": dropout,
        "fc1": nn.Linear(2, 2),
        "bn2": nn.BatchNorm1d(2),
        "act2": nn.Tanh(),
        "fc2": nn.Linear(2, 3),
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model = nn.Sequential(OrderedDict(layers))
        for parameter in model.parameters():
            nn.init.normal_(parameter, std=0.7)
        return model


def tiny_batch() -> tuple[Tensor, Tensor]:
    """Six samples with labels."""
    generator = Generator().manual_seed(2)
    x = torch.randn(SAMPLES, *INPUT, generator=generator, dtype=torch.float64)
    return x, torch.randint(3, (SAMPLES,), generator=generator)


def same_noise() -> Noise:
    """The same dropout noise every time."""
    return Noise(generator=Generator().manual_seed(3))


def loss_of(z: Tensor) -> Tensor:
    """The loss in training mode under gates z (5,), in plain torch."""
    keep = same_noise().keep("drop", (SAMPLES, 2), DROPOUT)
    plain = tiny(Times(keep)).double().train()
    channel, features, neurons = z[0], z[1:3], z[3:]
    weights = {
        "fc1.weight": plain.fc1.weight * (channel * features),
        "fc2.weight": plain.fc2.weight * neurons,
    }
    x, y = tiny_batch()
    return F.cross_entropy(functional_call(plain, weights, x), y).detach()


def exact(gates: Gates, k: float) -> Tensor:
    """d E[loss] / d phi by enumeration of all gate vectors."""
    losses = torch.stack([loss_of((z & gates.awake).double()) for z in masks(5)])
    phi = gates.phi.clone().requires_grad_()
    expected = mask_probabilities(torch.sigmoid(k * phi)) @ losses
    return torch.autograd.grad(expected, phi)[0]


def step(runner: Sliced, gates: Gates, estimator: str, u: Tensor, k: float = K) -> GateStep:
    """One step on the same batch with the same dropout noise."""
    return gate_step(runner, gates, k, ESTIMATORS[estimator], tiny_batch(), u, same_noise())


def tiny_network() -> Network:
    """`tiny` with its groups, in float64."""
    return network(tiny(nn.Dropout(DROPOUT)), INPUT, torch.float64)


def gates(awake: Tensor | None = None) -> Gates:
    """The five gates at PHI."""
    return Gates(phi=PHI.clone(), awake=torch.ones(5, dtype=torch.bool) if awake is None else awake)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_phi_gradient_is_unbiased(estimator: str) -> None:
    """Its mean over u is k dE[loss]/da: sign, factor k, BatchNorm in training mode, one dropout mask for both."""
    runner = Sliced(tiny_network(), F.cross_entropy)
    found = mean(lambda u: step(runner, gates(), estimator, u).phi_gradient, K * PHI)
    torch.testing.assert_close(found, exact(gates(), K), rtol=0, atol=1e-10)


def test_phi_gradient_with_a_hibernating_unit() -> None:
    """A hibernating unit has no gradient, and those of the others are taken without it."""
    asleep = gates(awake=torch.tensor([True, True, False, True, True]))
    runner = Sliced(tiny_network(), F.cross_entropy)
    found = mean(lambda u: step(runner, asleep, "disarm", u).phi_gradient, K * PHI)
    expected = exact(asleep, K)
    assert found[2] == 0
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("u", [[0.1, 0.6, 0.6, 0.1, 0.9], [0.9, 0.1, 0.1, 0.9, 0.1]])
def test_masked_and_sliced_estimate_the_same(u: list[float]) -> None:
    """One draw of u gives the same phi gradient whether sleeping units are computed or not."""
    uniform = torch.tensor(u, dtype=torch.float64)
    found = [
        step(runner(tiny_network(), F.cross_entropy), gates(), "arm", uniform).phi_gradient
        for runner in (Masked, Sliced)
    ]
    torch.testing.assert_close(*found, rtol=0, atol=1e-10)


def test_statistics_move_once_a_step() -> None:
    """They are those of the sample b alone: the antithetic pass leaves no trace."""
    u = torch.tensor([0.5, 0.6, 0.2, 0.1, 0.9], dtype=torch.float64)  # the channel is open in both samples
    net, alone = tiny_network(), tiny_network()
    b, b_antithetic = gates().sample(u, K)
    assert not torch.equal(b, b_antithetic)
    step(Sliced(net, F.cross_entropy), gates(), "disarm", u)
    Sliced(alone, F.cross_entropy).differentiate(*tiny_batch(), alone.active(b), same_noise())
    assert int(net.buffers["bn1.num_batches_tracked"]) == 1
    for name, buffer in net.buffers.items():
        assert torch.equal(buffer, alone.buffers[name]), name


def test_without_gates_to_choose_from_it_is_ordinary_training() -> None:
    """At k = inf with open gates: the plain step's loss, gradients and statistics; phi has no gradient, not nan."""
    plain, net = conv_net(dropout=0).train(), network(conv_net(dropout=0))
    x, y = batch(Generator().manual_seed(0))
    loss = F.cross_entropy(plain(x), y)
    loss.backward()

    generator = Generator().manual_seed(1)
    u = torch.rand(net.coupling.size, generator=generator, dtype=torch.float64)
    hard = Gates.open(net.coupling.size, 1.0)
    for estimator in ESTIMATORS.values():
        runner = Sliced(network(conv_net(dropout=0)), F.cross_entropy)
        found = gate_step(runner, hard, math.inf, estimator, (x, y), u, Noise(generator=generator))
        assert found.evaluation.loss == pytest.approx(loss.item(), abs=1e-6)
        assert not found.phi_gradient.any()
        for update in found.evaluation.updates:
            assert update.rows is None
            assert update.cols is None
            expected = plain.get_parameter(update.name).grad
            torch.testing.assert_close(update.gradient, expected, rtol=1e-4, atol=1e-6)
        for name, buffer in plain.named_buffers():
            torch.testing.assert_close(runner.network.buffers[name], buffer)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_without_plasticity_it_is_dropout(estimator: str) -> None:
    """At k = 0 the sample is u < 1/2 whatever phi is, and the loss has no gradient in phi."""
    u = torch.tensor([0.1, 0.6, 0.2, 0.1, 0.9], dtype=torch.float64)
    net, alone = tiny_network(), tiny_network()
    found = step(Sliced(net, F.cross_entropy), gates(), estimator, u, k=0)
    dropped = Sliced(alone, F.cross_entropy).differentiate(*tiny_batch(), alone.active(u < 0.5), same_noise())
    assert not found.phi_gradient.any()
    assert found.evaluation.loss == dropped.loss
    for one, other in zip(found.evaluation.updates, dropped.updates, strict=True):
        assert torch.equal(one.gradient, other.gradient)


def test_generators_reproduce_a_step() -> None:
    """The same generators give the same bits, whatever torch's global generator does."""

    def run(seed: int) -> Tensor:
        torch.rand(3)
        u = torch.rand(5, generator=Generator().manual_seed(seed), dtype=torch.float64)
        return step(Sliced(tiny_network(), F.cross_entropy), gates(), "ar", u).phi_gradient

    assert torch.equal(run(0), run(0))
    assert not torch.equal(run(0), run(1))


def test_one_evaluation_where_both_samples_agree() -> None:
    """The antithetic pass is left out when it would compute the same again, and for AR always."""
    calls = 0

    def counting_loss(output: Tensor, y: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return F.cross_entropy(output, y)

    runner = Sliced(tiny_network(), counting_loss)
    low, middle = torch.full((5,), 0.05).double(), torch.full((5,), 0.5).double()
    sure = Gates.open(5, 40.0)
    step(runner, gates(), "disarm", low)
    assert calls == 2
    step(runner, gates(), "ar", low)
    assert calls == 3
    step(runner, sure, "disarm", middle)
    assert calls == 4
