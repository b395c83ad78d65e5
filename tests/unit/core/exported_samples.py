"""Exported models for the reader's tests, and a way to change an archive from the inside."""

import json
import time
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from npn_core.errors import InvalidInput
from npn_core.exported import read_exported

Entries = dict[str, bytes]
DIM = torch.export.Dim
WEIGHTS = "data/weights/model_weights_config.json"
CONSTANTS = "data/constants/model_constants_config.json"


class Residual(nn.Module):
    """Convolutions with BatchNorm and a shortcut, a buffer, a constant, dropout, and a nested output."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 4, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(4)
        self.conv2 = nn.Conv2d(4, 4, 3, padding=1)
        self.drop = nn.Dropout(0.5)
        self.fc = nn.Linear(4, 5)
        self.register_buffer("scale", torch.arange(1.0, 5.0))
        self.register_buffer("hidden", torch.ones(4), persistent=False)
        self.shift = torch.full((4,), 0.5)

    def forward(self, x: Tensor) -> dict[str, Any]:
        """(N, 3, 8, 8) to logits (N, 5) and features (N, 4)."""
        y = self.bn1(self.conv1(x)).relu()
        y = y + self.conv2(y)
        features = y.mean((2, 3)) * self.scale + self.shift * self.hidden
        return {"logits": self.fc(self.drop(features)), "more": (features,)}


class Tied(nn.Module):
    """A text model whose output layer is its embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 4)
        self.mix = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True)
        self.out = nn.Linear(4, 11, bias=False)
        self.out.weight = self.embed.weight

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """(N, 6) and (N, 6) to (N, 6, 11)."""
        return self.out(self.mix(self.embed(tokens) * mask.unsqueeze(-1)))


class Sized(nn.Module):
    """Arithmetic of sizes: floor division, maxima, powers, reshapes."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) to (N, ...)."""
        y = self.conv(x)
        y = nn.functional.interpolate(y, size=(x.shape[2] // 4, x.shape[3] // 2))
        return y.reshape(y.shape[0], -1) / x.shape[3] ** 0.5


def residual_inputs() -> tuple[Tensor, ...]:
    """Inputs for `Residual`."""
    return (torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0)),)


def export(module: nn.Module, inputs: tuple[Any, ...], shapes: Any = None) -> torch.export.ExportedProgram:
    """The exported module."""
    return torch.export.export(module, inputs, dynamic_shapes=shapes)


def save(program: torch.export.ExportedProgram, path: Path) -> Path:
    """The archive; `torch.export.save` pickles the example inputs into it."""
    torch.export.save(program, path)
    return path


def residual_archive(path: Path, *, train: bool = True) -> Path:
    """The archive of a `Residual` with a dynamic batch."""
    torch.manual_seed(0)
    module = Residual().train(train)
    return save(export(module, residual_inputs(), {"x": {0: DIM("batch")}}), path)


def read_entries(path: Path) -> Entries:
    """Entries by their name below the top folder, in order."""
    with zipfile.ZipFile(path) as archive:
        return {entry.filename.partition("/")[2]: archive.read(entry) for entry in archive.infolist()}


def write_entries(path: Path, entries: Mapping[str, bytes]) -> Path:
    """A zip with valid checksums of these entries."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in entries.items():
            archive.writestr(f"archive/{name}", data)
    return path


def edit_json(path: Path, name: str, edit: Callable[[Any], None]) -> Path:
    """Change one JSON entry in place."""
    entries = read_entries(path)
    document = json.loads(entries[name])
    edit(document)
    entries[name] = json.dumps(document).encode()
    return write_entries(path, entries)


def edit_model(path: Path, edit: Callable[[Any], None]) -> Path:
    """Change models/model.json in place."""
    return edit_json(path, "models/model.json", edit)


def graph_of(document: Any) -> Any:
    """The graph in models/model.json."""
    return document["graph_module"]["graph"]


def ordered(names: list[str], values: list[Tensor]) -> "OrderedDict[str, Tensor]":
    """An ordered dict, as models return them."""
    return OrderedDict(zip(names, values, strict=True))


def refusal(path: Path, reason: str) -> str:
    """The message of the refusal, after the checks that hold for every one."""
    start = time.perf_counter()
    with pytest.raises(InvalidInput) as caught:
        read_exported(path)
    assert time.perf_counter() - start < 30
    error = caught.value
    assert (error.field, error.reason) == ("model.uri", reason), error.message
    assert str(path.parent) not in error.message
    assert "site-packages" not in error.message
    assert error.message.isprintable()
    assert len(error.message) < 1200
    return error.message
