"""Networks of several structures as programs that plain PyTorch runs."""

import subprocess
import sys
import zipfile
from pathlib import Path

import lifted_networks
import pytest
import torch
from structures import STRUCTURES
from torch import Tensor, fx, nn

from npn_core.errors import InvalidInput
from npn_core.lift import lift
from npn_core.program import export

aten = torch.ops.aten

# Runs where only the installed libraries can be imported: -S leaves this project's editable install out.
RUNNER = """
import sys, importlib.util
sys.path.append(sys.argv[1])
assert not any(importlib.util.find_spec(name) for name in ("npn_core", "npn_service", "npn_client", "npn"))
import torch
for name in sys.argv[2:]:
    model = torch.export.load(name + ".pt2").module()
    for size in (1, 2, 7):
        inputs = torch.load(f"{name}-{size}-in.pt")
        torch.save(model(*inputs), f"{name}-{size}-out.pt")
"""


def graph_of(module: nn.Module) -> fx.GraphModule:
    """The module's graph, in eval mode."""
    return lifted_networks.lift(module)


def test_runs_where_this_project_is_not_installed(tmp_path: Path) -> None:
    """Each structure gives its own outputs for batches of 1, 2 and 7 in a process that has torch alone."""
    networks = {name: make() for name, make in lifted_networks.NETWORKS.items()}
    for name, network in networks.items():
        program = export(network.graph, network.example, network.names)
        assert program.graph_signature.user_inputs == network.names
        torch.export.save(program, tmp_path / f"{name}.pt2")
        for size in (1, 2, 7):
            torch.save(network.batch(size), tmp_path / f"{name}-{size}-in.pt")
    libraries = str(Path(torch.__file__).parents[1])
    subprocess.run(
        [sys.executable, "-I", "-S", "-c", RUNNER, libraries, *networks],
        cwd=tmp_path,
        check=True,
        timeout=120,
    )
    for name, network in networks.items():
        for size in (1, 2, 7):
            found = torch.load(tmp_path / f"{name}-{size}-out.pt")
            torch.testing.assert_close(found, network.graph(*network.batch(size)))


@pytest.mark.parametrize("make", lifted_networks.NETWORKS.values(), ids=lifted_networks.NETWORKS)
def test_the_archive_tells_nothing_of_this_machine(make, tmp_path: Path) -> None:
    """No path, no source line, no example input."""
    network = make()
    torch.export.save(export(network.graph, network.example, network.names), tmp_path / "model.pt2")
    with zipfile.ZipFile(tmp_path / "model.pt2") as archive:
        text = archive.read("model/models/model.json").decode()
        assert archive.read("model/data/sample_inputs/model.pt") == b""
    assert "aten" in text
    assert ".py" not in text
    assert "site-packages" not in text
    assert str(Path.cwd()) not in text


@pytest.mark.parametrize("name", ["several-inputs", "several-outputs", "grouped-query-attention"])
def test_what_lifting_gives_is_exported(name: str) -> None:
    """A network that was exported, lifted and exported again computes the same, for any batch."""
    structure = next(structure for structure in STRUCTURES if structure.name == name)
    graph = lift(structure.export()).eval()
    names = tuple(str(node.target) for node in graph.graph.find_nodes(op="placeholder"))
    loaded = export(graph, structure.inputs(2), names).module()
    for size in (1, 5):
        torch.testing.assert_close(loaded(*structure.inputs(size)), graph(*structure.inputs(size)))


class Adding(nn.Module):
    """A layer and two inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.relu = nn.Linear(4, 4), nn.ReLU()

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """(N, 4), (N, 4) -> (N, 4)."""
        return aten.sub.Tensor(self.relu(self.fc(x)), y)


@pytest.mark.parametrize(
    "names", [("y", "x"), ("input", "relu"), ("fc", "p_fc_weight"), ("sub_tensor", "output")]
)
def test_input_names_are_the_users_whatever_else_has_them(names: tuple[str, ...]) -> None:
    """Names that operators, layers, weights or the other input have keep the inputs' order and meaning."""
    module = graph_of(Adding())
    inputs = (torch.randn(2, 4), torch.randn(2, 4))
    program = export(module, inputs, names)
    assert program.graph_signature.user_inputs == names
    assert torch.equal(program.module()(*inputs), module(*inputs))
    assert [node.name for node in module.graph.find_nodes(op="placeholder")] == ["x", "y"]


class Picked(nn.Module):
    """Picks features by an index buffer, as a compact network does."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("index", torch.tensor([0, 2, 5]))
        self.fc = nn.Linear(3, 2)

    def forward(self, features: Tensor) -> Tensor:
        """(N, 6) -> (N, 2)."""
        return self.fc(features.index_select(1, self.index))


def test_names_of_weights_stay_and_the_weights_are_shared() -> None:
    """The program's state has the module's names and, without a copy, its tensors."""
    module = Picked().eval()
    program = export(module, (torch.zeros(2, 6),), ("features",))
    assert set(program.state_dict) == set(module.state_dict())
    assert program.state_dict["fc.weight"].data_ptr() == module.fc.weight.data_ptr()


class Reshaped(nn.Module):
    """Holds the batch size as a constant after a layer that does not."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 6)

    def forward(self, x: Tensor) -> Tensor:
        """(2, 4) -> (2, 3)."""
        return aten.sum.dim_IntList(aten.reshape.default(self.fc(x), [2, 2, 3]), [1])


class Offset(nn.Module):
    """Adds a constant that is as long as one batch."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("offset", torch.ones(2, 4))

    def forward(self, x: Tensor) -> Tensor:
        """(2, 4) -> (2, 4)."""
        return aten.add.Tensor(aten.relu.default(x), self.offset)


@pytest.mark.parametrize(
    ("module", "operator"), [(Reshaped(), "aten.reshape.default"), (Offset(), "aten.add.Tensor")]
)
def test_a_fixed_batch_is_refused_by_the_operators_name(module: nn.Module, operator: str) -> None:
    """The operator that makes the batch a constant is named, with the line that it came from."""
    graph = graph_of(module)
    for node in graph.graph.nodes:
        node.meta["source"] = f"line of {node.target}"
    with pytest.raises(InvalidInput, match=rf"{operator} .* at line of {operator}") as refused:
        export(graph, (torch.randn(2, 4),), ("x",))
    assert (refused.value.field, refused.value.reason) == ("model.uri", "MODEL_FIXED_BATCH")


@pytest.mark.parametrize("shape", [(1, 6), (3, 6), ()])
def test_an_example_of_another_size_is_refused(shape: tuple[int, ...]) -> None:
    """An example of one sample would be taken for a constant: a defect of the caller."""
    with pytest.raises(ValueError, match="two samples"):
        export(Picked().eval(), (torch.zeros(shape),), ("features",))


def test_training_mode_is_refused() -> None:
    """Exporting dropout and batch statistics in train mode would be a defect of the caller."""
    with pytest.raises(ValueError, match="eval mode"):
        export(Picked().train(), (torch.zeros(2, 6),), ("features",))
