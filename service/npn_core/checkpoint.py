"""Checkpoints: a folder that holds the whole state of the loop, free of pickle.

    state.json            where the loop is, its numbers, and the SHA-256 of the other file
    tensors.safetensors   weights, buffers, moments, gates, generators

A checkpoint is taken between two steps.  The network itself is not in it: it is built anew from the job, in
stage 3 also cut anew: without the branches that have left, by the mask.  Then every tensor of the fresh state must be
there under its name, with its type and shape, and no other; only then are their values taken over.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from .branches import without
from .budget import Hardened, fits
from .config import Budget, Expansion, Training
from .device import name_of
from .errors import CheckpointRefused, CoreError
from .growth import Pulse
from .progress import Cost, Metric, Progress, Stage
from .report import Versions
from .state import Generators, Hardening, LoopState
from .strict_json import DocumentError, from_json, to_json
from .train import STAGES, Trainer
from .units import Kind

FORMAT_VERSION = 5
STATE, TENSORS = "state.json", "tensors.safetensors"
FILES = (STATE, TENSORS)
_MASK = "hardening.mask"


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


def write(folder: Path, trainer: Trainer, prefix: str = "") -> None:
    """Write the state of a loop that stands between two steps into `folder`, new but for files of another `prefix`.

    Raises OSError where it cannot be written, the disk being full for example.
    """
    folder.mkdir(exist_ok=bool(prefix))
    path = folder / f"{prefix}{TENSORS}"
    tensors = {name: tensor.contiguous() for name, tensor in _tensors(trainer).items()}
    try:
        save_file(tensors, path)
    except SafetensorError as error:
        raise OSError(str(error)) from error
    text = json.dumps(to_json(_document(trainer, _sha256(path))), allow_nan=False)
    (folder / f"{prefix}{STATE}").write_text(text, encoding="utf-8")


def resumed(fresh: Callable[[], Trainer], folder: Path) -> Trainer:
    """The trainer that goes on from a checkpoint; where that is refused a `fresh` one with a warning."""
    trainer = fresh()
    try:
        restore(trainer, folder)
    except CheckpointRefused as refused:
        trainer = fresh()
        trainer.state.warnings += (began_anew(refused),)
    return trainer


def began_anew(refused: CheckpointRefused) -> str:
    """The warning of a job whose checkpoint was refused."""
    return f"training began anew, because its checkpoint was refused: {refused}"


def restore(trainer: Trainer, folder: Path, prefix: str = "", *, other_budget: bool = False) -> None:
    """Bring a fresh trainer to the state in the files of `folder` with this `prefix`.

    `other_budget`: the job's limits may have been others.  Raises CheckpointRefused; then the trainer is of no use any
    more, but its network is as it was.
    """
    document = _read_document(folder / f"{prefix}{STATE}")
    if other_budget:
        document = replace(document, budget=trainer.budget)
    _check_belongs(document, trainer)
    path = folder / f"{prefix}{TENSORS}"
    try:
        if _sha256(path) != document.tensors_sha256:
            raise CheckpointRefused(f"{TENSORS} is not the file that {STATE} was written with")
        found = load_file(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointRefused(_unreadable(path, error)) from error
    _shape(trainer, document, found)
    _check_tensors(_tensors(trainer), found)
    _set_numbers(trainer, document)
    _set_generators(trainer.state, found)
    with torch.no_grad():
        for name, tensor in _tensors(trainer).items():
            if not name.startswith("generators."):
                tensor.copy_(found[name])
    if trainer.state.hardening is None:
        trainer.active = trainer.full.active(trainer.state.gates.awake)
    if trainer.teacher is not None and trainer.objective.kind != "distill":
        trainer.teacher.network.graph.load_state_dict(trainer.state.dense)


def _tensors(trainer: Trainer) -> dict[str, Tensor]:
    """Every tensor of the state by its name in the file: the very ones that the loop works on."""
    state, network, teacher = trainer.state, trainer.network, trainer.teacher
    kept = {} if teacher is None or teacher.kept is None else {"answers": teacher.kept}
    mask = {} if state.hardening is None else {_MASK: state.hardening.hardened.mask}
    groups: dict[str, Mapping[str, Tensor]] = {
        "network": {name: tensor.detach() for name, tensor in (network.parameters | network.buffers).items()},
        **{f"optimizer.{kind}": moments for kind, moments in state.optimizer.moments.items()},
        "gates": {"phi": state.gates.phi, "awake": state.gates.awake, "first": state.gate_adam.first},
        "estimates": {"mean": state.estimates.mean, "square": state.estimates.square},
        "saliency": {"total": state.saliency.total},
        "candidates": {"awake": state.candidates},
        "generators": _generators(state.generators) | {"order": state.epoch_start},
        "dense": state.dense,
        "teacher": kept,
    }
    return mask | {f"{group}.{name}": t for group, named in groups.items() for name, t in named.items()}


def _generators(generators: Generators) -> dict[str, Tensor]:
    return {
        name: getattr(generators, name).get_state() for name in ("order", "gates", "noise", "masks", "growth")
    }


def _document(trainer: Trainer, tensors_sha256: str) -> Document:
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


def _read_document(path: Path) -> Document:
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
        raise CheckpointRefused(_unreadable(path, error)) from error


def _unreadable(path: Path, error: Exception) -> str:
    """Why, without the folder."""
    why = error.strerror if isinstance(error, OSError) else error
    return f"{path.name} cannot be read: {why!s:.200}"


def _check_belongs(document: Document, trainer: Trainer) -> None:
    """Refuse another job's checkpoint, and a place where no checkpoint is taken."""
    asked = (document.training, document.budget, document.expansion)
    own = (trainer.training, trainer.budget, trainer.expansion)
    if asked != own or document.multipliers.keys() - trainer.budget.limits:
        raise CheckpointRefused("it belongs to a job with other settings")
    schedule, steps = trainer.schedule, trainer.steps
    epoch, batch = document.epoch, document.batch
    inside = 0 <= epoch < schedule.epochs and 0 <= batch < steps
    at_end = (epoch, batch) == (schedule.epochs, 0)
    done = sum(document.meter.done.values())
    if (
        not (inside or at_end)
        or document.stage is not schedule.stage(epoch)
        or done != epoch * steps + batch
        or (document.hardening is not None) != (document.stage is Stage.FINE_TUNE)
    ):
        raise CheckpointRefused(
            f"epoch {epoch}, batch {batch}, {done} steps of stage {document.stage.value} do not fit together"
        )


