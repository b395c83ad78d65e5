"""The groups that are found in sequential networks, closure, and active units as indices."""

from functools import cache

import pytest
import torch
from small_networks import along, conv_network, network, summary, unit_name
from torch import Tensor, nn

from npn_core.catalogue import build
from npn_core.gated import Network
from npn_core.graph import source
from npn_core.groups import Active, Coupling


def groups_of(module: nn.Module, input_shape: tuple[int, ...]) -> Coupling:
    """The groups found in a module."""
    return network(module, input_shape).coupling


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
    assert coupling.parent[70:870].tolist() == [20 + feature // 16 for feature in range(800)]
    assert coupling.closes.nonzero().flatten().tolist() == list(range(20, 70))
    assert {unit: len(inside) for unit, inside in coupling.children.items()} == dict.fromkeys(
        range(20, 70), 16
    )
    assert along(coupling, coupling.tensors["fc1.weight"]) == ["fc1", "fc1.in"]
    assert along(coupling, coupling.tensors["fc2.weight"]) == [None, "fc1"]
    assert coupling.readers == {("conv2.weight", 1), ("fc1.weight", 1), ("fc2.weight", 1)}
    assert [(one.name, one.size) for one in coupling.unpruned] == [("fc2", 10)]


def selected(net: Network, name: str) -> tuple[str, list[str | list[str] | None]]:
    """What the selection called `name` reads; its features and what they lie in."""
    (select,) = (node for node in net.graph.graph.nodes if node.target == name)
    return source(select).name, along(net.coupling, net.coupling.selects[select.name])


@pytest.mark.parametrize(
    ("input_shape", "selected_at"), [((1, 4, 4), "flatten_using_ints"), ((16,), "input_1")]
)
def test_mlp(input_shape: tuple[int, ...], selected_at: str) -> None:
    """The input features have gates of their own and no parent, for images and for flat samples."""
    module = build("mlp", {"hidden": "8,5"}, input_shape=input_shape, classes=3, seed=0)
    net = network(module, input_shape)
    coupling = net.coupling
    assert summary(coupling) == [("fc1.in", "feature", 16), ("fc1", "neuron", 8), ("fc2", "neuron", 5)]
    assert not len(coupling.features)
    assert selected(net, "fc1_in") == (selected_at, ["fc1.in", None])


def test_a_single_linear_layer() -> None:
    """Only its input features can go."""
    assert summary(groups_of(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), (1, 2, 2))) == [
        ("1.in", "feature", 4)
    ]


def test_norms_and_dropouts_follow_what_they_act_on() -> None:
    """Before the flatten they belong to channels, after it to features."""
    coupling = conv_network().coupling
    for name in ("weight", "bias", "running_mean", "running_var"):
        assert along(coupling, coupling.tensors[f"bn2.{name}"]) == ["conv2"]
        assert along(coupling, coupling.tensors[f"bn3.{name}"]) == ["fc1.in"]
    assert along(coupling, coupling.values["drop1"]) == [None, "conv1", None, None]
    assert along(coupling, coupling.values["drop2"]) == [None, "fc1.in"]
    assert along(coupling, coupling.values["drop3"]) == [None, "fc1"]


def test_a_norm_over_the_input() -> None:
    """A BatchNorm on flat samples belongs to the gated input features."""
    net = network(nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 2)), (4,))
    assert along(net.coupling, net.coupling.tensors["0.running_var"]) == ["1.in"]
    assert selected(net, "1_in") == ("input_1", ["1.in", None])


def test_global_pooling_leaves_no_features() -> None:
    """With one feature a channel the channel's gate is the feature's."""
    module = nn.Sequential(nn.Conv2d(1, 3, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2))
    coupling = groups_of(module, (1, 5, 5))
    assert summary(coupling) == [("0", "channel", 3)]
    assert along(coupling, coupling.tensors["3.weight"]) == [None, "0"]
    assert not coupling.selects


@cache
def flattened() -> Coupling:
    """Two channels of two features, two neurons: gates c0 c1 f00 f01 f10 f11 n0 n1."""
    module = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(4, 2), nn.ReLU(), nn.Linear(2, 2))
    return groups_of(module, (1, 3, 4))


@pytest.mark.parametrize(
    ("gates", "alive"),
    [
        ("11111111", "11111111"),
        ("10111100", "10110000"),  # a dead channel's features are dead
        ("11100010", "10100010"),  # a channel without live features is dead
        ("01110010", "00000010"),  # both at once
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


def active(*units: int) -> Active:
    """These units of `flattened`."""
    mask = torch.zeros(8, dtype=torch.bool)
    mask[list(units)] = True
    assert torch.equal(flattened().close(mask), mask)
    return flattened().active(mask)


def listed(indices: tuple[Tensor | None, ...]) -> list[list[int] | None]:
    """Indices as lists."""
    return [None if index is None else index.tolist() for index in indices]


def test_active_units() -> None:
    """Indices along every axis; features as positions among those of the live channels; None where nothing is cut."""
    coupling, some = flattened(), active(1, 5, 6, 7)
    assert listed(some.indices(coupling.tensors["0.weight"])) == [[1], None, None, None]
    assert listed(some.indices(coupling.tensors["2.weight"])) == [None, [3]]
    assert listed(some.indices(coupling.values["flatten_using_ints"])) == [None, [2, 3]]
    (picked,) = (some.picked(node) for node in coupling.selects)
    assert picked is not None
    assert picked.tolist() == [1]
    assert not some.whole


def test_active_units_are_counted() -> None:
    """Live positions of an axis, and of its first ones."""
    coupling, some = flattened(), active(0, 2, 3, 7)
    features = coupling.tensors["2.weight"][1]
    neurons = coupling.tensors["2.weight"][0]
    assert features is not None
    assert neurons is not None
    assert [some.count(features), some.count(features, 1), some.count(features, 4)] == [2, 1, 2]
    assert [some.count(neurons), some.count(neurons, 1)] == [1, 0]
    assert coupling.everything().count(features, 3) == 3


def test_all_features_of_the_live_channels_need_no_selection() -> None:
    """Where a channel goes with all of its features, slicing the convolution is enough."""
    some = active(1, 4, 5, 6, 7)
    assert [some.picked(node) for node in flattened().selects] == [None]
    assert listed(some.indices(flattened().tensors["2.weight"])) == [None, [2, 3]]


def test_everything_active_slices_nothing() -> None:
    """A full mask is None everywhere."""
    coupling = flattened()
    everything = coupling.everything()
    assert everything.whole
    assert {everything.index(axis) for axis in range(len(coupling.axes))} == {None}
    assert [everything.picked(node) for node in coupling.selects] == [None]


def test_gates_have_groups() -> None:
    """Which unit an entry of the gate vector is can be told."""
    names = [unit_name(flattened(), unit) for unit in range(8)]
    assert names == ["0[0]", "0[1]", "2.in[0]", "2.in[1]", "2.in[2]", "2.in[3]", "2[0]", "2[1]"]


def test_a_single_unit_has_no_gate() -> None:
    """A group keeps a unit, so that the gate of a lone one could only be open."""
    module = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(4, 1), nn.ReLU(), nn.Linear(1, 2))
    coupling = groups_of(module, (1, 3, 4))
    assert summary(coupling) == [("0", "channel", 2), ("2.in", "feature", 4)]
    assert [one.name for one in coupling.unpruned] == ["2", "4"]
    assert coupling.unpruned[0].reason == "it is a single unit"
