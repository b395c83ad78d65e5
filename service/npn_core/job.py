"""What a job of the method is given, and what it gives."""

from dataclasses import dataclass, field
from pathlib import Path

import torch

from .artifact import OutputFile
from .config import Budget, Expansion, Model, Training
from .data import Room
from .device import CPU
from .progress import Cost, Metric


@dataclass(frozen=True, kw_only=True, slots=True)
class CompressJob:
    """One job: `dataset` is a local file or folder to read, `output` an existing empty folder for the artifact.

    `checkpoint` is a folder that `checkpoint.write` made for this job: training goes on from there.
    `room` is where the decoded dataset may lie.  With an `expansion` the network grows.  Training and its measurements
    run on `device`; the artifact is made, proven and timed on the CPU.
    """

    model: Model
    dataset: Path
    layout: str
    budget: Budget
    training: Training
    output: Path
    expansion: Expansion | None = None
    checkpoint: Path | None = None
    room: Room = field(default_factory=Room)
    device: torch.device = CPU


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What a job gives: `train_time` in seconds, from reading the data to the last step, in all attempts."""

    dense: Cost
    compact: Cost
    metrics: tuple[Metric, ...]
    files: tuple[OutputFile, ...]
    train_time: float
