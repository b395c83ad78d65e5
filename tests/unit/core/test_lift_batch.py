"""A program with a fixed batch follows any batch, or is refused by name and line."""

from collections.abc import Callable

import pytest
import torch
from lift_networks import VisionTransformer, decomposed, exported, lifted
from torch import Tensor, nn
from torch.export import Dim, export

from npn_core.errors import InvalidInput
from npn_core.lift import lift


class Function(nn.Module):
    """A function of a linear layer's output."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function
        self.layer = nn.Linear(6, 6)
        self.token = nn.Parameter(torch.randn(1, 6))

    def forward(self, x: Tensor) -> Tensor:
        """The function's value."""
        return self.function(self.layer(x))


def _tokens_first(y: Tensor) -> Tensor:
    """(B, 6) as MultiheadAttention lays it out: heads and batch merged, batch in the middle."""
    tokens = y.view(y.shape[0], 3, 2).transpose(0, 1)
    merged = tokens.contiguous().view(3, y.shape[0] * 2, 1).transpose(0, 1)
    return (merged * 2).transpose(0, 1).reshape(3, y.shape[0], 2).transpose(0, 1).reshape(y.shape[0], 6)


def _windows(y: Tensor) -> Tensor:
    windows = y.view(y.shape[0], 3, 2).reshape(-1, 2).softmax(-1)
    return windows.view(y.shape[0], 3, 2).flatten(1)


def _ranges(y: Tensor) -> Tensor:
    rows = torch.arange(y.shape[0])[:, None]
    return y[rows, torch.tensor([5, 1, 0])]


def _constructed(y: Tensor) -> Tensor:
    zeros = y.new_zeros(y.shape[0], 1)
    return torch.cat([torch.ones(y.shape[0], 1), y, zeros, torch.full((y.shape[0], 2), 0.5)], dim=1)


def _unflattened(y: Tensor) -> Tensor:
    other = y.unflatten(1, (2, 3)).swapaxes(1, 2)
    return other.reshape(y.shape[0], 6) + torch.zeros(6).expand_as(y) + y.reshape_as(y)


@pytest.mark.parametrize("batch", [1, 2, 3, 6])
@pytest.mark.parametrize("function", [_tokens_first, _windows, _ranges, _constructed, _unflattened])
def test_a_fixed_batch_is_followed(function: Callable[[Tensor], Tensor], batch: int) -> None:
    """Whatever the example's batch was, even a size that other dimensions have too, any batch works."""
    module = Function(function)
    graph = lifted(module, (torch.randn(batch, 6),), "fixed")
    for size in (1, 2, 5):
        x = torch.randn(size, 6)
        torch.testing.assert_close(graph(x), module(x))


@pytest.mark.parametrize("batch", [1, 2, 5])
@pytest.mark.parametrize("way", ["fixed", "decomposed"])
def test_a_transformer_with_a_fixed_batch_is_followed(way: str, batch: int) -> None:
    """Class token, heads and merged dimensions follow the batch, where it equals the token count (5) as well."""
    module = VisionTransformer()
    program = exported(module, (torch.randn(batch, 3, 8, 8),), "fixed")
    if way == "decomposed":
        program = decomposed(program)
    graph = lift(program)
    for size in (1, 2, 4):
        x = torch.randn(size, 3, 8, 8)
        torch.testing.assert_close(graph(x), module(x), rtol=1e-5, atol=1e-6)


def _selects(y: Tensor) -> Tensor:
    return y[torch.tensor([0, 1])]


def _mixes(y: Tensor) -> Tensor:
    return y.reshape(1, 12)[:, :8].expand(2, 8)


def _transposes(y: Tensor) -> Tensor:
    return (y @ y.T).reshape(4).view(2, 2)


@pytest.mark.parametrize(
    ("function", "named"),
    [(_selects, "aten.index"), (_mixes, "aten.expand"), (_transposes, "aten.matmul")],
)
def test_a_batch_that_cannot_be_told_is_refused(function: Callable[[Tensor], Tensor], named: str) -> None:
    """Constants that count the example's samples are named with their line."""
    with pytest.raises(InvalidInput, match=rf"{named} at .*test_lift_batch\.py:\d+") as caught:
        lifted(Function(function), (torch.randn(2, 6),), "fixed")
    assert caught.value.reason == "MODEL_OPERATOR"


def test_a_dynamic_length_keeps_the_examples_value() -> None:
    """Another dynamic dimension than the batch is fixed to what the example had."""

    class Positions(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(x) * torch.arange(x.shape[1])[:, None] + x.shape[1]

    module, shapes = Positions(), ({0: Dim("batch"), 1: Dim("length")},)
    graph = lift(export(module, (torch.randn(2, 5, 4),), dynamic_shapes=shapes))
    x = torch.randn(3, 5, 4)
    torch.testing.assert_close(graph(x), module(x))


class TwoTowers(nn.Module):
    """Two inputs that never meet."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """One output for each."""
        return self.fc(x), self.fc(y)


def test_inputs_with_symbols_of_their_own_share_the_batch() -> None:
    """Two dynamic first dimensions are one batch."""
    shapes = ({0: Dim("one")}, {0: Dim("other")})
    graph = lift(export(TwoTowers(), (torch.randn(2, 4), torch.randn(2, 4)), dynamic_shapes=shapes))
    assert [len(out) for out in graph(torch.randn(3, 4), torch.randn(3, 4))] == [3, 3]


def test_inputs_without_a_common_batch_are_refused() -> None:
    """The refusal gives the sizes that differ."""
    with pytest.raises(InvalidInput, match=r"\[2, 3\]") as caught:
        lift(export(TwoTowers(), (torch.randn(2, 4), torch.randn(3, 4))))
    assert caught.value.reason == "MODEL_INPUT"
