"""What units are worth: gate gradients against autograd, the start of phi, and the baselines' scores."""

import pytest
import torch
import torch.nn.functional as F
from small_networks import batch, conv_net, conv_network, cross_entropy, random_mask
from torch import Generator, Tensor
from torch.func import functional_call

from npn_core.gated import Noise
from npn_core.masks import magnitude_scores, random_scores
from npn_core.saliency import Saliency, gate_gradients, initial_phi
from npn_core.step import Sliced


@pytest.mark.parametrize("share", [0.6, 1.1])
def test_gate_gradients_are_those_of_autograd(share: float) -> None:
    """d loss / dz at the open gates, where z multiplies the consumers' input weights; 0 at closed ones."""
    net = conv_network(dropout=0, dtype=torch.float64)
    mask = random_mask(net.coupling, Generator().manual_seed(0), share)
    x, y = batch(Generator().manual_seed(1), torch.float64)
    z = mask.double().requires_grad_()
    plain, groups = conv_net(dropout=0).double().train(), net.coupling.by_name
    features = z[groups["fc1.in"].slice].view(5, 9) * z[groups["conv2"].slice, None]
    weights = {
        "conv2.weight": plain.conv2.weight * z[groups["conv1"].slice].view(1, -1, 1, 1),
        "fc1.weight": plain.fc1.weight * features.flatten(),
        "fc2.weight": plain.fc2.weight * z[groups["fc1"].slice],
    }
    loss = F.cross_entropy(functional_call(plain, weights, x), y)
    expected = torch.autograd.grad(loss, z)[0] * mask

    runner = Sliced(net, cross_entropy)
    evaluation = runner.differentiate(x, y, net.active(mask), Noise(generator=Generator()))
    torch.testing.assert_close(
        gate_gradients(net, net.active(mask), evaluation.updates), expected, rtol=0, atol=1e-10
    )


def test_saliency_adds_squares() -> None:
    """Over minibatches, whatever their sign."""
    saliency = Saliency.none(2)
    saliency.add(torch.tensor([1.0, -2.0]))
    saliency.add(torch.tensor([-1.0, 0.0]))
    assert saliency.batches == 2
    assert saliency.total.tolist() == [2.0, 4.0]


def start_phi(saliency: Tensor, price: Tensor, limit: float = 3.0) -> Tensor:
    """phi as the loop starts it."""
    return initial_phi(saliency, price, center=1.5, spread=0.7, limit=limit)


def test_phi_starts_in_the_order_of_worth_per_cost() -> None:
    """The unit that matters most for its price has the highest phi; the mean is the centre."""
    saliency = torch.tensor([1.0, 4.0, 2.0, 8.0]).double()
    price = torch.tensor([1.0, 1.0, 4.0, 1.0]).double()
    phi = start_phi(saliency, price)
    assert phi.argsort().tolist() == (saliency / price).argsort().tolist()
    assert phi.mean().item() == pytest.approx(1.5)
    torch.testing.assert_close(start_phi(100 * saliency, 7 * price), phi)  # units of measure do not matter


@pytest.mark.parametrize("saliency", [[0.0, 0.0, 0.0], [2.0, 2.0, 2.0], [0.0, 1.0, 1e30]])
def test_phi_starts_finite_and_within_its_limit(saliency: list[float]) -> None:
    """Also where units matter all the same or not at all."""
    phi = start_phi(torch.tensor(saliency).double(), torch.ones(3).double())
    assert bool(phi.isfinite().all())
    assert bool((phi.abs() <= 3).all())


def test_random_scores_come_from_their_generator() -> None:
    """The same seed gives the same baseline mask."""
    net = conv_network()
    one, same, other = (random_scores(net, Generator().manual_seed(seed)) for seed in (0, 0, 1))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_magnitude_scores() -> None:
    """A channel's, neuron's or feature's own weights tell, in shares of its group's mean."""
    net = conv_network()
    coupling = net.coupling
    with torch.no_grad():
        net.parameters["conv1.weight"][2] *= 100
        net.parameters["fc1.weight"][:, 7] = 0
    scores = magnitude_scores(net, Generator())
    for group in coupling.groups:
        assert scores[group.slice].mean().item() == pytest.approx(1)
    assert scores[coupling.by_name["conv1"].slice].argmax() == 2
    assert scores[coupling.by_name["fc1.in"].slice][7] == 0
