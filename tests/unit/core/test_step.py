"""The training step: its gate gradient against enumeration, and what it leaves alone."""

import copy
import math
from collections import OrderedDict
from functools import cache

import pytest
import torch
import torch.nn.functional as F
from cells import mask_probabilities, masks, mean
from small_networks import batch, conv_net, conv_network, cross_entropy, network
from torch import Generator, Tensor, fx, nn
from torch.func import functional_call

from npn_core.estimators import ESTIMATORS
from npn_core.gated import Network, Noise
from npn_core.gates import Gates, sample
from npn_core.groups import Coupling
from npn_core.optimizer import OPTIMIZERS
from npn_core.step import GateStep, Masked, Sliced, gate_step

K = 1.7
SURE = 500.0  # of probability 1 exactly: a gate that multiplies no cells


def spread(values: list[float], rest: float) -> Tensor:
    """An entry for each of the eight gates: `values` for c0, its features f00 f01, and n0 n1; `rest` for the others."""
    full = torch.full((8,), rest, dtype=torch.float64)
    full[[0, 2, 3, 6, 7]] = torch.tensor(values, dtype=torch.float64)
    return full


PHI = spread([0.4, -0.2, 0.9, 0.0, -0.7], SURE)
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
    """Two channels of two features, two neurons: gates c0 c1 f00 f01 f10 f11 n0 n1."""
    layers = {
        "conv": nn.Conv2d(1, 2, 3),
        "bn1": nn.BatchNorm2d(2),
        "act1": nn.Tanh(),
        "flatten": nn.Flatten(),
        "drop": dropout,
        "fc1": nn.Linear(4, 2),
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


def tiny_batch() -> tuple[tuple[Tensor], Tensor]:
    """Six samples with labels."""
    generator = Generator().manual_seed(2)
    x = torch.randn(SAMPLES, *INPUT, generator=generator, dtype=torch.float64)
    return (x,), torch.randint(3, (SAMPLES,), generator=generator)


def same_noise() -> Noise:
    """The same dropout noise every time."""
    return Noise(generator=Generator().manual_seed(3))


@cache
def loss_of(z: tuple[float, ...]) -> Tensor:
    """The loss in training mode under gates z (8,), in plain torch."""
    return loss_under(torch.tensor(z, dtype=torch.float64)).detach()


def slopes_of(z: Tensor) -> Tensor:
    """Its derivative in z (8,)."""
    z = z.clone().requires_grad_()
    return torch.autograd.grad(loss_under(z), z)[0]


def loss_under(gate: Tensor) -> Tensor:
    """The loss, differentiable in the gates (8,)."""
    keep = same_noise().keep("drop", (SAMPLES, 4), DROPOUT)
    plain = tiny(Times(keep)).double().train()
    channels, features, neurons = gate[:2], gate[2:6], gate[6:]
    weights = {
        "fc1.weight": plain.fc1.weight * (channels.repeat_interleave(2) * features),
        "fc2.weight": plain.fc2.weight * neurons,
    }
    x, y = tiny_batch()
    return F.cross_entropy(functional_call(plain, weights, x), y)


def exact(gates: Gates, k: float) -> Tensor:
    """d E[loss] / d phi by enumeration of all gate vectors."""
    losses = torch.stack([loss_of(tuple((z & gates.awake).double().tolist())) for z in masks(8)])
    phi = gates.phi.clone().requires_grad_()
    expected = mask_probabilities(torch.sigmoid(k * phi)) @ losses
    return torch.autograd.grad(expected, phi)[0]


def step(runner: Sliced, gates: Gates, estimator: str, u: Tensor, k: float = K) -> GateStep:
    """One step on the same batch with the same dropout noise, at u (rows, G), or (G,) for its first row."""
    rows = u if u.dim() == 2 else u.expand(ESTIMATORS[estimator].rows, -1)
    return gate_step(runner, gates, k, ESTIMATORS[estimator], tiny_batch(), rows, same_noise())


def gradient(found: GateStep) -> Tensor:
    """What moves the gates."""
    assert found.gradient is not None
    return found.gradient


def tiny_network() -> Network:
    """`tiny` with its groups, in float64."""
    graph, coupling = lifted()
    return Network(copy.deepcopy(graph), coupling)


@cache
def lifted() -> tuple[fx.GraphModule, Coupling]:
    """Exported once for all tests."""
    net = network(tiny(nn.Dropout(DROPOUT)), INPUT, dtype=torch.float64)
    return net.graph, net.coupling


def gates(awake: Tensor | None = None) -> Gates:
    """The eight gates at PHI."""
    return Gates(phi=PHI.clone(), awake=torch.ones(8, dtype=torch.bool) if awake is None else awake)


@pytest.mark.parametrize("estimator", sorted(ESTIMATORS.keys() - {"straight-through"}))
def test_phi_gradient_is_unbiased(estimator: str) -> None:
    """Its mean over u is k dE[loss]/da: sign, factor k, BatchNorm in training mode, one dropout mask for both."""
    k = 4.0 if estimator == "ugc" else K  # two of its gates are nearly sure then
    runner = Sliced(tiny_network(), cross_entropy)
    found = mean(lambda u: gradient(step(runner, gates(), estimator, u, k)), k * PHI, estimator)
    torch.testing.assert_close(found, exact(gates(), k), rtol=0, atol=1e-10)


def test_slopes_of_all_gates() -> None:
    """Of open and of closed ones, with BatchNorm in training mode: those of plain torch, at every gate vector."""
    runner = Masked(tiny_network(), cross_entropy)
    x, y = tiny_batch()
    for z in masks(8):
        evaluation, slopes = runner.slopes(x, y, z, same_noise())
        torch.testing.assert_close(slopes, slopes_of(z.double()), rtol=0, atol=1e-10)
        assert evaluation.loss == pytest.approx(loss_of(tuple(z.double().tolist())).item(), abs=1e-10)


def test_what_straight_through_says_and_by_how_much_it_errs() -> None:
    """Its mean is E[dloss/dz], in pi; behind BatchNorm over two units that errs by half of the gradient."""
    runner = Sliced(tiny_network(), cross_entropy)
    found = mean(lambda u: gradient(step(runner, gates(), "straight-through", u)), K * PHI)
    pi = gates().probabilities(K)
    expected = torch.zeros_like(PHI)
    for probability, z in zip(mask_probabilities(pi), masks(8).double(), strict=True):
        if probability > 0:
            expected += probability * slopes_of(z)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)
    truth, in_phi = exact(gates(), K), K * pi * (1 - pi) * found
    assert float((in_phi - truth).norm() / truth.norm()) == pytest.approx(0.47, abs=0.02)


