"""precision.py: what training passes compute in."""

from typing import Any

import pytest
import torch
from small_networks import conv_network, network
from torch import Tensor, nn

from npn_core.config import Training
from npn_core.errors import InvalidInput
from npn_core.precision import BFLOAT16_FROM, bfloat16_is_faster, with_precision

X = (torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0)),)


class Blends(nn.Module):
    """An operator that wants all of its inputs in one precision: a product's, and a parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(6, 8), nn.Linear(8, 3)
        self.other = nn.Parameter(torch.ones(8))

    def forward(self, x: Tensor) -> Tensor:
        """A blend of the two."""
        hidden = self.first(x)
        return self.last(torch.lerp(hidden, self.other.expand_as(hidden), 0.5))


@pytest.fixture
def _has(monkeypatch: pytest.MonkeyPatch) -> None:
    """A CPU with AVX512-BF16."""
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True})


@pytest.mark.parametrize(
    ("device", "macs", "has", "gains"),
    [
        ("cpu", BFLOAT16_FROM, {"avx512_bf16": True}, True),
        ("cpu", BFLOAT16_FROM, {"avx512_bf16": False, "amx_bf16": True}, True),
        ("cpu", BFLOAT16_FROM - 1, {"avx512_bf16": True}, False),
        ("cpu", BFLOAT16_FROM, {"avx2": True}, False),
        ("cuda", 1, {}, True),
    ],
)
def test_where_bfloat16_is_faster(
    device: str, macs: int, has: dict[str, Any], gains: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a GPU, and on a CPU that has it where the network is large enough."""
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: has)
    assert bfloat16_is_faster(torch.device(device), macs) is gains


@pytest.mark.usefixtures("_has")
@pytest.mark.parametrize(
    ("given", "loss", "macs", "precision"),
    [
        ("auto", "cross_entropy", BFLOAT16_FROM, "bfloat16"),
        ("auto", "cross_entropy", 1, "float32"),
        ("auto", "mse", BFLOAT16_FROM, "float32"),
        ("auto", "distill", BFLOAT16_FROM, "float32"),
        ("float32", "cross_entropy", BFLOAT16_FROM, "float32"),
        ("bfloat16", "mse", 1, "bfloat16"),
    ],
)
def test_what_is_asked_for_counts(given: str, loss: str, macs: int, precision: str) -> None:
    """And what is faster where nothing is, for classes; trying it changes nothing of the network."""
    net = conv_network()
    before = {name: tensor.clone() for name, tensor in (net.parameters | net.buffers).items()}
    assert with_precision(Training(precision=given, loss=loss), net, macs, X).precision == precision
    assert all(torch.equal(tensor, before[name]) for name, tensor in (net.parameters | net.buffers).items())


@pytest.mark.usefixtures("_has")
def test_an_operator_that_does_not_take_bfloat16() -> None:
    """The network trains in float32, unless the job says otherwise: then it is told so."""
    net, x = network(Blends(), (6,)), (torch.ones(2, 6),)
    assert with_precision(Training(), net, BFLOAT16_FROM, x).precision == "float32"
    assert with_precision(Training(precision="float32"), net, BFLOAT16_FROM, x).precision == "float32"
    with pytest.raises(InvalidInput, match=r"in bfloat16: expected dtype .*; use float32 or auto") as caught:
        with_precision(Training(precision="bfloat16"), net, BFLOAT16_FROM, x)
    assert caught.value.field == "training.precision"
