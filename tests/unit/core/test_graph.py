"""What can be traced, and how refusals read."""

import pytest
import torch
from torch import Tensor, nn

from npn_core.errors import InvalidInput
from npn_core.graph import trace


def test_nodes_know_their_shapes() -> None:
    """Every node notes its output's shape for one sample; mode and statistics are left alone."""
    module = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 3))
    graph = trace(module, (1, 4, 4))
    shapes = [node.meta["shape"] for node in graph.graph.nodes]
    assert shapes == [(1, 4, 4), (2, 2, 2), (2, 2, 2), (8,), (3,), (3,)]
    assert graph.training
    assert int(graph.get_buffer("1.num_batches_tracked")) == 0


class Adds(nn.Module):
    """A branch, which needs groups of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        """x + fc(x)."""
        return x + self.fc(x)


def shared() -> nn.Sequential:
    """A network that calls one linear layer twice."""
    layer = nn.Linear(4, 4)
    return nn.Sequential(layer, nn.ReLU(), layer)


@pytest.mark.parametrize(
    ("module", "input_shape", "named"),
    [
        (nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4)), (4,), "'1' (LayerNorm"),
        (nn.Sequential(nn.Linear(4, 4), nn.Softmax(1)), (4,), "'1' (Softmax"),
        (nn.Sequential(nn.Conv2d(2, 4, 3, groups=2)), (2, 4, 4), "groups=1"),
        (nn.Sequential(nn.Conv2d(2, 4, 3, padding=1, padding_mode="circular")), (2, 4, 4), "padding_mode"),
        (nn.Sequential(nn.Flatten(0), nn.ReLU()), (4,), "'0' (Flatten"),
        (nn.Sequential(nn.Flatten(1, 2), nn.ReLU()), (2, 3, 4), "'0' (Flatten"),
        (nn.Sequential(nn.Linear(4, 4)), (3, 4), "flat"),
        (Adds(), (4,), "add"),
        (shared(), (4,), "2 times"),
    ],
)
def test_refusals_name_the_module(module: nn.Module, input_shape: tuple[int, ...], named: str) -> None:
    """What the method cannot handle is refused by its name, not silently computed in another way."""
    with pytest.raises(InvalidInput) as refused:
        trace(module, input_shape)
    assert refused.value.field == "model"
    assert named in refused.value.message


def test_activations_may_be_shared() -> None:
    """A module without weights can be called twice."""
    relu = nn.ReLU()
    module = nn.Sequential(nn.Linear(2, 2), relu, nn.Linear(2, 2), relu)
    graph = trace(module, (2,))
    x = torch.randn(3, 2, generator=torch.Generator().manual_seed(0))
    assert torch.equal(graph(x), module(x))