@pytest.mark.parametrize("kind", ["adam", "sgd"])
def test_slopes_come_with_a_step_of_the_active_weights(kind: str) -> None:
    """The training pass that finds them moves what one of the open units alone does: all else stays, moments too."""
    u = spread([0.5, 0.6, 0.2, 0.1, 0.9], 0.5)
    net, alone = tiny_network(), tiny_network()
    found = step(Sliced(net, cross_entropy), gates(), "straight-through", u).evaluation
    b, _ = sample(u, K * PHI)
    plain = Sliced(alone, cross_entropy).differentiate(*tiny_batch(), alone.active(b), same_noise())
    assert found.loss == pytest.approx(plain.loss, abs=1e-10)
    for name, buffer in net.buffers.items():
        torch.testing.assert_close(buffer, alone.buffers[name], rtol=0, atol=1e-10, msg=name)
    one, other = (OPTIMIZERS[kind](parameters=n.parameters, weight_decay=0.1) for n in (net, alone))
    for optimizer, evaluation in ((one, found), (other, plain)):
        for moments in optimizer.moments.values():
            for moment in moments.values():
                moment.fill_(0.5)
        optimizer.step(evaluation.updates, 0.1)
    for name in net.parameters:
        torch.testing.assert_close(net.parameters[name], alone.parameters[name], rtol=0, atol=1e-10, msg=name)
        for moment in one.moments:
            torch.testing.assert_close(
                one.moments[moment][name], other.moments[moment][name], rtol=0, atol=1e-10
            )


