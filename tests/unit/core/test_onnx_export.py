"""model.onnx: the user's names, any batch, the network's outputs, and nothing of this machine."""

import logging
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import lifted_networks
import onnx
import pytest
import torch
from lifted_networks import Lifted
from torch import Tensor, nn
from torch.export import ExportedProgram

from npn_core import onnx_export
from npn_core.onnx_export import OPSETS, OnnxError, export_onnx, onnx_difference
from npn_core.program import export
from npn_core.report import OnnxCheck

aten = torch.ops.aten


@dataclass(frozen=True, kw_only=True, slots=True)
class Written:
    """A network whose model.onnx has been written."""

    network: Lifted
    program: ExportedProgram
    path: Path
    check: OnnxCheck | None
    warnings: tuple[str, ...]


def write(network: Lifted, folder: Path) -> Written:
    """Export, as the pipeline does."""
    program = export(network.graph, network.example, network.names)
    check, notes = export_onnx(folder, program, network.graph, network.example)
    return Written(network=network, program=program, path=folder / "model.onnx", check=check, warnings=notes)


@pytest.fixture(scope="module")
def write_once(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Written]:
    """Give a structure's model.onnx, written at the first call."""

    @cache
    def once(name: str) -> Written:
        return write(lifted_networks.NETWORKS[name](), tmp_path_factory.mktemp(name))

    return once


@pytest.fixture(params=lifted_networks.NETWORKS)
def written(request: pytest.FixtureRequest, write_once: Callable[[str], Written]) -> Written:
    """Each structure."""
    return write_once(request.param)


@pytest.fixture
def residual(write_once: Callable[[str], Written]) -> Written:
    """One structure, where that is enough."""
    return write_once("residual")


def ends(path: Path) -> tuple[dict[str, list[object]], dict[str, list[object]]]:
    """Shapes of inputs and outputs by name."""
    graph = onnx.load(path).graph

    def shapes(values) -> dict[str, list[object]]:
        return {
            value.name: [size.dim_param or size.dim_value for size in value.type.tensor_type.shape.dim]
            for value in values
        }

    return shapes(graph.input), shapes(graph.output)


OUTPUTS = {
    "image": {"output": ["batch", 4]},
    "input_ids": {"logits": ["batch", 5, 20], "pooled": ["batch", 12]},
    "low": {
        "output_0": ["batch", 2, 8, 8],
        "output_1.output_0": ["batch", 2],
        "output_1.output_1": ["batch", 2, 2],
    },
}


def test_names_and_dynamic_batch(written: Written) -> None:
    """Inputs and outputs have the user's names, in order, and a batch of any size."""
    inputs, outputs = ends(written.path)
    example = zip(written.network.names, written.network.example, strict=True)
    assert list(inputs.items()) == [(name, ["batch", *x.shape[1:]]) for name, x in example]
    assert outputs == OUTPUTS[written.network.names[0]]
    assert list(outputs) == list(OUTPUTS[written.network.names[0]])


def test_agrees_with_the_network(written: Written) -> None:
    """ONNX Runtime gives the network's outputs, at the sizes of the check and at others."""
    assert written.warnings == ()
    assert written.check is not None
    assert written.check.opset == OPSETS[0]
    assert 0 <= written.check.relative_difference <= 1e-5
    for size in (1, 7):
        assert (
            onnx_difference(written.path, written.network.graph, written.network.batch(size)).relative < 1e-5
        )


def test_one_valid_file_that_tells_nothing_of_this_machine(written: Written) -> None:
    """The weights are inside; no path, trace, class or generated symbol is."""
    onnx.checker.check_model(onnx.load(written.path), full_check=True)
    assert [path.name for path in written.path.parent.iterdir()] == ["model.onnx"]
    data = written.path.read_bytes()
    for word in (b".py", b"site-packages", b"torch.nn", b"stack_trace", b"pkg.torch"):
        assert word not in data
    assert str(Path.cwd()).encode() not in data


def test_equal_weights_give_equal_bytes(residual: Written, tmp_path: Path) -> None:
    """Writing the same network again gives the same file, and leaves the program as it was."""
    before, after = tmp_path / "before" / "model.pt2", tmp_path / "after" / "model.pt2"
    for path in (before, after):
        path.parent.mkdir()
    torch.export.save(residual.program, before)
    export_onnx(tmp_path, residual.program, residual.network.graph, residual.network.example)
    torch.export.save(residual.program, after)
    assert (tmp_path / "model.onnx").read_bytes() == residual.path.read_bytes()
    assert before.read_bytes() == after.read_bytes()