def _shape(trainer: Trainer, document: Document, found: Mapping[str, Tensor]) -> None:
    """Give the fresh trainer the network and the tensors that it has at the document's stage; no values yet."""
    _widen(trainer, document)
    state, entered = trainer.state, STAGES.index(document.stage)
    if entered >= STAGES.index(Stage.PLASTIC):
        state.dense = {n: torch.empty_like(t) for n, t in trainer.full.graph.state_dict().items()}
    if trainer.objective.kind == "distill" or document.share > 0:
        trainer.teacher = trainer.make_teacher(asked=False)
    try:
        if document.dropped:
            rest = without(trainer.full, document.dropped, trainer.data.info.inputs)
            trainer.drop(document.dropped, rest)
    except KeyError as error:
        raise CheckpointRefused(f"its network has no residual branch {error!s:.60}") from None
    if document.hardening is not None:
        trainer.cut(_hardening(trainer, document.hardening, found.get(_MASK)))


def _widen(trainer: Trainer, document: Document) -> None:
    """Give every group the size that it had grown to."""
    groups = trainer.full.coupling.by_name
    grown = {
        name: size - groups[name].size
        for name, size in document.widths.items()
        if name in groups and groups[name].kind is not Kind.FEATURE
    }
    if trainer.expansion is not None and any(more > 0 for more in grown.values()):
        trainer.widen({name: more for name, more in grown.items() if more > 0})
    widths = {group.name: group.size for group in trainer.full.coupling.groups}
    if widths != document.widths:
        raise CheckpointRefused(f"its groups have other sizes: {widths!s:.200}")


def _hardening(trainer: Trainer, numbers: HardeningNumbers, mask: Tensor | None) -> Hardening:
    """The mask, once it is known to be one: closed, a network, within the budget."""
    coupling = trainer.full.coupling
    if mask is None or mask.dtype is not torch.bool or mask.shape != (coupling.size,):
        raise CheckpointRefused(f"{TENSORS} holds no {_MASK} of {coupling.size} units")
    cost = trainer.costs.count(mask)
    is_closed = torch.equal(coupling.close(mask), mask)
    if not (is_closed and coupling.is_network(mask) and fits(cost, trainer.budget)):
        raise CheckpointRefused(f"{_MASK} is no network within the budget")
    return Hardening(
        hardened=Hardened(mask=mask, cost=cost, before=numbers.before, changed=numbers.changed),
        expected=dict(numbers.expected),
        gate_entropy=dict(numbers.gate_entropy),
    )


def _check_tensors(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> None:
    """Refuse a missing, an unknown, and any other tensor than the fresh state has."""
    if odd := sorted(expected.keys() ^ found.keys()):
        raise CheckpointRefused(
            f"{TENSORS} lacks, or has beyond what the job needs: {', '.join(odd[:5]):.200}"
        )
    for name, tensor in expected.items():
        if (tensor.dtype, tensor.shape) != (found[name].dtype, found[name].shape):
            raise CheckpointRefused(
                f"{name:.100} is {found[name].dtype} {tuple(found[name].shape)}, "
                f"not {tensor.dtype} {tuple(tensor.shape)}"
            )


def _set_numbers(trainer: Trainer, document: Document) -> None:
    """Everything that is no tensor."""
    state = trainer.state
    state.stage, state.epoch, state.batch = document.stage, document.epoch, document.batch
    state.k = document.k
    state.metrics, state.received = document.metrics, document.received
    state.warnings, state.history = document.warnings, list(document.history)
    state.share, state.seconds, state.resumed = document.share, document.seconds, document.resumed + 1
    state.pulse = document.pulse
    if document.versions != Versions.current(name_of(trainer.full.device)):
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


def _set_generators(state: LoopState, found: Mapping[str, Tensor]) -> None:
    for name in _generators(state.generators):
        try:
            getattr(state.generators, name).set_state(found[f"generators.{name}"])
        except RuntimeError as error:
            raise CheckpointRefused(f"generators.{name} is no state of a generator") from error


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