@pytest.mark.parametrize("kind", ["adam", "sgd"])
def test_what_hibernates_is_not_computed(kind: str) -> None:
    """Over the units awake alone a masked step says and does what one over the whole network does."""
    awake = spread([1, 1, 0, 0, 1], 1).bool()
    z = awake & spread([1, 0, 1, 1, 1], 1).bool()
    x, y = tiny_batch()
    found = []
    for all_of_it in (True, False):
        net = tiny_network()
        runner = Masked(net, cross_entropy, net.everything if all_of_it else net.active(awake))
        evaluation, slopes = runner.slopes(x, y, z, same_noise())
        optimizer = OPTIMIZERS[kind](parameters=net.parameters, weight_decay=0.1)
        optimizer.step(evaluation.updates, 0.1)
        found.append((evaluation, slopes, net))
    (whole, slopes, one), (part, of_awake, other) = found
    assert part.loss == pytest.approx(whole.loss, abs=1e-10)
    torch.testing.assert_close(of_awake, slopes * awake, rtol=0, atol=1e-10)
    sizes = [sum(update.gradient.numel() for update in evaluation.updates) for evaluation in (whole, part)]
    assert sizes[1] < sizes[0]
    for name, tensor in (one.parameters | one.buffers).items():
        torch.testing.assert_close(
            (other.parameters | other.buffers)[name], tensor, rtol=0, atol=1e-10, msg=name
        )


def test_gates_that_nobody_looks_at_cost_nothing() -> None:
    """A step of the weights alone is one evaluation at the same sample, whatever the estimator."""
    u = spread([0.1, 0.6, 0.2, 0.1, 0.9], 0.3)
    for name, estimator in ESTIMATORS.items():
        rows = u.expand(estimator.rows, -1)
        runner = Sliced(tiny_network(), cross_entropy)
        found = gate_step(runner, gates(), K, estimator, tiny_batch(), rows, same_noise(), looks=False)
        looked = step(Sliced(tiny_network(), cross_entropy), gates(), name, u)
        assert found.gradient is None
        assert found.evaluation.loss == pytest.approx(looked.evaluation.loss, abs=1e-10)


def test_phi_gradient_with_a_hibernating_unit() -> None:
    """A hibernating unit has no gradient, and those of the others are taken without it."""
    asleep = gates(awake=spread([1, 1, 0, 1, 1], 1).bool())
    runner = Sliced(tiny_network(), cross_entropy)
    found = mean(lambda u: gradient(step(runner, asleep, "disarm", u)), K * PHI)
    expected = exact(asleep, K)
    assert found[3] == 0
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("u", [[0.1, 0.6, 0.6, 0.1, 0.9], [0.9, 0.1, 0.1, 0.9, 0.1]])
def test_masked_and_sliced_estimate_the_same(u: list[float]) -> None:
    """One draw of u gives the same phi gradient whether sleeping units are computed or not."""
    uniform = spread(u, 0.5)
    found = [
        gradient(step(runner(tiny_network(), cross_entropy), gates(), "arm", uniform))
        for runner in (Masked, Sliced)
    ]
    torch.testing.assert_close(*found, rtol=0, atol=1e-10)


def test_statistics_move_once_a_step() -> None:
    """They are those of the sample b alone: the antithetic pass leaves no trace."""
    u = spread([0.5, 0.6, 0.2, 0.1, 0.9], 0.5)  # the channels are open in both samples
    net, alone = tiny_network(), tiny_network()
    b, b_antithetic = sample(u, K * PHI)
    assert not torch.equal(b, b_antithetic)
    step(Sliced(net, cross_entropy), gates(), "disarm", u)
    Sliced(alone, cross_entropy).differentiate(*tiny_batch(), alone.active(b), same_noise())
    assert int(net.buffers["bn1.num_batches_tracked"]) == 1
    for name, buffer in net.buffers.items():
        assert torch.equal(buffer, alone.buffers[name]), name