class Awkward(nn.Module):
    """Outputs that are inputs, appear twice, or have the name of an input or a weight."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.logits = nn.Linear(4, 4), nn.Parameter(torch.ones(4))

    def forward(self, a: Tensor, unused: Tensor, b: Tensor) -> dict[str, Tensor]:
        """Three (N, 4) -> five (N, 4)."""
        y = self.fc(a)
        z = aten.add.Tensor(y, self.logits)
        return {
            "logits": z,
            "linear": aten.relu.default(y),
            "again": z,
            "passed": b,
            "a": aten.neg.default(y),
        }


def test_names_that_are_taken(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """A dict's keys are the outputs' names; one that an input has is told apart; unused inputs stay.

    All that in silence: the exporter's remarks on itself reach neither the log nor the console.
    """
    example = tuple(torch.randn(2, 4) for _ in range(3))
    network = Lifted(graph=lifted_networks.lift(Awkward()), example=example, names=("a", "unused", "b"))
    found = write(network, tmp_path)
    assert found.warnings == ()
    inputs, outputs = ends(found.path)
    assert list(inputs) == ["a", "unused", "b"]
    assert list(outputs) == ["logits", "linear", "again", "passed", "a_output"]
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert capfd.readouterr() == ("", "")
    assert logging.getLogger("torch.onnx").level == logging.NOTSET


class Unwritable(nn.Module):
    """Uses an operator that ONNX does not know."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, 8) -> (N, 3, 3)."""
        return aten.linalg_qr.default(x)[0]


def test_an_operator_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    """The job goes on without model.onnx, and the warning names the operator."""
    network = Lifted(graph=lifted_networks.lift(Unwritable()), example=(torch.randn(2, 3, 8),), names=("x",))
    found = write(network, tmp_path)
    assert found.check is None
    assert found.warnings == ("no model.onnx: the exporter cannot write operator aten.linalg_qr.default",)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_computes_something_else_is_not_kept(
    residual: Written, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Outputs that differ from the network's leave no file but a warning."""
    other = lifted_networks.residual().graph
    nn.init.constant_(other.get_submodule("fc").bias, 3.0)
    monkeypatch.setattr(onnx_export, "OPSETS", OPSETS[:1])
    check, notes = export_onnx(tmp_path, residual.program, other, residual.network.example)
    assert check is None
    assert "differ from the network's by" in notes[0]
    assert list(tmp_path.iterdir()) == []


def test_an_older_opset_where_the_newest_fails(
    residual: Written, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An opset that the exporter cannot write is passed over."""
    monkeypatch.setattr(onnx_export, "OPSETS", (1_000, 18))
    network = residual.network
    check, notes = export_onnx(tmp_path, residual.program, network.graph, network.example)
    assert check is not None
    assert check.opset == 18
    assert notes == ()


def test_weights_beyond_protobufs_limit(
    residual: Written, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights that do not fit into one file lie beside it, and a warning says so; the outputs are the same."""
    monkeypatch.setattr("torch.onnx._internal.exporter._onnx_program._LARGE_MODEL_THRESHOLD", 1_000)
    network = residual.network
    check, notes = export_onnx(tmp_path, residual.program, network.graph, network.example)
    assert check == residual.check
    assert notes == (
        "model.onnx keeps its weights in model.onnx.data: together they exceed what one file can hold",
    )
    assert {path.name for path in tmp_path.iterdir()} == {"model.onnx", "model.onnx.data"}


def test_without_the_packages(residual: Written, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the extra is not installed there is no model.onnx, and the warning says what to install."""
    monkeypatch.setattr(onnx_export, "_PACKAGES", ("onnx", "an_absent_package"))
    network = residual.network
    check, notes = export_onnx(tmp_path, residual.program, network.graph, network.example)
    assert check is None
    assert notes == ("no model.onnx: an_absent_package not installed (the extra [onnx])",)


def test_a_broken_file_is_an_error_without_its_path(tmp_path: Path) -> None:
    """What ONNX Runtime cannot load is refused, and the message shows no path."""
    path = tmp_path / "model.onnx"
    path.write_bytes(b"no protobuf")
    with pytest.raises(OnnxError, match="ONNX Runtime does not run it") as refused:
        onnx_difference(path, nn.Identity(), (torch.zeros(1),))
    assert str(tmp_path) not in str(refused.value)


def test_nothing_of_onnx_is_imported_before_use() -> None:
    """Workers that export nothing do not wait for it."""
    code = "import sys, npn_core.pipeline; sys.exit(any(m.startswith('onnx') for m in sys.modules))"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_the_check_takes_the_worst_batch(written: Written) -> None:
    """The report's differences cover both batch sizes."""
    assert written.check is not None
    for size in (1, 2):
        found = onnx_difference(written.path, written.network.graph, written.network.batch(size))
        assert found.largest <= written.check.largest_difference
