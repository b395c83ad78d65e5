"""Whole jobs in a second or two, on files that a user might send."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from npn_core.job import CompressJob, Outcome
from npn_core.keeper import Keeper
from npn_core.pipeline import compress
from npn_core.progress import Progress
from npn_core.report import ArchitectureDocument, Report, read_document


def run(
    job: CompressJob, should_stop: Callable[[], bool] = lambda: False, keeper: Keeper | None = None
) -> tuple[Outcome, list[Progress]]:
    """The outcome and everything the loop said."""
    job.output.mkdir(exist_ok=True)
    said: list[Progress] = []
    generator = compress(job, should_stop, keeper)
    while True:
        try:
            said.append(next(generator))
        except StopIteration as end:
            return end.value, said


def report_of(job: CompressJob) -> Report:
    """What report.json says."""
    return read_document(Report, (job.output / "report.json").read_text())


def architecture_of(job: CompressJob) -> ArchitectureDocument:
    """What architecture.json says."""
    return read_document(ArchitectureDocument, (job.output / "architecture.json").read_text())


def metrics_of(job: CompressJob) -> dict[str, float]:
    """The report's metrics by name."""
    return {metric.name: metric.value for metric in report_of(job).metrics}


def write_model(path: Path, module: nn.Module, *shapes: tuple[int, ...]) -> Path:
    """The module exported in train mode for any batch size of such samples."""
    batch = torch.export.Dim("batch", min=1)
    inputs = tuple(torch.zeros(2, *shape) for shape in shapes)
    program = torch.export.export(module.train(), inputs, dynamic_shapes=tuple({0: batch} for _ in shapes))
    program.example_inputs = None  # torch.export.save would pickle them
    torch.export.save(program, path)
    return path


def write_dataset(path: Path, train: dict[str, np.ndarray], test: dict[str, np.ndarray]) -> Path:
    """Arrays by their names without the split: "x", "y", "x.image"."""
    arrays = {}
    for split, named in (("train", train), ("test", test)):
        for name, array in named.items():
            first, dot, rest = name.partition(".")
            arrays[f"{first}_{split}{dot}{rest}"] = array
    np.savez(path, **arrays)
    return path


def loaded_outputs(job: CompressJob, *inputs: Tensor) -> Tensor | dict[str, Tensor]:
    """What the artifact's program gives."""
    with torch.no_grad():
        return torch.export.load(job.output / "model.pt2").module()(*inputs)
