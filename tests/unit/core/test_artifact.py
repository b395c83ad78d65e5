"""The artifact: complete, free of pickle, and usable without this project."""

import json
import subprocess
import zipfile
from math import prod
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from npn_core import onnx_export
from npn_core.artifact import Exported, OutputFile, export_model, write_documents
from npn_core.progress import Progress, Stage
from npn_core.recount import payload
from npn_core.report import FORMAT_VERSION, ArchitectureDocument, InputSpec, Report

PROGRESS = Progress(
    step=1,
    steps=2,
    epoch=1,
    epochs=1,
    stage=Stage.DENSE,
    k=float("inf"),
    loss=0.5,
    metrics=(),
    costs=(),
    groups=(),
    samples_per_second=10.0,
    time_left=1.0,
)
INPUT_SHAPE = (2, 9, 8)


class Artifact(NamedTuple):
    """A written artifact."""

    folder: Path
    exported: Exported
    files: tuple[OutputFile, ...]


def network() -> nn.Sequential:
    """A small network with every kind of tensor: parameters, statistics, a counter."""
    torch.manual_seed(1)
    module = nn.Sequential(
        nn.Conv2d(2, 3, 3),
        nn.BatchNorm2d(3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Dropout(),
        nn.Linear(27, 4),
    )
    module(torch.randn(5, *INPUT_SHAPE))  # moves the statistics
    return module.eval()


def write(
    folder: Path, module: nn.Module, report: Report, architecture: ArchitectureDocument
) -> tuple[Exported, tuple[OutputFile, ...]]:
    """Both halves of an artifact, for one input of any shape that `module` takes."""
    shape = (3,) if isinstance(module[0], nn.Linear) else INPUT_SHAPE
    exported = export_model(
        folder, module, (torch.linspace(-1, 1, 2 * prod(shape)).reshape(2, *shape),), ("x",)
    )
    files = write_documents(folder, architecture=architecture, report=report, metrics=[PROGRESS, PROGRESS])
    return exported, files


@pytest.fixture(scope="module")
def artifact(
    tmp_path_factory: pytest.TempPathFactory, report: Report, architecture: ArchitectureDocument
) -> Artifact:
    """The artifact of `network`, written once."""
    folder = tmp_path_factory.mktemp("artifact")
    return Artifact(folder, *write(folder, network(), report, architecture))


def test_files_and_sums(artifact: Artifact) -> None:
    """Every file is listed with its size, and sha256sum -c agrees."""
    names = [
        "architecture.json",
        "metrics.jsonl",
        "model.onnx",
        "model.pt2",
        "model.safetensors",
        "report.json",
        "SHA256SUMS",
    ]
    assert [file.path for file in artifact.files] == names
    assert all((artifact.folder / file.path).stat().st_size == file.size for file in artifact.files)
    checked = subprocess.run(
        ["sha256sum", "-c", "--strict", "SHA256SUMS"], cwd=artifact.folder, capture_output=True, check=True
    )
    assert checked.stdout.count(b": OK") == 6


def test_what_was_exported(artifact: Artifact) -> None:
    """The ends of the network and the check of model.onnx are told for the documents."""
    exported = artifact.exported
    assert exported.inputs == (InputSpec(name="x", shape=INPUT_SHAPE, dtype="float32"),)
    assert (exported.outputs, exported.warnings) == (("output",), ())
    assert exported.onnx is not None
    assert exported.onnx.largest_difference <= 1e-5


def test_model_runs(artifact: Artifact) -> None:
    """model.pt2 gives the module's outputs for batches of 1 and 7."""
    loaded = torch.export.load(artifact.folder / "model.pt2").module()
    for size in (1, 7):
        x = torch.randn(size, *INPUT_SHAPE)
        assert torch.equal(loaded(x), network()(x))


def test_no_pickle_inside(artifact: Artifact) -> None:
    """The archive holds raw weights and JSON: no example inputs, nothing that a pickle loader would take."""
    with zipfile.ZipFile(artifact.folder / "model.pt2") as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}
    assert contents.pop("model/data/sample_inputs/model.pt") == b""
    assert not [name for name in contents if name.endswith((".pkl", ".pt", ".pickle"))]
    for kind in ("weights", "constants"):
        config = json.loads(contents[f"model/data/{kind}/model_{kind}_config.json"])["config"]
        assert not any(entry["use_pickle"] for entry in config.values())
    raw = [data for name, data in contents.items() if "/weights/weight_" in name]
    assert sorted(map(len, raw)) == sorted(t.numel() * t.element_size() for t in payload(network()).values())


def test_weights(artifact: Artifact) -> None:
    """model.safetensors loads into the module by name and is its whole state."""
    loaded, state = load_file(artifact.folder / "model.safetensors"), network().state_dict()
    assert set(loaded) == set(state)
    assert all(torch.equal(loaded[name], state[name]) for name in state)


def test_metrics_lines(artifact: Artifact) -> None:
    """One JSON object per report, each with the version; infinity is a string."""
    lines = [json.loads(line) for line in (artifact.folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["format_version"] for line in lines] == [FORMAT_VERSION, FORMAT_VERSION]
    assert (lines[0]["k"], lines[0]["stage"]) == ("Infinity", "dense")


def test_same_network_same_bytes(
    artifact: Artifact, tmp_path: Path, report: Report, architecture: ArchitectureDocument
) -> None:
    """Writing the same again gives the same files, byte for byte."""
    _, again = write(tmp_path, network(), report, architecture)
    assert again == artifact.files


def test_views_and_ties_are_stored_whole_and_once(
    tmp_path: Path, report: Report, architecture: ArchitectureDocument
) -> None:
    """Weights that are parts of larger storages, or shared by two layers, are written as what they show."""
    whole = torch.randn(4, 6)
    first, second = nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False)
    first.weight = second.weight = nn.Parameter(whole[:3, ::2])
    module = nn.Sequential(first, second).eval()
    exported, _ = write(tmp_path, module, report, architecture)
    (weight,) = load_file(tmp_path / "model.safetensors").values()
    assert torch.equal(weight, whole[:3, ::2])
    x = torch.randn(5, 3)
    assert torch.allclose(torch.export.load(tmp_path / "model.pt2").module()(x), module(x))
    assert exported.onnx is not None


def test_a_network_without_onnx_is_an_artifact_too(
    tmp_path: Path, report: Report, architecture: ArchitectureDocument, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where model.onnx cannot be written, the rest is, with a warning."""
    monkeypatch.setattr(onnx_export, "_PACKAGES", ("an_absent_package",))
    exported, files = write(tmp_path, network(), report, architecture)
    assert exported.onnx is None
    assert "an_absent_package" in exported.warnings[0]
    assert "model.onnx" not in [file.path for file in files]
    assert "model.pt2" in [file.path for file in files]
