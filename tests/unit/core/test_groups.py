"""The groups that are found in sequential networks, closure, and active units as indices."""

import pytest
import torch
from small_networks import conv_net
from torch import nn

from npn_core.catalogue import build
from npn_core.graph import trace
from npn_core.groups import Axes, Coupling, active_units, all_active, find_groups


def groups_of(module: nn.Module, input_shape: tuple[int, ...]) -> Coupling:
    """The groups found in a module."""
    return find_groups(trace(module, input_shape))


def summary(coupling: Coupling) -> list[tuple[str, str, int]]:
    """Name, kind and size of every group."""
    return [(group.name, group.kind.value, group.size) for group in coupling.groups]


def test_lenet5_caffe() -> None:
    """Channels, the 800 features inside conv2's channels, and neurons; the outputs have no gates."""
    coupling = groups_of(build("lenet5-caffe", {}, input_shape=(1, 28, 28), classes=10, seed=0), (1, 28, 28))
    assert summary(coupling) == [
        ("conv1", "channel", 20),
        ("conv2", "channel", 50),
        ("fc1.in", "feature", 800),
        ("fc1", "neuron", 500),
    ]
    assert coupling.size == 1370
    assert [group.offset for group in coupling.groups] == [0, 20, 70, 870]
    assert coupling.children["conv2"].name == "fc1.in"
    assert coupling.children["conv2"].per_parent == 16
    assert coupling.modules["fc1"] == Axes(rows="fc1", cols="fc1.in")
    assert coupling.modules["fc2"] == Axes(rows=None, cols="fc1")


@pytest.mark.parametrize(("input_shape", "selected_at"), [((1, 4, 4), "flatten"), ((16,), "input_1")])
def test_mlp(input_shape: tuple[int, ...], selected_at: str) -> None:
    """The input features have gates of their own and no parent, for images and for flat samples."""
    module = build("mlp", {"hidden": "8,5"}, input_shape=input_shape, classes=3, seed=0)
    coupling = groups_of(module, input_shape)
    assert summary(coupling) == [("fc1.in", "feature", 16), ("fc1", "neuron", 8), ("fc2", "neuron", 5)]
    assert coupling.by_name["fc1.in"].parent is None
    assert coupling.selects == {selected_at: "fc1.in"}


def test_a_single_linear_layer() -> None:
    """Only its input features can go."""
    assert summary(groups_of(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), (1, 2, 2))) == [
        ("1.in", "feature", 4)
    ]


def test_norms_and_dropouts_follow_what_they_act_on() -> None:
    """Before the flatten they belong to channels, after it to features."""
    coupling = groups_of(conv_net(), (1, 8, 8))
    assert coupling.modules["bn2"] == Axes(rows="conv2", cols=None)
    assert coupling.modules["bn3"] == Axes(rows="fc1.in", cols=None)
    assert coupling.outputs["drop1"] == "conv1"
    assert coupling.outputs["drop2"] == "fc1.in"
    assert coupling.outputs["drop3"] == "fc1"


def test_a_norm_over_the_input() -> None:
    """A BatchNorm on flat samples belongs to the gated input features."""
    coupling = groups_of(nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 2)), (4,))
    assert coupling.modules["0"] == Axes(rows="1.in", cols=None)
    assert coupling.selects == {"input_1": "1.in"}


def test_global_pooling_leaves_no_features() -> None:
    """With one feature a channel the channel's gate is the feature's."""
    module = nn.Sequential(nn.Conv2d(1, 3, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2))
    coupling = groups_of(module, (1, 5, 5))
    assert summary(coupling) == [("0", "channel", 3)]
    assert coupling.modules["3"] == Axes(rows=None, cols="0")
    assert not coupling.selects


def flattened() -> Coupling:
    """Two channels of two features, one neuron: gates c0 c1 f00 f01 f10 f11 n."""
    module = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(4, 1), nn.ReLU(), nn.Linear(1, 2))
    return groups_of(module, (1, 3, 4))


@pytest.mark.parametrize(
    ("gates", "alive"),
    [
        ("1111111", "1111111"),
        ("1011110", "1011000"),  # a dead channel's features are dead
        ("1110001", "1010001"),  # a channel without live features is dead
        ("0111001", "0000001"),  # both at once
    ],
)
def test_closure(gates: str, alive: str) -> None:
    """A feature needs its channel, a channel one of its features; the gates given are not changed."""
    mask = torch.tensor([bit == "1" for bit in gates])
    before = mask.clone()
    closed = flattened().close(mask)
    assert "".join(str(int(bit)) for bit in closed) == alive
    assert torch.equal(flattened().close(closed), closed)
    assert torch.equal(mask, before)


def test_active_units() -> None:
    """Indices per group; features as positions among those of the live channels; None where nothing is cut."""
    coupling = flattened()
    active = active_units(coupling, torch.tensor([False, True, False, False, False, True, True]))
    units = {name: None if index is None else index.tolist() for name, index in active.units.items()}
    assert units == {"0": [1], "2.in": [3], "2": None}
    (positions,) = active.positions.values()
    assert positions is not None
    assert positions.tolist() == [1]


def test_all_features_of_the_live_channels_need_no_selection() -> None:
    """Where a channel goes with all of its features, slicing the convolution is enough."""
    active = active_units(flattened(), torch.tensor([False, True, False, False, True, True, True]))
    assert list(active.positions.values()) == [None]


def test_everything_active_slices_nothing() -> None:
    """A full mask is None everywhere."""
    active = all_active(flattened())
    assert set(active.units.values()) | set(active.positions.values()) == {None}


def test_gates_have_names() -> None:
    """Messages can say which unit an entry of the gate vector is."""
    assert [flattened().gate_name(i) for i in (0, 1, 2, 6)] == ["0[0]", "0[1]", "2.in[0]", "2[0]"]