def test_without_gates_to_choose_from_it_is_ordinary_training() -> None:
    """At k = inf with open gates: the plain step's loss, gradients and statistics; phi has no gradient, not nan."""
    plain, net = conv_net(dropout=0).train(), conv_network(dropout=0)
    x, y = batch(Generator().manual_seed(0))
    loss = F.cross_entropy(plain(*x), y)
    loss.backward()

    generator = Generator().manual_seed(1)
    u = torch.rand(net.coupling.size, generator=generator, dtype=torch.float64)
    hard = Gates.open(net.coupling.size, 1.0)
    for estimator in ESTIMATORS.values():
        runner = Sliced(conv_network(dropout=0), cross_entropy)
        rows = u.expand(estimator.rows, -1)
        found = gate_step(runner, hard, math.inf, estimator, (x, y), rows, Noise(generator=generator))
        assert found.evaluation.loss == pytest.approx(loss.item(), abs=1e-6)
        assert not gradient(found).any()
        for update in found.evaluation.updates:
            assert not any(index is not None for index in update.indices)
            expected = plain.get_parameter(update.name).grad
            torch.testing.assert_close(update.gradient, expected, rtol=1e-4, atol=1e-6)
        for name, buffer in plain.named_buffers():
            torch.testing.assert_close(runner.network.buffers[name], buffer)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_without_plasticity_it_is_dropout(estimator: str) -> None:
    """At k = 0 the sample is u < 1/2 whatever phi is, and the loss has no gradient in phi."""
    u = spread([0.1, 0.6, 0.2, 0.1, 0.9], 0.3)
    net, alone = tiny_network(), tiny_network()
    found = step(Sliced(net, cross_entropy), gates(), estimator, u, k=0)
    dropped = Sliced(alone, cross_entropy).differentiate(*tiny_batch(), alone.active(u < 0.5), same_noise())
    assert not gradient(found).any()
    assert found.evaluation.loss == dropped.loss
    for one, other in zip(found.evaluation.updates, dropped.updates, strict=True):
        assert torch.equal(one.gradient, other.gradient)


def test_generators_reproduce_a_step() -> None:
    """The same generators give the same bits, whatever torch's global generator does."""

    def run(seed: int) -> Tensor:
        torch.rand(3)
        u = torch.rand(8, generator=Generator().manual_seed(seed), dtype=torch.float64)
        return gradient(step(Sliced(tiny_network(), cross_entropy), gates(), "ar", u))

    assert torch.equal(run(0), run(0))
    assert not torch.equal(run(0), run(1))


def test_one_evaluation_where_both_samples_agree() -> None:
    """A pass is left out when it would compute the same again; AR and straight-through have no other."""
    calls = 0

    def counting_loss(outputs: tuple[Tensor, ...], y: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return cross_entropy(outputs, y)

    runner = Sliced(tiny_network(), counting_loss)
    low, middle = torch.full((8,), 0.05).double(), torch.full((8,), 0.5).double()
    sure = Gates.open(8, 40.0)
    step(runner, gates(), "disarm", low)
    assert calls == 2
    step(runner, gates(), "ar", low)
    assert calls == 3
    step(runner, sure, "disarm", middle)
    assert calls == 4
    step(runner, gates(), "straight-through", low)
    assert calls == 5
    step(runner, gates(), "ugc", torch.stack([low, middle]))  # the fifth gate, which is sure, is drawn
    assert calls == 8
    step(
        runner, gates(), "ugc", torch.stack([low, torch.full((8,), 0.99).double()])
    )  # the last, which is not
    assert calls == 10
