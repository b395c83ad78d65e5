"""Lifted modules are the standard classes, at the user's own paths."""

import pytest
import torch
import torch.nn.functional as F
from lift_networks import NETWORKS, exported, lifted, modules, outputs
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from npn_core.lift import lift

EXPECTED = {
    "residual block": {
        "conv1": nn.Conv2d,
        "bn1": nn.BatchNorm2d,
        "relu": nn.ReLU,
        "conv2": nn.Conv2d,
        "bn2": nn.BatchNorm2d,
        "shortcut.0": nn.Conv2d,
        "shortcut.1": nn.BatchNorm2d,
        "pool": nn.AdaptiveAvgPool2d,
        "fc": nn.Linear,
    },
    "tied text": {
        "embedding": nn.Embedding,
        "norm": nn.LayerNorm,
        "hidden": nn.Linear,
        "tanh": nn.Tanh,
        "head": nn.Linear,
    },
    "u-net": {
        "down": nn.Conv2d,
        "norm": nn.GroupNorm,
        "silu": nn.SiLU,
        "up": nn.ConvTranspose2d,
        "out": nn.Conv2d,
    },
    "vision transformer": {
        "patches": nn.Conv2d,
        "norm1": nn.LayerNorm,
        "attention.out_proj": nn.Linear,
        "norm2": nn.LayerNorm,
        "mlp.0": nn.Linear,
        "mlp.1": nn.GELU,
        "mlp.2": nn.Dropout,
        "mlp.3": nn.Linear,
        "head": nn.Linear,
    },
    "signals": {
        "conv": nn.Conv1d,
        "norm": nn.BatchNorm1d,
        "pool": nn.MaxPool1d,
        "act": nn.PReLU,
        "up": nn.ConvTranspose1d,
    },
    "volumes": {
        "conv": nn.Conv3d,
        "norm": nn.BatchNorm3d,
        "act": nn.ELU,
        "pool": nn.MaxPool3d,
        "fc": nn.Linear,
    },
}


@pytest.mark.parametrize("way", ["train", "eval", "fixed"])
@pytest.mark.parametrize("name", EXPECTED)
def test_modules_are_standard_and_at_the_users_paths(name: str, way: str) -> None:
    """Path by path the user's own class, in the order of the calls."""
    make, inputs = NETWORKS[name]
    module = make()
    found = modules(lifted(module, inputs(2), way))
    assert found == EXPECTED[name]
    for path, kind in found.items():
        if path not in ("tanh", "silu"):  # functions of the user's forward
            assert isinstance(module.get_submodule(path), kind)


def test_a_module_called_twice_is_one_module() -> None:
    """Shared modules stay shared; one under two names is called by the name that was used."""
    graph = lifted(NETWORKS["shared modules"][0](), (torch.randn(2, 6),))
    calls = [node.target for node in graph.graph.nodes if node.op == "call_module"]
    assert calls == ["twice", "act", "twice", "norm", "act", "first", "norm", "second"]
    assert graph.get_parameter("first.weight") is graph.get_parameter("second.weight")


@pytest.mark.parametrize("way", ["train", "decomposed"])
def test_tied_weights_are_one_parameter(way: str) -> None:
    """A weight of two layers is the same object in both, under both names."""
    graph = lifted(NETWORKS["tied text"][0](), (torch.randint(0, 11, (2, 5)),), way)
    assert graph.get_parameter("embedding.weight") is graph.get_parameter("head.weight")
    assert len(list(graph.parameters())) == 5
    assert graph.get_submodule("embedding").padding_idx == 0  # type: ignore[union-attr]


@pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")  # torch's own
def test_an_archive_lifts_like_the_program(tmp_path_factory: pytest.TempPathFactory) -> None:
    """What export.load gives, where tied weights are two objects, lifts to the same graph."""
    for name in ("residual block", "tied text", "vision transformer"):
        make, inputs = NETWORKS[name]
        program = exported(make(), inputs(2), "train")
        path = tmp_path_factory.mktemp("archive") / "model.pt2"
        torch.export.save(program, path)
        loaded = torch.export.load(path)
        first, second = lift(program), lift(loaded)
        assert str(second.graph) == str(first.graph)
        assert len(list(second.parameters())) == len(list(first.parameters()))
        example = inputs(3)
        torch.testing.assert_close(outputs(second.eval(), example), outputs(first.eval(), example))


def test_statistics_over_all_batches_stay_so() -> None:
    """momentum=None survives: it can be exported in eval mode alone, as 0."""
    module = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4, momentum=None))
    graph = lifted(module, (torch.randn(2, 4),), "eval")
    assert graph.get_submodule("1").momentum is None  # type: ignore[union-attr]
    x = torch.randn(8, 4)
    for _ in range(2):
        module.train()(x)
        graph.train()(x)
    torch.testing.assert_close(graph.state_dict(), module.state_dict())


def test_computed_weights_stay_functions() -> None:
    """A weight that is computed is an argument, not a module's parameter."""
    module = nn.Sequential(parametrizations.weight_norm(nn.Conv2d(2, 3, 3)), nn.ReLU())
    x = torch.randn(2, 2, 5, 5)
    graph = lifted(module, (x,))
    assert modules(graph) == {"1": nn.ReLU}
    assert list(graph.state_dict()) == list(module.state_dict())
    torch.testing.assert_close(graph(x), module(x))


def test_functions_are_named_in_the_module_that_calls_them() -> None:
    """Two activations in one forward are two modules with names of their own."""

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(4, 4)
            self.relu_1 = nn.Parameter(torch.ones(4))  # takes the name that the second would get

        def forward(self, x: Tensor) -> Tensor:
            return F.relu(self.fc(F.relu(x))) * self.relu_1

    graph = lifted(nn.Sequential(Block()), (torch.randn(2, 4),))
    assert list(modules(graph)) == ["0.relu", "0.fc", "0.relu_2"]


def test_a_layer_with_more_beside_its_weights_stays_a_function() -> None:
    """A subclass that holds a scale of its own is no nn.Linear."""

    class Scaled(nn.Linear):
        def __init__(self) -> None:
            super().__init__(4, 4)
            self.scale = nn.Parameter(torch.ones(4))

        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) * self.scale

    module, x = nn.Sequential(Scaled()), torch.randn(2, 4)
    graph = lifted(module, (x,))
    assert modules(graph) == {}
    torch.testing.assert_close(graph(x), module(x))
