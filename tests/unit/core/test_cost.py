"""Expected cost and its gradient against enumeration; hard cost against the compact module."""

from collections.abc import Callable
from functools import cache

import pytest
import torch
from cells import mask_probabilities, masks
from small_networks import CONV_INPUT, CONV_INPUTS, conv_network, network, random_mask
from torch import Tensor, nn

from npn_core import recount
from npn_core.catalogue import build
from npn_core.config import COST_KINDS
from npn_core.cost import CostModel, cost_model
from npn_core.gated import Network
from npn_core.progress import Cost
from npn_core.surgery import compact


def chain() -> tuple[nn.Module, tuple[int, ...]]:
    """Convolutions, BatchNorm and linear layers, joined by a global pooling: 2 + 2 + 3 gates."""
    layers = nn.Sequential(
        *(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU()),
        *(nn.Conv2d(2, 2, 3), nn.BatchNorm2d(2), nn.ReLU()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        *(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.ReLU()),
        nn.Linear(3, 2),
    )
    return layers, (1, 6, 6)


def chain_cost(z: Tensor) -> Tensor:
    """Params, MACs and bytes (N, 3) of `chain` for gates `z` (N, 7)."""
    c1, c2, n = z[:, :2].sum(1), z[:, 2:4].sum(1), z[:, 4:].sum(1)
    params = 12 * c1 + (9 * c1 + 3) * c2 + (c2 + 3) * n + 2 * n + 2
    macs = 9 * 16 * c1 + 9 * 4 * c1 * c2 + c2 * n + 2 * n
    statistics = 2 * 4 * (c1 + c2 + n) + 3 * 8
    return torch.stack([params, macs, 4 * params + statistics], dim=1)


def flattened() -> tuple[nn.Module, tuple[int, ...]]:
    """Two channels of two features each, with a BatchNorm over the features: 2 + 4 + 2 gates."""
    layers = nn.Sequential(
        *(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.BatchNorm1d(4)),
        *(nn.Linear(4, 2), nn.ReLU(), nn.Linear(2, 2)),
    )
    return layers, (1, 3, 4)


def flattened_cost(z: Tensor) -> Tensor:
    """Params, MACs and bytes (N, 3) of `flattened` for gates `z` (N, 8)."""
    features = z[:, 2:6].view(-1, 2, 2) * z[:, :2, None]
    channels = features.amax(dim=2).sum(1)  # closure: a channel without features is dead
    f, n = features.sum(dim=(1, 2)), z[:, 6:].sum(1)
    params = 10 * channels + 2 * f + (f + 1) * n + 2 * n + 2
    macs = 9 * 2 * channels + f * n + 2 * n
    return torch.stack([params, macs, 4 * params + 2 * 4 * f + 8], dim=1)


def flat_input() -> tuple[nn.Module, tuple[int, ...]]:
    """Gated input features of an image without channels to close: 4 + 2 gates."""
    return nn.Sequential(nn.Flatten(), nn.Linear(4, 2), nn.ReLU(), nn.Linear(2, 2)), (1, 2, 2)


def flat_input_cost(z: Tensor) -> Tensor:
    """Params, MACs and bytes (N, 3) of `flat_input` for gates `z` (N, 6)."""
    f, n = z[:, :4].sum(1), z[:, 4:].sum(1)
    params = (f + 1) * n + 2 * n + 2
    return torch.stack([params, f * n + 2 * n, 4 * params], dim=1)


def found(make: Callable[[], tuple[nn.Module, tuple[int, ...]]]) -> CostModel:
    """The cost model with the groups that are found."""
    module, input_shape = make()
    net = network(module, input_shape)
    return cost_model(net.graph, net.coupling)


class Residual(nn.Module):
    """x + conv(x) after a first convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 3, 1)
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.fc = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        """The classes' logits."""
        x = self.stem(x)
        return self.fc((x + self.conv(x)).mean((2, 3)))


def residual() -> tuple[nn.Module, tuple[int, ...]]:
    """A trunk of 3 channels that a square convolution reads and writes."""
    return Residual(), (1, 2, 2)


def residual_cost(z: Tensor) -> Tensor:
    """Params, MACs and bytes (N, 3) of `residual` for gates `z` (N, 3)."""
    c = z.sum(1)
    params = 2 * c + 9 * c**2 + c + 2 * c + 2
    return torch.stack([params, 4 * c + 4 * 9 * c**2 + 2 * c, 4 * params], dim=1)


CASES = [
    pytest.param(found(chain), chain_cost, id="chain"),
    pytest.param(found(flattened), flattened_cost, id="flattened"),
    pytest.param(found(flat_input), flat_input_cost, id="flat-input"),
    pytest.param(found(residual), residual_cost, id="residual"),
]


@pytest.mark.parametrize(("model", "by_hand"), CASES)
def test_count_of_every_mask(model: CostModel, by_hand: Callable[[Tensor], Tensor]) -> None:
    """The count of every hard mask, closed or not, is that of arithmetic on the layers."""
    every = masks(model.coupling.size)
    expected = by_hand(every.double()).long().tolist()
    counts = [model.count(mask) for mask in every]
    assert [[getattr(cost, kind) for kind in COST_KINDS] for cost in counts] == expected


@pytest.mark.parametrize(("model", "by_hand"), CASES)
@pytest.mark.parametrize("seed", range(3))
def test_expected_cost_and_gradient(model: CostModel, by_hand: Callable[[Tensor], Tensor], seed: int) -> None:
    """E[cost] and its gradient in the logits equal those of the enumeration over all masks."""
    size = model.coupling.size
    a = 2 * torch.randn(size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    counts = by_hand(masks(size).double())

    def enumerated(logits: Tensor) -> Tensor:
        return mask_probabilities(torch.sigmoid(logits)) @ counts

    def computed(logits: Tensor) -> Tensor:
        return model.expected(torch.sigmoid(logits))

    torch.testing.assert_close(computed(a), enumerated(a), rtol=1e-12, atol=1e-10)
    gradients = [torch.autograd.functional.jacobian(cost, a) for cost in (computed, enumerated)]
    torch.testing.assert_close(*gradients, rtol=1e-12, atol=1e-10)


@pytest.mark.parametrize(("model", "by_hand"), CASES)
def test_gradient_at_sure_gates(model: CostModel, by_hand: Callable[[Tensor], Tensor]) -> None:
    """Gates of probability 0 and 1 have the right gradient in pi too, products over features included."""
    counts = by_hand(masks(model.coupling.size).double())
    for mask in masks(model.coupling.size)[::7]:
        pi = mask.double()
        gradients = [
            torch.autograd.functional.jacobian(cost, pi)
            for cost in (model.expected, lambda pi: mask_probabilities(pi) @ counts)
        ]
        torch.testing.assert_close(*gradients, rtol=1e-12, atol=1e-10)


@pytest.mark.parametrize("seed", range(5))
def test_hard_cost_is_that_of_the_compact_module(seed: int) -> None:
    """Parameters, MACs and bytes of a mask equal what is counted on the module that surgery makes of it."""
    full = conv_network()
    model = cost_model(full.graph, full.coupling)
    mask = random_mask(full.coupling, torch.Generator().manual_seed(seed))
    assert model.count(mask) == recount.count(
        compact(full, full.active(mask), CONV_INPUTS), (torch.empty(1, *CONV_INPUT),)
    )


@cache
def lenet5_caffe() -> Network:
    """The catalogue's."""
    module = build("lenet5-caffe", {}, input_shape=(1, 28, 28), classes=10, seed=0)
    return network(module, (1, 28, 28))


def test_lenet5_caffe() -> None:
    """The literature's LeNet-5-Caffe: 431,080 parameters and 2,293,000 multiply-adds."""
    net = lenet5_caffe()
    model = cost_model(net.graph, net.coupling)
    dense = model.count(torch.ones(model.coupling.size, dtype=torch.bool))
    assert dense == Cost(params=431_080, macs=2_293_000, bytes=4 * 431_080)


def test_lenet5_caffe_of_a_paper() -> None:
    """5-10-76(features)-16, the smallest LeNet-5-Caffe published, counts as its four layers do."""
    net = lenet5_caffe()
    coupling = net.coupling
    mask = torch.zeros(coupling.size, dtype=torch.bool)
    for name, kept in (("conv1", 5), ("conv2", 10), ("fc1", 16)):
        mask[coupling.by_name[name].offset :][:kept] = True
    features = mask[coupling.by_name["fc1.in"].slice].view(50, 16)
    features[:10, :7] = True
    features[:6, 7] = True
    expected = (5 * 26) + 10 * (5 * 25 + 1) + 16 * (76 + 1) + 10 * (16 + 1)
    assert cost_model(net.graph, coupling).count(mask).params == expected
