"""Small networks with everything the method handles, and masks for them."""

from collections import OrderedDict

import torch
from torch import Tensor, nn

from npn_core.gated import Network
from npn_core.graph import trace
from npn_core.groups import Coupling, find_groups

CONV_INPUT = (1, 8, 8)
CLASSES = 3


def conv_net(*, norm: bool = True, dropout: float = 0.3) -> nn.Sequential:
    """Convolutions, BatchNorm and dropout before and after the flatten: 4 + 5 channels, 45 features, 6 neurons."""
    # a bias before a BatchNorm has no gradient but rounding, which Adam would blow up to whole steps
    layers = {
        "conv1": nn.Conv2d(1, 4, 3, bias=not norm),
        "bn1": nn.BatchNorm2d(4) if norm else nn.Identity(),
        "act1": nn.Tanh(),
        "drop1": nn.Dropout2d(dropout),
        "conv2": nn.Conv2d(4, 5, 3, padding=1, bias=not norm),
        "bn2": nn.BatchNorm2d(5) if norm else nn.Identity(),
        "act2": nn.Tanh(),
        "pool": nn.MaxPool2d(2),
        "flatten": nn.Flatten(),
        "bn3": nn.BatchNorm1d(45) if norm else nn.Identity(),
        "drop2": nn.Dropout(dropout),
        "fc1": nn.Linear(45, 6),
        "act3": nn.Sigmoid(),
        "drop3": nn.Dropout(dropout),
        "fc2": nn.Linear(6, CLASSES),
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(OrderedDict(layers))
        for parameter in model.parameters():  # neither 0 nor 1 where torch's defaults are
            nn.init.normal_(parameter, 0.1, 0.4)
        return model


def network(
    module: nn.Module, input_shape: tuple[int, ...] = CONV_INPUT, dtype: torch.dtype = torch.float32
) -> Network:
    """The module traced with the groups that are found in it."""
    graph = trace(module, input_shape).to(dtype)
    return Network(graph, find_groups(graph))


def batch(
    generator: torch.Generator, dtype: torch.dtype = torch.float32, size: int = 8
) -> tuple[Tensor, Tensor]:
    """Noise with labels, for `conv_net`."""
    x = torch.randn(size, *CONV_INPUT, generator=generator, dtype=dtype)
    return x, torch.randint(CLASSES, (size,), generator=generator)


def random_mask(coupling: Coupling, generator: torch.Generator, share: float = 0.6) -> Tensor:
    """A closed mask with about `share` of the gates open and at least one unit in every group."""
    while True:
        mask = coupling.close(torch.rand(coupling.size, generator=generator) < share)
        if all(bool(mask[group.slice].any()) for group in coupling.groups):
            return mask


def without(coupling: Coupling, mask: Tensor, *names: str) -> Tensor:
    """`mask` with whole groups asleep."""
    mask = mask.clone()
    for name in names:
        mask[coupling.by_name[name].slice] = False
    return mask
