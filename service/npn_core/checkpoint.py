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
from dataclasses import replace
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from .branches import without
from .budget import Hardened, fits
from .errors import CheckpointRefused
from .progress import Stage
from .state import Generators, Hardening, LoopState
from .state_document import Document, HardeningNumbers, document_of, read, set_numbers, unreadable
from .strict_json import to_json
from .train import STAGES, Trainer
from .units import Kind

STATE, TENSORS = "state.json", "tensors.safetensors"
FILES = (STATE, TENSORS)
_MASK = "hardening.mask"


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
    text = json.dumps(to_json(document_of(trainer, _sha256(path))), allow_nan=False)
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
    document = read(folder / f"{prefix}{STATE}")
    if other_budget:
        document = replace(document, budget=trainer.budget)
    _check_belongs(document, trainer)
    path = folder / f"{prefix}{TENSORS}"
    try:
        if _sha256(path) != document.tensors_sha256:
            raise CheckpointRefused(f"{TENSORS} is not the file that {STATE} was written with")
        found = load_file(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointRefused(unreadable(path, error)) from error
    _shape(trainer, document, found)
    _check_tensors(_tensors(trainer), found)
    set_numbers(trainer, document)
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


def _check_belongs(document: Document, trainer: Trainer) -> None:
    """Refuse another job's checkpoint, and a place where no checkpoint is taken."""
    own = (trainer.training, trainer.budget, trainer.expansion)
    # what "auto" comes to is another matter on another processor, which is not refused
    training = replace(document.training, precision=trainer.training.precision)
    asked = (training, document.budget, document.expansion)
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
    except LookupError as error:
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


def _set_generators(state: LoopState, found: Mapping[str, Tensor]) -> None:
    for name in _generators(state.generators):
        try:
            getattr(state.generators, name).set_state(found[f"generators.{name}"])
        except RuntimeError as error:
            raise CheckpointRefused(f"generators.{name} is no state of a generator") from error


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
