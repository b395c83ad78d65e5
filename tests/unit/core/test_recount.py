"""Costs counted on a module, against arithmetic on its layers."""

import pytest
import torch
from torch import nn

from npn_core.progress import Cost
from npn_core.recount import count, payload


@pytest.mark.parametrize(
    ("module", "input_shape", "expected"),
    [
        (nn.Linear(5, 3), (5,), Cost(params=18, macs=15, bytes=72)),
        (nn.Linear(5, 3, bias=False), (5,), Cost(params=15, macs=15, bytes=60)),
        (nn.Conv2d(2, 4, 3), (2, 6, 7), Cost(params=76, macs=4 * 5 * 2 * 4 * 9, bytes=304)),
        (nn.Conv2d(2, 4, 3, padding=1, stride=2), (2, 6, 7), Cost(params=76, macs=3 * 4 * 72, bytes=304)),
        (nn.Conv2d(4, 4, 3, groups=2), (4, 5, 5), Cost(params=76, macs=9 * 4 * 2 * 9, bytes=304)),
        (nn.BatchNorm1d(3), (3,), Cost(params=6, macs=0, bytes=4 * 12 + 8)),
    ],
)
def test_layers(module: nn.Module, input_shape: tuple[int, ...], expected: Cost) -> None:
    """Parameters, multiply-adds without biases, and bytes of each kind of layer."""
    assert count(module, input_shape) == expected


def test_tied_parameters_count_once() -> None:
    """Weights used by two layers are stored once, but multiplied twice."""
    first, second = nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False)
    second.weight = first.weight
    assert count(nn.Sequential(first, second), (3,)) == Cost(params=9, macs=18, bytes=36)


def test_buffers_that_are_not_persistent_are_left_out() -> None:
    """The payload is what a state dict holds."""
    module = nn.Linear(2, 1)
    module.register_buffer("kept", torch.zeros(3))
    module.register_buffer("scratch", torch.zeros(5), persistent=False)
    assert set(payload(module)) == {"weight", "bias", "kept"}


def test_counting_changes_nothing() -> None:
    """Mode, statistics and weights are as before."""
    module = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    count(module, (3,))
    assert module.training
    assert module[1].training
    assert all(torch.equal(before[name], tensor) for name, tensor in module.state_dict().items())
