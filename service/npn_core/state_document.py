"""state.json of a checkpoint: what of the loop's state is no tensor, strictly read."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .config import Budget, Expansion, Training
from .device import name_of
from .errors import CheckpointRefused, CoreError
from .growth import Pulse
from .progress import Cost, Metric, Progress, Stage
from .report import Versions
from .strict_json import DocumentError, from_json
from .train import STAGES, Trainer

FORMAT_VERSION = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class MeterNumbers:
    """A `Meter`, by stage."""

    seconds: Mapping[str, float]
    samples: Mapping[str, int]
    done: Mapping[str, int]
    rate: float

    def __post_init__(self) -> None:
        stages = {stage.value for stage in STAGES}
        if odd := (self.seconds.keys() | self.samples.keys() | self.done.keys()) - stages:
            raise DocumentError(f"the meter knows no stage {sorted(odd)[0]!r:.40}")


@dataclass(frozen=True, kw_only=True, slots=True)
class MultiplierNumbers:
    """One kind of cost in `Multipliers`."""

    first: float
    integral: float
    value: float
    gain: float


@dataclass(frozen=True, kw_only=True, slots=True)
class HardeningNumbers:
    """A `Hardening` without its mask."""

    before: Cost
    changed: int
    expected: Mapping[str, float]
    gate_entropy: Mapping[str, float]


@dataclass(frozen=True, kw_only=True, slots=True)
class Document:
    """state.json: what of `LoopState` is no tensor, and what the checkpoint belongs to."""

    format_version: int
    tensors_sha256: str
    versions: Versions
    training: Training
    budget: Budget
    expansion: Expansion | None
    widths: Mapping[str, int]
    stage: Stage
    epoch: int
    batch: int
    k: float
    metrics: tuple[Metric, ...]
    received: tuple[Metric, ...]
    warnings: tuple[str, ...]
    history: tuple[Progress, ...]
    share: float
    dropped: tuple[str, ...]
    pulse: Pulse
    seconds: float
    resumed: int
    optimizer_steps: int
    gate_steps: int
    gate_second: float
    saliency_batches: int
    multipliers: Mapping[str, MultiplierNumbers]
    meter: MeterNumbers
    hardening: HardeningNumbers | None


def document_of(trainer: Trainer, tensors_sha256: str) -> Document:
    """What of the loop's state is no tensor; `tensors_sha256` is of the file that holds the rest."""
    state, multipliers, meter = trainer.state, trainer.state.multipliers, trainer.state.meter
    hardening = state.hardening
    return Document(
        format_version=FORMAT_VERSION,
        tensors_sha256=tensors_sha256,
        versions=Versions.current(name_of(trainer.full.device)),
        training=trainer.training,
        budget=trainer.budget,
        expansion=trainer.expansion,
        widths={group.name: group.size for group in trainer.dense.coupling.groups},
        stage=state.stage,
        epoch=state.epoch,
        batch=state.batch,
        k=state.k,
        metrics=state.metrics,
        received=state.received,
        warnings=state.warnings,
        history=tuple(state.history),
        share=state.share,
        dropped=state.dropped,
        pulse=state.pulse,
        seconds=trainer.seconds(),
        resumed=state.resumed,
        optimizer_steps=state.optimizer.steps,
        gate_steps=state.gate_adam.steps,
        gate_second=state.gate_adam.second,
        saliency_batches=state.saliency.batches,
        multipliers={
            kind: MultiplierNumbers(
                first=first,
                integral=multipliers.integral[kind],
                value=multipliers.value[kind],
                gain=multipliers.gain.get(kind, 1.0),
            )
            for kind, first in multipliers.first.items()
        },
        meter=MeterNumbers(
            seconds={stage.value: number for stage, number in meter.seconds.items()},
            samples={stage.value: number for stage, number in meter.samples.items()},
            done={stage.value: number for stage, number in meter.done.items()},
            rate=meter.rate,
        ),
        hardening=None
        if hardening is None
        else HardeningNumbers(
            before=hardening.hardened.before,
            changed=hardening.hardened.changed,
            expected=hardening.expected,
            gate_entropy=hardening.gate_entropy,
        ),
    )


def read(path: Path) -> Document:
    """The document in a file; raises CheckpointRefused."""
    try:
        value: Any = json.loads(path.read_text(encoding="utf-8"))
        version = value.get("format_version") if isinstance(value, dict) else None
        if version != FORMAT_VERSION:
            raise CheckpointRefused(
                f"it is of format version {version!r:.20}, and this server writes {FORMAT_VERSION}"
            )
        return from_json(Document, value)
    except CheckpointRefused:
        raise
    except (OSError, ValueError, RecursionError, CoreError) as error:  # DocumentError is a ValueError
        raise CheckpointRefused(unreadable(path, error)) from error


def set_numbers(trainer: Trainer, document: Document) -> None:
    """Bring a fresh trainer to where the document says that the loop was."""
    state = trainer.state
    state.stage, state.epoch, state.batch = document.stage, document.epoch, document.batch
    state.k = document.k
    state.metrics, state.received = document.metrics, document.received
    state.warnings, state.history = document.warnings, list(document.history)
    state.share, state.seconds, state.resumed = document.share, document.seconds, document.resumed + 1
    state.pulse = document.pulse
    here = Versions.current(name_of(trainer.full.device)), trainer.training.precision
    if (document.versions, document.training.precision) != here:
        state.warnings += ("training went on with another version or processor: not bit for bit",)
    state.optimizer.steps = document.optimizer_steps
    state.gate_adam.steps, state.gate_adam.second = document.gate_steps, document.gate_second
    state.saliency.batches = document.saliency_batches
    for kind, one in document.multipliers.items():
        state.multipliers.first[kind] = one.first
        state.multipliers.integral[kind] = one.integral
        state.multipliers.value[kind] = one.value
        if one.gain != 1.0:
            state.multipliers.gain[kind] = one.gain
    meter = document.meter
    state.meter.seconds = {Stage(stage): number for stage, number in meter.seconds.items()}
    state.meter.samples = {Stage(stage): number for stage, number in meter.samples.items()}
    state.meter.done = {Stage(stage): number for stage, number in meter.done.items()}
    state.meter.rate = meter.rate


def unreadable(path: Path, error: Exception) -> str:
    """Why a file cannot be read, without its folder."""
    why = error.strerror if isinstance(error, OSError) else error
    return f"{path.name} cannot be read: {why!s:.200}"
