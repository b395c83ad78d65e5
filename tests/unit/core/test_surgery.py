"""Compact modules equal the gated network, are plain and small, and give their weights back."""

import pytest
import torch
from small_networks import CONV_INPUT, CONV_INPUTS, batch, conv_net, conv_network, cross_entropy, random_mask
from torch import Generator, Tensor, nn

from npn_core.gated import Network, Noise
from npn_core.groups import Active
from npn_core.optimizer import SlicedAdam
from npn_core.step import Sliced, gated_outputs
from npn_core.surgery import compact, without_gates, write_back

TOLERANCE = 1e-5


def trained(steps: int = 5) -> Network:
    """A network whose weights and statistics are no longer those of its start."""
    net = conv_network()
    train(net, steps)
    return net


def train(net: Network, steps: int) -> None:
    """Train the whole network on noise."""
    runner, adam = Sliced(net, cross_entropy), SlicedAdam(parameters=net.parameters)
    data = Generator().manual_seed(0)
    for _ in range(steps):
        x, y = batch(data)
        evaluation = runner.differentiate(x, y, net.everything, Noise(generator=data))
        adam.step(evaluation.updates, lr=0.01)


def some_units(net: Network, seed: int) -> Active:
    """About half of the units."""
    return net.active(random_mask(net.coupling, Generator().manual_seed(seed), 0.5))


def outputs(module: nn.Module, x: tuple[Tensor, ...]) -> Tensor:
    """Outputs in evaluation mode."""
    with torch.no_grad():
        return module.eval()(*x)


@pytest.mark.parametrize("seed", range(5))
def test_compact_equals_gated(seed: int) -> None:
    """The same outputs as the full network with closed gates, and as the sliced one."""
    net = trained()
    active = some_units(net, seed)
    x, _ = batch(Generator().manual_seed(seed))
    found = outputs(compact(net, active, CONV_INPUTS), x)
    torch.testing.assert_close(found, gated_outputs(net, x, active)[0], rtol=0, atol=TOLERANCE)
    torch.testing.assert_close(found, net.evaluate(x, active)[0], rtol=0, atol=TOLERANCE)


def test_compact_is_plain_and_small() -> None:
    """Standard modules under their old names whose sizes tell what they hold; the full network is not changed."""
    net = trained()
    before = {name: tensor.clone() for name, tensor in net.graph.state_dict().items()}
    active = some_units(net, 1)
    kept = {group.name: int(active.alive[group.slice].sum()) for group in net.coupling.groups}
    assert all(kept[group.name] < group.size for group in net.coupling.groups)
    small = compact(net, active, CONV_INPUTS)
    conv2, bn2, fc1 = (small.get_submodule(name) for name in ("conv2", "bn2", "fc1"))
    assert isinstance(conv2, nn.Conv2d)
    assert (conv2.in_channels, conv2.out_channels) == (kept["conv1"], kept["conv2"])
    assert conv2.weight.shape == (kept["conv2"], kept["conv1"], 3, 3)
    assert bn2.num_features == kept["conv2"]
    assert (fc1.in_features, fc1.out_features) == (kept["fc1.in"], kept["fc1"])
    assert set(small.state_dict()) == set(conv_net().state_dict())
    for name, tensor in net.graph.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_nothing_is_cut_from_a_full_mask() -> None:
    """With every unit active the copy is the network itself, without a selection."""
    net = trained()
    small = compact(net, net.everything, CONV_INPUTS)
    names = [node.name for node in net.graph.graph.nodes if node.name != "fc1_in"]
    assert [node.name for node in small.graph.nodes] == names
    for name, tensor in small.state_dict().items():
        assert torch.equal(tensor, net.graph.state_dict()[name])
        assert tensor.data_ptr() != net.graph.state_dict()[name].data_ptr()


def test_weights_are_written_back() -> None:
    """After fine-tuning the compact module, the gated full network computes what it computes."""
    net = trained()
    active = some_units(net, 2)
    before = {name: tensor.clone() for name, tensor in net.graph.state_dict().items()}
    small = compact(net, active, CONV_INPUTS)
    train(Network(small, without_gates(small)), 5)
    write_back(net, active, small)
    x, _ = batch(Generator().manual_seed(3))
    torch.testing.assert_close(outputs(small, x), gated_outputs(net, x, active)[0], rtol=0, atol=TOLERANCE)
    asleep = torch.ones(4, dtype=torch.bool)
    asleep[active.alive[net.coupling.by_name["conv1"].slice].nonzero().flatten()] = False
    weight = net.graph.state_dict()["conv1.weight"]
    assert torch.equal(weight[asleep], before["conv1.weight"][asleep])
    assert not torch.equal(weight[~asleep], before["conv1.weight"][~asleep])


def test_training_goes_on_as_if_nothing_had_happened() -> None:
    """A step of the compact network, with its moments taken along, is a sliced step of the full one."""
    net = conv_network(dropout=0)
    runner = Sliced(net, cross_entropy)
    adam = SlicedAdam(parameters=net.parameters, weight_decay=0.1)
    generator = Generator().manual_seed(0)
    active = some_units(net, 4)
    x, y = batch(generator)
    adam.step(runner.differentiate(x, y, net.everything, Noise(generator=generator)).updates, lr=0.01)

    small = compact(net, active, CONV_INPUTS)
    smaller = Network(small, without_gates(small))
    own_adam = adam.sliced(smaller.parameters, active, net.dims)
    for runs, uses, active_units in ((net, adam, active), (smaller, own_adam, smaller.everything)):
        step = Sliced(runs, cross_entropy).differentiate(x, y, active_units, Noise(generator=generator))
        uses.step(step.updates, lr=0.01)
    expected = compact(net, active, CONV_INPUTS).state_dict()
    for name, tensor in small.state_dict().items():
        torch.testing.assert_close(tensor, expected[name], rtol=0, atol=TOLERANCE)


def test_shapes_are_known_again() -> None:
    """The compact graph's nodes know their shapes, as a traced network's do."""
    net = trained()
    small = compact(net, some_units(net, 1), CONV_INPUTS)
    shape = small.graph.find_nodes(op="placeholder")[0].meta["shape"]
    assert [(dim.size, dim.batched) for dim in shape] == [(1, True), *((size, False) for size in CONV_INPUT)]
    assert all("shape" in node.meta for node in small.graph.nodes)
