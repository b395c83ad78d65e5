"""The artifact: complete, free of pickle, and usable without this project."""

import json
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import fx, nn

from npn_core.artifact import OutputFile, export, write_artifact
from npn_core.progress import Progress, Stage
from npn_core.recount import payload
from npn_core.report import ArchitectureDocument, Report

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
Artifact = tuple[Path, tuple[OutputFile, ...]]  # the folder and what was written

# Runs where only the installed libraries can be imported: -S leaves this project's editable install out.
RUNNER = """
import sys, importlib.util
sys.path.append(sys.argv[1])
assert not any(importlib.util.find_spec(name) for name in ("npn_core", "npn_service", "npn_client", "npn"))
import torch
program = torch.export.load(sys.argv[2] + "/model.pt2")
assert program.graph_signature.user_inputs == ("x",)
model = program.module()
for size in (1, 7):
    x = torch.linspace(-1, 1, size * 144).reshape(size, 2, 9, 8)
    torch.save(model(x).detach(), f"{size}.pt")
"""


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


@pytest.fixture(scope="module")
def artifact(
    tmp_path_factory: pytest.TempPathFactory, report: Report, architecture: ArchitectureDocument
) -> Artifact:
    """The artifact of `network`, written once."""
    folder = tmp_path_factory.mktemp("artifact")
    files = write_artifact(
        folder,
        network(),
        torch.zeros(2, *INPUT_SHAPE),
        architecture=architecture,
        report=report,
        metrics=[PROGRESS, PROGRESS],
    )
    return folder, files


def test_files_and_sums(artifact: Artifact) -> None:
    """Every file is listed with its size, and sha256sum -c agrees."""
    folder, files = artifact
    names = [
        "architecture.json",
        "metrics.jsonl",
        "model.pt2",
        "model.safetensors",
        "report.json",
        "SHA256SUMS",
    ]
    assert [file.path for file in files] == names
    assert all((folder / file.path).stat().st_size == file.size for file in files)
    checked = subprocess.run(
        ["sha256sum", "-c", "--strict", "SHA256SUMS"], cwd=folder, capture_output=True, check=True
    )
    assert checked.stdout.count(b": OK") == 5


def test_runs_where_this_project_is_not_installed(artifact: Artifact, tmp_path: Path) -> None:
    """model.pt2 gives the module's outputs for batches of 1 and 7 in a process that has torch alone."""
    libraries = sysconfig.get_path("purelib")
    subprocess.run(
        [sys.executable, "-I", "-S", "-c", RUNNER, libraries, str(artifact[0])],
        cwd=tmp_path,
        check=True,
        timeout=120,
    )
    for size in (1, 7):
        x = torch.linspace(-1, 1, size * 144).reshape(size, *INPUT_SHAPE)
        assert torch.equal(torch.load(tmp_path / f"{size}.pt"), network()(x).detach())


def test_no_pickle_inside(artifact: Artifact) -> None:
    """The archive holds raw weights and JSON: no example inputs, nothing that a pickle loader would take."""
    with zipfile.ZipFile(artifact[0] / "model.pt2") as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}
    assert contents.pop("model/data/sample_inputs/model.pt") == b""
    assert not [name for name in contents if name.endswith((".pkl", ".pt", ".pickle"))]
    for kind in ("weights", "constants"):
        config = json.loads(contents[f"model/data/{kind}/model_{kind}_config.json"])["config"]
        assert not any(entry["use_pickle"] for entry in config.values())
    raw = [data for name, data in contents.items() if "/weights/weight_" in name]
    assert sorted(map(len, raw)) == sorted(t.numel() * t.element_size() for t in payload(network()).values())


def test_archive_names_no_path_of_this_machine(artifact: Artifact) -> None:
    """The exporting machine's files are its own business."""
    with zipfile.ZipFile(artifact[0] / "model.pt2") as archive:
        text = archive.read("model/models/model.json").decode()
    assert "conv2d" in text
    assert ".py" not in text
    assert str(Path(sys.prefix)) not in text


def test_weights(artifact: Artifact) -> None:
    """model.safetensors loads into the module by name and is its whole state."""
    loaded, state = load_file(artifact[0] / "model.safetensors"), network().state_dict()
    assert set(loaded) == set(state)
    assert all(torch.equal(loaded[name], state[name]) for name in state)


def test_metrics_lines(artifact: Artifact) -> None:
    """One JSON object per report, each with the version; infinity is a string."""
    lines = [json.loads(line) for line in (artifact[0] / "metrics.jsonl").read_text().splitlines()]
    assert [line["format_version"] for line in lines] == [1, 1]
    assert (lines[0]["k"], lines[0]["stage"]) == ("Infinity", "dense")


def test_same_network_same_bytes(
    artifact: Artifact, tmp_path: Path, report: Report, architecture: ArchitectureDocument
) -> None:
    """Writing the same again gives the same files, byte for byte."""
    again = write_artifact(
        tmp_path,
        network(),
        torch.ones(2, *INPUT_SHAPE),
        architecture=architecture,
        report=report,
        metrics=[PROGRESS, PROGRESS],
    )
    assert again == artifact[1]


def test_views_and_ties_are_stored_whole_and_once(
    tmp_path: Path, report: Report, architecture: ArchitectureDocument
) -> None:
    """Weights that are parts of larger storages, or shared by two layers, are written as what they show."""
    whole = torch.randn(4, 6)
    first, second = nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False)
    first.weight = second.weight = nn.Parameter(whole[:3, ::2])
    module = nn.Sequential(first, second).eval()
    write_artifact(tmp_path, module, torch.zeros(2, 3), architecture=architecture, report=report, metrics=[])
    (weight,) = load_file(tmp_path / "model.safetensors").values()
    assert torch.equal(weight, whole[:3, ::2])
    x = torch.randn(5, 3)
    assert torch.allclose(torch.export.load(tmp_path / "model.pt2").module()(x), module(x))


class Picked(nn.Module):
    """Picks features by an index buffer, as a compact network does."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("index", torch.tensor([0, 2, 5]))
        self.fc = nn.Linear(3, 2)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """(N, 6) -> (N, 2)."""
        return self.fc(features.index_select(1, self.index))


def test_graph_modules_are_exported_and_left_alone() -> None:
    """An fx graph with buffers of its own exports too, and keeps its own input's name."""
    module = fx.symbolic_trace(Picked().eval()).eval()
    program = export(module, torch.zeros(2, 6))
    x = torch.randn(7, 6)
    assert torch.equal(program.module()(x), module(x))
    assert [node.name for node in module.graph.find_nodes(op="placeholder")] == ["features"]


def test_training_mode_is_refused() -> None:
    """Exporting dropout and batch statistics in train mode would be a defect of the caller."""
    with pytest.raises(ValueError, match="eval mode"):
        export(network().train(), torch.zeros(2, *INPUT_SHAPE))
