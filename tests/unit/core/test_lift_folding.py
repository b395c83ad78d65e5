"""Decomposed programs lift to the same modules as others."""

import pytest
import torch
import torch.nn.functional as F
from lift_networks import NETWORKS, lifted, modules
from torch import Tensor, nn

aten = torch.ops.aten


@pytest.mark.parametrize(
    "name", ["vision transformer", "encoder layers", "tied text", "layer scale", "packed attention"]
)
def test_linear_layers_come_back(name: str) -> None:
    """Every layer with weights is found again, and reads tensors of the rank that the user's read."""
    make, inputs = NETWORKS[name]
    whole, decomposed = (lifted(make(), inputs(2), way) for way in ("train", "decomposed"))
    stateful = [
        {p: k for p, k in modules(g).items() if hasattr(g.get_submodule(p), "weight")}
        for g in (whole, decomposed)
    ]
    assert stateful[0] == stateful[1]
    products = [
        sum(node.target in (aten.linear.default, aten.matmul.default) for node in g.graph.nodes)
        for g in (whole, decomposed)
    ]
    assert products[0] == products[1]


@pytest.mark.parametrize("name", ["vision transformer", "encoder layers"])
def test_attention_comes_back(name: str) -> None:
    """The written-out attention is one operator again, with its dropout."""
    make, inputs = NETWORKS[name]
    graph = lifted(make(), inputs(2), "decomposed")
    targets = [node.target for node in graph.graph.nodes]
    assert aten.scaled_dot_product_attention.default in targets
    assert aten.softmax.int not in targets


class Attention(nn.Module):
    """Attention with a mask, a scale and dropout."""

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        self.dropout = dropout
        self.fc = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        """Tokens of two heads to tokens."""
        mask = torch.ones(5, 5, dtype=torch.bool).tril()
        q = self.fc(x)
        return F.scaled_dot_product_attention(q, x, x, mask, self.dropout, scale=0.3)


def test_attention_with_mask_and_scale_comes_back() -> None:
    """Mask and scale are arguments of the operator again; its dropout is noted beside it, and a plain run has none."""
    module = Attention(0.125)
    graph = lifted(module, (torch.randn(2, 2, 5, 4),), "decomposed")
    (node,) = [node for node in graph.graph.nodes if node.target is aten.scaled_dot_product_attention.default]
    assert node.args[3] is not None
    assert node.meta["dropout_p"] == 0.125
    assert node.kwargs["scale"] == pytest.approx(0.3)
    module.dropout = 0.0
    x = torch.randn(3, 2, 5, 4)
    torch.testing.assert_close(graph(x), module(x))


def test_silu_comes_back() -> None:
    """x * sigmoid(x) is the user's SiLU module again."""
    graph = lifted(nn.Sequential(nn.Linear(4, 4), nn.SiLU()), (torch.randn(2, 4),), "decomposed")
    assert modules(graph) == {"0": nn.Linear, "1": nn.SiLU}


def test_reshapes_that_change_nothing_are_gone() -> None:
    """A decomposed linear layer over tokens is one module and nothing around it."""
    graph = lifted(nn.Sequential(nn.Linear(4, 4)), (torch.randn(2, 3, 4),), "decomposed")
    assert [node.op for node in graph.graph.nodes] == ["placeholder", "call_module", "output"]
