"""A caller's module or program as an archive: exported with torch where the caller has it."""

import subprocess
import sys
import zipfile
from collections import namedtuple
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from npn_client import Architecture, InvalidArgument, ModelArchive
from npn_client.exporting import prepare


class Net(nn.Module):
    """A convolution, a BatchNorm and a linear layer; a subclass says what comes out."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.bn = nn.BatchNorm2d(4)
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(4, 2)

    def logits(self, image: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, 2)."""
        features: Tensor = self.drop(self.bn(self.conv(image)).relu().mean((2, 3)))
        return self.head(features)

    def forward(self, image: Tensor) -> Any:
        """The logits."""
        return self.logits(image)


@dataclass
class Output:
    """What a library would return; torch.export knows no such class."""

    logits: Tensor
    cache: object = None


class WithOutput(Net):
    """Gives an Output."""

    def forward(self, image: Tensor) -> Any:
        """The logits and something that is no tensor."""
        return Output(logits=self.logits(image), cache=object())


class WithPair(Net):
    """Gives a named tuple in a dict."""

    def forward(self, image: Tensor) -> Any:
        """Two tensors, one entry that is absent."""
        pair = namedtuple("pair", "a b")
        return {"pair": pair(self.logits(image), image), "loss": None}


class FixedBatch(Net):
    """Works for a batch of four alone."""

    def forward(self, image: Tensor) -> Any:
        """The literal 4 fixes the batch."""
        return self.conv(image).reshape(4, -1)


class Branching(Net):
    """What comes out depends on the data."""

    def forward(self, image: Tensor) -> Any:
        """Either way."""
        if image.sum() > 0:
            return image
        return -image


class TwoInputs(Net):
    """An image and a scale."""

    def forward(self, image: Tensor, scale: Tensor | None = None) -> Any:
        """The product."""
        assert scale is not None
        return self.logits(image) * scale


IMAGES = torch.zeros(4, 3, 8, 8)


def exported(model: Any, inputs: Any, folder: Path) -> torch.export.ExportedProgram:
    """The archive that `prepare` writes, read again."""
    archive = prepare(model, inputs, folder)
    assert isinstance(archive, ModelArchive)
    assert archive.local_path is not None
    return torch.export.load(archive.local_path)


def test_a_module_is_exported_as_it_trains(tmp_path: Path) -> None:
    """Training mode, any batch size, the caller's names, no example inputs; the module is as it was."""
    net = Net()
    net.eval()
    net.bn.train()
    state = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    program = exported(net, IMAGES, tmp_path)
    assert {name for name, _ in net.named_modules() if net.get_submodule(name).training} == {"bn"}
    assert "forward" not in net.__dict__
    assert all(torch.equal(tensor, state[name]) for name, tensor in net.state_dict().items())
    assert set(program.state_dict) == set(state)
    assert program.graph_signature.user_inputs == ("image",)
    called = " ".join(str(node.target) for node in program.graph.nodes)
    assert "batch_norm" in called
    assert "dropout" in called
    assert program.module()(torch.zeros(7, 3, 8, 8)).shape == (7, 2)
    with zipfile.ZipFile(tmp_path / "model.pt2") as archive:
        (samples,) = [entry for entry in archive.infolist() if "sample_inputs" in entry.filename]
    assert samples.file_size == 0


@pytest.mark.parametrize("model", [WithOutput(), WithPair()])
def test_outputs_become_plain_containers(model: Net, tmp_path: Path) -> None:
    """Classes of a library become dicts and tuples, entries without tensors go, parameters keep their names."""
    program = exported(model, (IMAGES,), tmp_path)
    out = program.module()(torch.zeros(3, 3, 8, 8))
    expected = {"logits"} if isinstance(model, WithOutput) else {"pair"}
    assert (type(out), set(out)) == (dict, expected)
    assert type(out.get("pair", ())) is tuple
    assert "conv.weight" in program.state_dict


@pytest.mark.parametrize("inputs", [(IMAGES, torch.ones(4, 2)), {"image": IMAGES, "scale": torch.ones(4, 2)}])
def test_several_inputs_keep_their_names(inputs: Any, tmp_path: Path) -> None:
    """By position or by name; each has the same dynamic batch."""
    program = exported(TwoInputs(), inputs, tmp_path)
    assert program.graph_signature.user_inputs == ("image", "scale")
    batches = {
        str(node.meta["val"].shape[0]) for node in program.graph.nodes if node.name in ("image", "scale")
    }
    assert len(batches) == 1
    assert not batches.pop().isdecimal()


def test_a_batch_of_one_gives_any_batch_size(tmp_path: Path) -> None:
    """torch.export takes a one for a constant; the caller need not know."""
    program = exported(Net(), IMAGES[:1], tmp_path)
    assert program.module()(torch.zeros(5, 3, 8, 8)).shape == (5, 2)


def test_a_batch_that_cannot_vary_is_fixed_with_a_warning(tmp_path: Path) -> None:
    """The warning says so, and what torch says."""
    with pytest.warns(UserWarning, match="batch size stays 4.*FixedBatch"):
        program = exported(FixedBatch(), IMAGES, tmp_path)
    (image,) = [node for node in program.graph.nodes if node.name == "image"]
    assert image.meta["val"].shape[0] == 4


def test_a_program_is_saved_without_its_inputs(tmp_path: Path) -> None:
    """The caller's program keeps its own; the archive has none."""
    program = torch.export.export(Net(), (IMAGES,))
    saved = exported(program, None, tmp_path)
    assert program.example_inputs is not None
    assert saved.example_inputs is None


@pytest.mark.parametrize(
    ("model", "inputs", "field", "said"),
    [
        (Branching(), IMAGES, "job.model", r"Branching at test_client_exporting\.py:\d+ \(if image\.sum"),
        (Net(), None, "example_inputs", "example_inputs are needed"),
        (Net(), "images", "example_inputs", "not str"),
        (Net(), (), "example_inputs", "not nothing"),
        (Net(), (IMAGES, 3), "example_inputs", "Tensor, int"),
        (object(), None, "job.model", "object is not a model"),
        ("resnet20", IMAGES, "example_inputs", "go with an nn.Module alone"),
    ],
)
def test_what_cannot_be_exported_is_named(
    model: Any, inputs: Any, field: str, said: str, tmp_path: Path
) -> None:
    """The field, what failed, and the line of the module where torch stopped."""
    with pytest.raises(InvalidArgument, match=said) as raised:
        prepare(model, inputs, tmp_path)
    assert raised.value.violations[0].field == field
    assert not list(tmp_path.iterdir())


def test_names_need_no_torch(tmp_path: Path) -> None:
    """Without torch a name and a file are as ever, and anything else is told what is missing."""
    program = (
        "import sys, pathlib\n"
        "sys.modules['torch'] = None\n"
        "import npn_client\n"
        "from npn_client.exporting import prepare\n"
        "folder = pathlib.Path('.')\n"
        "assert prepare('mlp', None, folder) == npn_client.Architecture('mlp')\n"
        "assert prepare('a.pt2', None, folder) == npn_client.ModelArchive('a.pt2')\n"
        "try:\n    prepare(object(), None, folder)\n"
        "except npn_client.InvalidArgument as error:\n    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "install torch" in done.stdout
    assert prepare("mlp", None, tmp_path) == Architecture("mlp")
