"""Costs counted on a module, against arithmetic on its layers."""

import lifted_networks
import pytest
import torch
from torch import Tensor, nn

from npn_core.progress import Cost
from npn_core.recount import count, payload


@pytest.mark.parametrize(
    ("module", "input_shape", "expected"),
    [
        (nn.Linear(5, 3), (5,), Cost(params=18, macs=15, bytes=72)),
        (nn.Linear(5, 3, bias=False), (5,), Cost(params=15, macs=15, bytes=60)),
        (nn.Linear(5, 3), (7, 5), Cost(params=18, macs=7 * 15, bytes=72)),
        (nn.Conv2d(2, 4, 3), (2, 6, 7), Cost(params=76, macs=4 * 5 * 2 * 4 * 9, bytes=304)),
        (nn.Conv2d(2, 4, 3, padding=1, stride=2), (2, 6, 7), Cost(params=76, macs=3 * 4 * 72, bytes=304)),
        (nn.Conv2d(4, 4, 3, groups=2), (4, 5, 5), Cost(params=76, macs=9 * 4 * 2 * 9, bytes=304)),
        (nn.Conv1d(2, 4, 3), (2, 6), Cost(params=28, macs=4 * 4 * 2 * 3, bytes=112)),
        (nn.ConvTranspose2d(2, 3, 2, stride=2), (2, 4, 5), Cost(params=27, macs=20 * 2 * 3 * 4, bytes=108)),
        (nn.BatchNorm1d(3), (3,), Cost(params=6, macs=0, bytes=4 * 12 + 8)),
    ],
)
def test_layers(module: nn.Module, input_shape: tuple[int, ...], expected: Cost) -> None:
    """Parameters, multiply-adds without biases, and bytes of each kind of layer."""
    assert count(module, (torch.empty(1, *input_shape),)) == expected


ATTENTION = 2 * 2 * 5 * 5 * 6  # two products, two heads, 5 x 5 pairs, 6 features
MACS = {
    "residual": 64 * 9 * 8 * (3 + 8) + 8 * 4,
    "encoder": 5 * 12 * (36 + 12 + 20) + ATTENTION,
    "merging": 16 * 2 * 3 * 4 + 64 * 5 * 2 + 3 * 4 + 2 * 2 * 64,
}


@pytest.mark.parametrize("name", lifted_networks.NETWORKS)
@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_graphs(name: str, device: str) -> None:
    """Products in graphs count as on paper, attention and matrix products too, for weights on any device."""
    network = lifted_networks.NETWORKS[name]()
    inputs = tuple(x.to("meta") for x in network.batch(1))
    assert count(network.graph.to(device), inputs).macs == MACS[name]


class Attention(nn.Module):
    """Scaled dot products of keys and values that several queries may share."""

    def __init__(self, *, causal: bool, shared: bool) -> None:
        super().__init__()
        self.causal, self.shared = causal, shared

    def forward(self, query: Tensor, key: Tensor) -> Tensor:
        """(N, heads, L, E), (N, key heads, L, E) -> (N, heads, L, E)."""
        return torch.ops.aten.scaled_dot_product_attention.default(
            query, key, key, None, 0.0, self.causal, scale=None, enable_gqa=self.shared
        )


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("key_heads", [4, 2])
def test_attention_counts_every_pair(causal: bool, key_heads: int) -> None:
    """Each head multiplies all pairs twice, whether the mask hides some or heads share their keys."""
    module = Attention(causal=causal, shared=key_heads != 4)
    cost = count(module, (torch.empty(1, 4, 5, 8), torch.empty(1, key_heads, 5, 8)))
    assert cost == Cost(params=0, macs=2 * 4 * 5 * 5 * 8, bytes=0)


def test_tied_parameters_count_once() -> None:
    """Weights used by two layers are stored once, under the first name, but multiplied twice."""
    first, second = nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False)
    second.weight = first.weight
    module = nn.Sequential(first, second)
    assert count(module, (torch.empty(1, 3),)) == Cost(params=9, macs=18, bytes=36)
    assert list(payload(module)) == ["0.weight"]


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
    count(module, (torch.empty(1, 3),))
    assert module.training
    assert module[1].training
    assert all(torch.equal(before[name], tensor) for name, tensor in module.state_dict().items())
    assert not any(type(tensor) is not nn.Parameter for tensor in module.parameters())


def test_no_weight_is_copied_and_nothing_is_computed() -> None:
    """A layer of 4 TB is counted at once."""
    with torch.device("meta"):
        module = nn.Linear(1_000_000, 1_000_000, bias=False)
    assert count(module, (torch.empty(1, 1_000_000),)).macs == 10**12
