"""What an annotated graph tells of a network, and how samples that do not fit are refused."""

import copy

import pytest
import torch
from small_networks import along, infos, network, summary
from torch import Tensor, fx, nn

from npn_core.errors import InvalidInput
from npn_core.graph import Dim, annotate, arguments, describe, operator_name, tensor_names
from npn_core.lift import lift

INPUT = (1, 4, 4)


def small() -> nn.Sequential:
    """A convolution, a norm and a linear layer."""
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 3))


def lifted(module: nn.Module, *inputs: Tensor) -> fx.GraphModule:
    """The module exported in train mode and lifted, not annotated yet."""
    batch = torch.export.Dim("batch", min=1)
    return lift(torch.export.export(module.train(), inputs, dynamic_shapes=tuple({0: batch} for _ in inputs)))


SMALL = lifted(small(), torch.zeros(2, *INPUT))


def test_nodes_know_their_shapes() -> None:
    """Every node notes its output's shape, the batch apart; mode and statistics are left alone."""
    graph = annotate(copy.deepcopy(SMALL), infos(INPUT))
    shapes = [node.meta["shape"] for node in graph.graph.nodes if node.op != "output"]
    sizes = [(1, 4, 4), (2, 2, 2), (2, 2, 2), (8,), (3,)]
    assert shapes == [(Dim(1, True), *(Dim(size, False) for size in one)) for one in sizes]
    assert graph.training
    assert int(graph.get_buffer("1.num_batches_tracked")) == 0


def test_an_axis_may_be_a_multiple_of_the_batch() -> None:
    """Patches laid along the batch are told from axes of a fixed size."""

    class Patches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(x.reshape(x.shape[0] * 4, 4)).reshape(x.shape[0], 12)

    graph = annotate(lifted(Patches(), torch.zeros(2, 16)), infos((16,)))
    (linear,) = (node for node in graph.graph.nodes if node.op == "call_module")
    assert linear.meta["shape"] == (Dim(4, True), Dim(3, False))


@pytest.mark.parametrize(
    ("inputs", "named"),
    [
        (infos((3, 4, 4)), "cannot take samples of shape (3, 4, 4)"),
        (infos((1, 2, 2)), "cannot take samples of shape (1, 2, 2)"),
        (infos(INPUT, (5,)), "the network takes 1 inputs (input); the dataset has 2"),
        ((), "the network takes 1 inputs (input); the dataset has 0"),
    ],
)
def test_samples_that_do_not_fit_are_refused(inputs: tuple[object, ...], named: str) -> None:
    """With what the network takes and what the dataset has."""
    with pytest.raises(InvalidInput) as refused:
        annotate(copy.deepcopy(SMALL), inputs)
    assert refused.value.field == "dataset.uri"
    assert refused.value.reason == "DATASET_SHAPES"
    assert named in refused.value.message


def test_activations_may_be_shared() -> None:
    """A module without weights can be called twice."""
    relu = nn.ReLU()
    module = nn.Sequential(nn.Linear(2, 2), relu, nn.Linear(2, 2), relu)
    net = network(module, (2,))
    x = torch.randn(3, 2, generator=torch.Generator().manual_seed(0))
    assert torch.equal(net.graph(x), module(x))
    assert torch.equal(net.evaluate((x,))[0], module(x))


def test_a_layer_may_be_called_twice() -> None:
    """Its units are those of both calls: what it reads the second time is what it made the first."""
    layer = nn.Linear(4, 4)
    module = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), layer, nn.ReLU(), layer, nn.ReLU(), nn.Linear(4, 2))
    net = network(module, (3,))
    assert summary(net.coupling) == [("0.in", "feature", 3), ("0", "neuron", 4)]
    assert along(net.coupling, net.coupling.tensors["2.weight"]) == ["0", "0"]


def test_nodes_describe_themselves() -> None:
    """A message names the module or the operator, and where it stands in the user's source."""
    nodes = {node.name: node for node in SMALL.graph.nodes}
    flatten, linear = nodes["flatten_using_ints"], nodes["_3"]
    assert operator_name(flatten) == "aten.flatten.using_ints"
    assert describe(flatten).startswith("operator aten.flatten.using_ints")
    assert describe(linear).startswith("module '3'")
    assert arguments(flatten)["start_dim"] == 1


def test_tied_tensors_have_one_first_name() -> None:
    """Every name of a tensor leads to its first one."""
    module = nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 3))
    module[2].weight = module[0].weight
    names = tensor_names(lifted(module, torch.zeros(2, 3)))
    assert names == {"0.weight": "0.weight", "0.bias": "0.bias", "2.weight": "0.weight", "2.bias": "2.bias"}
