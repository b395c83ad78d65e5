"""Slices along several dimensions, and constants that follow the number of live units."""

import itertools

import pytest
import torch
from small_networks import conv_network
from torch import Tensor

from npn_core.groups import Active, Coupling, Follower
from npn_core.slices import Indices, follow, put, take

SHAPE = (4, 5, 2, 3)
PLACES = ([None, [], [1, 3]], [None, [], [0, 4]], [None, [1]], [None, [2, 0]])


def index(places: list[int] | None) -> Tensor | None:
    """Positions as a tensor."""
    return None if places is None else torch.tensor(places, dtype=torch.int64)


def inside(shape: tuple[int, ...], places: tuple[list[int] | None, ...]) -> Tensor:
    """1 where a slice lies in a tensor of this shape."""
    found = torch.ones(shape)
    for dim, own in enumerate(places[: len(shape)]):
        along = torch.ones(shape[dim])
        if own is not None:
            along = torch.zeros(shape[dim])
            along[own] = 1
        found = found * along.view([-1 if d == dim else 1 for d in range(len(shape))])
    return found


@pytest.mark.parametrize("rank", [1, 2, 3, 4])
@pytest.mark.parametrize("layout", ["contiguous", "transposed"])
def test_put_is_the_inverse_of_take(rank: int, layout: str) -> None:
    """Writing a slice back changes the slice and nothing else, whatever dimensions it is cut along."""
    shape = SHAPE[:rank]
    for places in itertools.product(*PLACES[:rank]):
        tensor = torch.rand(shape, generator=torch.Generator().manual_seed(0))
        if layout == "transposed":
            tensor = tensor.mT.contiguous().mT if rank > 1 else tensor
        expected = tensor + inside(shape, places)
        indices = tuple(index(own) for own in places)
        put(tensor, indices, take(tensor, indices) + 1)
        assert torch.equal(tensor, expected), places


def test_take_takes_the_positions_in_order() -> None:
    """The slice has as many entries along each dimension as positions, in their order."""
    tensor = torch.arange(24).view(2, 3, 4)
    found = take(tensor, (None, torch.tensor([2, 0]), torch.tensor([3])))
    assert found.tolist() == [[[11], [3]], [[23], [15]]]


def test_nothing_cut_is_the_tensor_itself() -> None:
    """Without indices nothing is copied; indices may be fewer than dimensions; putting it back is a no-op."""
    tensor = torch.rand(3, 4)
    assert take(tensor, (None, None)) is tensor
    assert take(tensor, ()) is tensor
    before = tensor.clone()
    put(tensor, (None,), tensor)
    assert torch.equal(tensor, before)
    assert take(tensor, (torch.tensor([1]),)).shape == (1, 4)


def test_a_whole_tensor_can_be_put() -> None:
    """Without indices the value replaces everything."""
    tensor = torch.zeros(2, 3)
    indices: Indices = (None, None)
    put(tensor, indices, torch.ones(2, 3))
    assert bool(tensor.all())


def conv_units(names: dict[str, list[int]]) -> tuple[Coupling, Active]:
    """The given units of each group of `conv_net`, all of the others."""
    coupling = conv_network().coupling
    mask = torch.ones(coupling.size, dtype=torch.bool)
    for name, kept in names.items():
        group = coupling.by_name[name]
        mask[group.slice] = False
        mask[[group.offset + unit for unit in kept]] = True
    return coupling, coupling.active(coupling.close(mask))


def axis_of(coupling: Coupling, tensor: str, dim: int) -> int:
    """The number of an axis."""
    axis = coupling.tensors[tensor][dim]
    assert axis is not None
    return axis


def test_constants_follow() -> None:
    """A size in a list, one that counts the first positions alone, and a multiple of the batch."""
    coupling, active = conv_units({"conv1": [0, 3], "fc1": [1, 2, 5]})
    channels, neurons = axis_of(coupling, "conv1.weight", 0), axis_of(coupling, "fc1.weight", 0)
    followers = (
        Follower(argument=1, item=1, axis=channels, length=4, batched=False),
        Follower(argument=1, item=2, axis=neurons, length=6, batched=True),
        Follower(argument=2, item=None, axis=neurons, length=2, batched=False),
    )
    x = torch.zeros(1)
    given = [x, [7, 4, 48, -1], 2]
    found = follow(given, followers, active)
    assert found[0] is x
    assert found[1:] == [[7, 2, 24, -1], 1]
    assert given == [x, [7, 4, 48, -1], 2]


def test_constants_stay_where_nothing_sleeps() -> None:
    """With every unit awake they are what the graph says."""
    coupling, active = conv_units({})
    channels = axis_of(coupling, "conv1.weight", 0)
    followers = (Follower(argument=0, item=0, axis=channels, length=4, batched=True),)
    assert follow([[12]], followers, active) == [[12]]
