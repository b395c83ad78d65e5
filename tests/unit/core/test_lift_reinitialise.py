"""Fresh values for a lifted module."""

import copy

import pytest
import torch
from lift_networks import NETWORKS, LayerScale, TiedText, VisionTransformer, lifted
from torch import nn

from npn_core.lift import reinitialise


@pytest.mark.parametrize("name", ["residual block", "vision transformer", "tied text", "shared modules"])
def test_the_same_seed_gives_the_same_values(name: str) -> None:
    """Values depend on the seed and the old values alone, and the global generator is left where it was."""
    make, inputs = NETWORKS[name]
    graph = lifted(make(), inputs(2))
    before = torch.random.get_rng_state()
    drawn = [copy.deepcopy(graph) for _ in range(3)]
    for seed, each in zip((1, 1, 2), drawn, strict=True):
        reinitialise(each, seed)
    first, second, third = (list(each.parameters()) for each in drawn)
    assert torch.equal(before, torch.random.get_rng_state())
    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))
    assert not all(torch.equal(one, other) for one, other in zip(first, third, strict=True))


def test_layers_start_as_torch_starts_them() -> None:
    """A linear layer's values are those that its own reset gives."""
    graph = lifted(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)), (torch.randn(2, 4),))
    reinitialise(graph, 5)
    torch.manual_seed(5)
    expected = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    torch.testing.assert_close(graph.state_dict(), expected.state_dict())


def test_running_statistics_are_reset() -> None:
    """What BatchNorm gathered from the old weights is forgotten."""
    make, inputs = NETWORKS["residual block"]
    graph = lifted(make(), inputs(2))
    graph(*inputs(4))
    assert int(graph.get_buffer("bn1.num_batches_tracked")) == 1
    reinitialise(graph, 0)
    assert int(graph.get_buffer("bn1.num_batches_tracked")) == 0
    assert torch.equal(graph.get_buffer("bn1.running_mean"), torch.zeros(8))
    assert torch.equal(graph.get_buffer("bn1.running_var"), torch.ones(8))


def test_loose_parameters_keep_mean_and_deviation() -> None:
    """A class token is drawn like its old values; a constant scale stays constant."""
    graph = lifted(VisionTransformer(), (torch.randn(2, 3, 8, 8),))
    positions = graph.get_parameter("positions")
    with torch.no_grad():
        positions.mul_(0.02).add_(3.0)
    old = positions.detach().clone()
    reinitialise(graph, 0)
    assert not torch.equal(positions, old)
    assert positions.mean().item() == pytest.approx(3.0, abs=0.02)
    assert positions.std().item() == pytest.approx(0.02, rel=0.5)
    scaled = lifted(LayerScale(), (torch.randn(2, 4, 5, 5),))
    reinitialise(scaled, 0)
    assert torch.equal(scaled.get_parameter("gamma"), torch.full((4,), 0.5))


def test_tied_weights_are_drawn_once() -> None:
    """The first module in the graph decides: an embedding here, so the padding stays zero."""
    graph = lifted(TiedText(), (torch.randint(0, 11, (2, 5)),))
    reinitialise(graph, 0)
    weight = graph.get_parameter("head.weight")
    assert weight is graph.get_parameter("embedding.weight")
    assert torch.equal(weight[0], torch.zeros(8))
    assert weight[1:].std().item() == pytest.approx(1.0, abs=0.3)
