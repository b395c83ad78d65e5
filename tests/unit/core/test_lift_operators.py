"""Which operators are refused, by which name and line; which in-place operators are replaced."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from lift_networks import lifted, modules
from torch import Tensor, nn

from npn_core.errors import InvalidInput


class Calls(nn.Module):
    """A network around one function of its own layer and input."""

    def __init__(
        self, function: Callable[[nn.Module, Tensor], Tensor], layer: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.function = function
        self.layer = layer or nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        """The function's value."""
        return self.function(self.layer, x)


def _branches(layer: nn.Module, x: Tensor) -> Tensor:
    return torch.cond(x.sum() > 0, lambda y: y + 1, lambda y: y - 1, (x,))


def _autocast(layer: nn.Module, x: Tensor) -> Tensor:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        return layer(x).float()


@pytest.mark.parametrize(
    ("function", "layer", "named"),
    [
        (
            lambda layer, x: layer(x[:, None])[0],
            nn.LSTM(6, 6, batch_first=True),
            r"aten\.lstm at layer \(test_lift_operators\.py:\d+",
        ),
        (lambda layer, x: layer(x[:, None])[0], nn.GRU(6, 6, batch_first=True), r"aten\.gru at layer"),
        (
            lambda layer, x: layer(x) + torch.rand_like(x),
            None,
            r"aten\.rand_like at .*test_lift_operators\.py",
        ),
        (lambda layer, x: layer(x), nn.RReLU(), r"aten\.rrelu at layer"),
        (lambda layer, x: layer(x[x[:, 0] > 0]), None, r"aten\.index at .*depends on the data"),
        (lambda layer, x: layer(x) * x.sum().item(), None, r"aten\.item at .*depends on the data"),
        (_branches, None, r"cond "),
        (_autocast, None, r"wrap_with_autocast at layer"),
        (lambda layer, x: layer(x).sum(), None, r"aten\.sum at .*must lead with the batch"),
    ],
)
def test_a_refusal_names_operator_and_line(
    function: Callable[[nn.Module, Tensor], Tensor], layer: nn.Module | None, named: str
) -> None:
    """What cannot be lifted is refused by its name and its place in the user's code."""
    with pytest.raises(InvalidInput, match=f"operator {named}") as caught:
        lifted(Calls(function, layer), (torch.randn(2, 6),))
    assert (caught.value.field, caught.value.reason) == ("model.uri", "MODEL_OPERATOR")
    assert "/" not in caught.value.message.split("(")[0]


def _stale_view(layer: nn.Module, x: Tensor) -> Tensor:
    y = layer(x)
    before = y.view(-1, 2, 3)
    y.add_(1)
    return y + before.flatten(1)


def _part(layer: nn.Module, x: Tensor) -> Tensor:
    y = layer(x)
    y[:, 0] = x[:, 1]
    return y


def _chain(layer: nn.Module, x: Tensor) -> Tensor:
    y = layer(x)
    z = y.relu_().mul_(2)
    return y + z


def _copy(layer: nn.Module, x: Tensor) -> Tensor:
    return layer(x.clone().sub_(1)) + x


@pytest.mark.parametrize("way", ["train", "fixed"])
@pytest.mark.parametrize("function", [_stale_view, _part, _chain, _copy])
def test_in_place_operators_keep_their_meaning(
    function: Callable[[nn.Module, Tensor], Tensor], way: str
) -> None:
    """A changed tensor is changed for whoever reads it afterwards, under any of its names."""
    module, x = Calls(function), torch.randn(3, 6)
    graph = lifted(module, (torch.randn(2, 6),), way)
    torch.testing.assert_close(graph(x), module(x))


def test_a_part_of_a_buffer_that_changes_is_refused() -> None:
    """A write through a view of a buffer is found."""

    class Cache(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("cache", torch.zeros(3, 6))

        def forward(self, x: Tensor) -> Tensor:
            self.cache[0] = 1.0
            return x + 1

    with pytest.raises(InvalidInput, match=r"aten\.\w+_ at .*'cache' in place"):
        lifted(Cache(), (torch.randn(2, 6),))


def test_no_gradient_where_the_user_wanted_none() -> None:
    """A block without gradients gives none to what it computed, and the rest keeps its own."""

    def function(layer: nn.Module, x: Tensor) -> Tensor:
        with torch.no_grad():
            frozen = layer(x)
        return frozen * layer(x)

    module, x = Calls(function), torch.randn(2, 6)
    graph = lifted(module, (x,))
    graph(x).sum().backward()
    module(x).sum().backward()
    torch.testing.assert_close(graph.get_parameter("layer.weight").grad, module.layer.weight.grad)


def test_gated_linear_units_are_a_split() -> None:
    """glu becomes a product of two halves, whose units then couple."""
    graph = lifted(Calls(lambda layer, x: F.glu(layer(x), -1)), (torch.randn(2, 6),))
    assert torch.ops.aten.split_with_sizes.default in {node.target for node in graph.graph.nodes}


@pytest.mark.parametrize("way", ["train", "eval"])
@pytest.mark.parametrize("layer", [nn.Dropout(0.3), nn.Dropout1d(0.4), nn.AlphaDropout(0.2)])
def test_dropout_follows_the_mode(layer: nn.Module, way: str) -> None:
    """Dropout drops in train mode alone, with the user's probability, whichever mode was exported."""
    x = torch.ones(2, 6, 50)
    graph = lifted(Calls(lambda layer, x: layer(x), layer), (x,), way)
    assert modules(graph) == {"layer": type(layer)}
    assert graph.get_submodule("layer").p == layer.p  # type: ignore[union-attr]
    assert torch.equal(graph.eval()(x), x)
    assert not torch.equal(graph.train()(x), x)


def test_attention_keeps_its_dropout() -> None:
    """The probability is noted at the operator, which does not drop by itself: who trains the graph applies it."""
    attention = nn.MultiheadAttention(6, 2, dropout=0.25, batch_first=True)

    def function(layer: nn.Module, x: Tensor) -> Tensor:
        return layer(x, x, x, need_weights=False)[0]

    graph = lifted(Calls(function, attention), (torch.randn(2, 4, 6),))
    target = torch.ops.aten.scaled_dot_product_attention.default
    (node,) = [node for node in graph.graph.nodes if node.target is target]
    assert node.args[3:] == (None, 0.0, False)
    assert node.meta["dropout_p"] == 0.25


def test_a_name_that_the_graph_itself_needs_is_refused() -> None:
    """A part called like an attribute of GraphModule would hide it."""

    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.graph = nn.Linear(6, 6)

        def forward(self, x: Tensor) -> Tensor:
            return self.graph(x)

    with pytest.raises(InvalidInput, match="'graph'"):
        lifted(Named(), (torch.randn(2, 6),))
