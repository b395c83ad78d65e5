"""`plan()` and `compress()`: the whole story on one page."""

import copy
import math
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .artifact import Exported, OutputFile, export_model, write_documents
from .branches import check_branches
from .budget import check_feasible
from .catalogue import resolve_params
from .checkpoint import resumed
from .config import Budget, CatalogueModel, Expansion, Model, Training
from .copies import on_device
from .cost import CostModel, cost_model
from .course import Course
from .data import Batch, Data, Room, inspect_dataset, load_dataset, load_test
from .device import CPU, full_precision, name_of
from .difference import Difference
from .gated import Network, is_normed
from .growth import awake_at_first
from .latency import measure
from .objective import Outputs, named
from .outputs import output_tensors
from .precision import with_precision
from .prepare import Prepared, prepare
from .progress import Cost, DatasetInfo, GroupPlan, Metric, Plan, Progress, Stage
from .recount import count
from .report import ArchitectureDocument, Hardening, KeptUnits, Report, SparseWeight, Versions
from .search import check_searchable, search
from .state import Trained
from .step import gated_outputs
from .surgery import compact, write_back
from .train import Keeper, Trainer
from .units import Kind
from .weights import check_units
from .widths import layer_widths

PROOF_SAMPLES = 1000
SPARSE = (
    "single weights leave, not channels or neurons: model.safetensors holds what stays and where it is, and is "
    "smaller; model.pt2 and model.onnx hold zeros instead, and compute as long as the dense network"
)


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


def plan(
    model: Model, info: DatasetInfo, budget: Budget, training: Training, expansion: Expansion | None = None
) -> Plan:
    """What the job comes to, before it trains; raises InvalidInput, InfeasibleBudget."""
    check_searchable(budget, training, expansion)
    check_units(budget, training, expansion)
    check_branches(training, expansion)
    prepared = prepare(model, info, training, weights=False)
    costs = cost_model(prepared.graph, prepared.coupling)
    dense, smallest = check_feasible(costs, budget, training.round_to)
    if expansion is not None:
        awake_at_first(prepared.coupling, expansion)
    groups = prepared.coupling.groups
    return Plan(
        dense=dense,
        smallest=smallest,
        groups=tuple(GroupPlan(name=g.name, kind=g.kind.value, size=g.size) for g in groups),
        unpruned=prepared.coupling.unpruned,
        prunable=costs.prunable,
        warnings=_warnings(prepared, dense, budget, training, expansion),
    )


def compress(
    job: CompressJob, should_stop: Callable[[], bool], keeper: Keeper | None = None
) -> Generator[Progress, None, Outcome]:
    """Train, harden, measure, export.

    Yields progress, ends with the outcome; raises InvalidInput before training, TrainingDiverged, Stopped.
    """
    started = time.monotonic()
    training = job.training
    check_searchable(job.budget, training, job.expansion)
    check_units(job.budget, training, job.expansion)
    check_branches(training, job.expansion)
    yield _between(job, Stage.PREPARE, epoch=0)
    prepared = prepare(job.model, inspect_dataset(job.dataset, layout=job.layout), training)
    network = Network(on_device(prepared.graph, job.device), prepared.coupling)
    costs = cost_model(network.graph, network.coupling)
    dense, _ = check_feasible(costs, job.budget, training.round_to)
    yield _between(job, Stage.PREPARE, epoch=0)
    data = load_dataset(
        job.dataset,
        layout=job.layout,
        preprocessing=training.preprocessing,
        seed=training.seed,
        inputs=prepared.input_names,
        uploaded_trained=prepared.trained,
        room=job.room,
        device=network.device,
    )
    yield _between(job, Stage.PREPARE, epoch=0)
    samples = tuple(x.to(network.device) for x in _samples(data, 2))
    job = replace(job, training=with_precision(training, network, dense.macs, samples))
    ready = time.monotonic() - started
    trained = yield from _train(job, prepared, network, costs, data, should_stop, keeper)
    train_time = ready + trained.seconds

    yield _between(job, Stage.EXPORT, epoch=training.epochs)
    with full_precision():
        metrics = _measure(job, prepared, data, trained)
    trained = trained.on_cpu()
    write_back(trained.full, trained.active, trained.compact)
    ends = _samples(data, 2), prepared.input_names
    exported = export_model(job.output, trained.compact, *ends, prepared.coupling.weights)
    yield _between(job, Stage.EXPORT, epoch=training.epochs)
    report = _report(job, prepared, data, trained, metrics, ready, exported)
    files = write_documents(
        job.output,
        architecture=_architecture(job, prepared, trained, exported),
        report=report,
        metrics=trained.state.history,
    )
    return Outcome(
        dense=report.dense,
        compact=report.compact,
        metrics=report.metrics,
        files=files,
        train_time=train_time,
    )


def _train(
    job: CompressJob,
    prepared: Prepared,
    network: Network,
    costs: CostModel,
    data: Data,
    should_stop: Callable[[], bool],
    keeper: Keeper | None,
) -> Generator[Progress, None, Trained]:
    """From the start, or from where the checkpoint was taken; a budget of accuracy is a search over sizes."""

    searched = job.budget.max_accuracy_drop_points is not None

    def fresh(budget: Budget, keeper: Keeper | None) -> Trainer:
        own = Network(copy.deepcopy(network.graph), network.coupling) if searched else network
        return Trainer(
            network=own,
            costs=costs,
            data=data,
            objective=prepared.objective,
            budget=budget,
            training=job.training,
            trained=prepared.trained,
            expansion=job.expansion,
            should_stop=should_stop,
            keeper=keeper,
        )

    if searched:
        bounds = check_feasible(costs, job.budget, job.training.round_to)
        folder = job.output.with_name(f"{job.output.name}.search")
        return (yield from search(fresh, job.budget, bounds, folder, keeper, job.checkpoint))
    trainer = partial(fresh, job.budget, keeper)
    return (yield from (trainer() if job.checkpoint is None else resumed(trainer, job.checkpoint)).run())


def _samples(data: Data, number: int) -> tuple[Tensor, ...]:
    """`number` validation samples on the CPU, repeated where there are fewer."""
    batch = next(iter(data.validation_batches(number))).to(CPU)
    return tuple(x[torch.arange(number) % len(batch)].contiguous() for x in batch.x)


def _report(
    job: CompressJob,
    prepared: Prepared,
    data: Data,
    trained: Trained,
    metrics: tuple[Metric, ...],
    ready: float,
    exported: Exported,
) -> Report:
    """The proof, made with the compact network; `ready` in seconds."""
    dense, network = trained.first, trained.full
    difference = largest_difference(
        network, trained, _samples(data, min(PROOF_SAMPLES, len(data.validation)))
    )
    whole = compact(trained.dense, trained.whole, data.info.inputs)
    return Report(
        budget=job.budget,
        dense=dense,
        compact=count(trained.compact, _samples(data, 1), prepared.coupling.weights),
        largest_difference=difference.largest,
        relative_difference=difference.relative,
        onnx=exported.onnx,
        latency=measure(whole.eval(), trained.compact, _samples(data, 64), job.training.threads),
        unpruned=prepared.coupling.unpruned,
        metrics=metrics,
        hardening=_hardening(trained),
        preprocessing=data.preprocessing,
        dataset=data.info,
        training=trained.training,
        distillation=trained.state.share,
        seeds={"training": job.training.seed},
        resumed=trained.state.resumed,
        trials=trained.trials,
        versions=Versions.current(name_of(data.device)),
        timings={"prepare": ready}
        | {stage.value: seconds for stage, seconds in trained.state.meter.seconds.items()},
        warnings=_warnings(prepared, dense, job.budget, job.training, job.expansion)
        + trained.state.warnings
        + exported.warnings,
    )


def largest_difference(network: Network, trained: Trained, x: tuple[Tensor, ...]) -> Difference:
    """The largest difference between gated and compact outputs for `x`, each (N, *input shape)."""
    return Difference.of(gated_outputs(network, x, trained.active), _outputs(trained.compact, x))


def _measure(job: CompressJob, prepared: Prepared, data: Data, trained: Trained) -> tuple[Metric, ...]:
    """What the network said as it came, dense and compact; the one place that reads the test split."""
    network = Network(copy.deepcopy(trained.dense.graph), trained.dense.coupling)
    network.graph.load_state_dict(trained.state.dense)
    test = load_test(
        job.dataset,
        layout=job.layout,
        preprocessing=data.preprocessing,
        inputs=prepared.input_names,
        room=job.room,
        device=data.device,
    )
    objective, own_teacher = prepared.objective, prepared.objective.kind == "distill"

    def answers(compacted: bool, batches: Iterator[Batch]) -> Iterator[tuple[Outputs, Any]]:
        for batch in batches:
            dense = network.evaluate(batch.x) if own_teacher or not compacted else ()
            outputs = _outputs(trained.compact, batch.x) if compacted else dense
            yield outputs, dense[objective.output] if own_teacher else batch.y

    measured = [named("received", trained.state.received)] if trained.state.received else []
    for name, compacted in (("dense", False), ("compact", True)):
        for split, batches in (("validation", data.validation_batches()), ("test", test.batches())):
            measured.append(named(f"{name}_{split}", objective.measure(answers(compacted, batches))))
    return tuple(metric for metrics in measured for metric in metrics)


def _outputs(module: nn.Module, x: tuple[Tensor, ...]) -> Outputs:
    with torch.no_grad():
        return output_tensors(module(*x))


def _hardening(trained: Trained) -> Hardening:
    hardening = trained.hardening
    before = hardening.hardened.before
    return Hardening(
        expected_cost=hardening.expected,
        hard_cost_before_repair={kind: getattr(before, kind) for kind in hardening.expected},
        gate_entropy=hardening.gate_entropy,
        units_changed=hardening.hardened.changed,
    )


def _architecture(
    job: CompressJob, prepared: Prepared, trained: Trained, exported: Exported
) -> ArchitectureDocument:
    mask, dense = trained.of_dense(trained.hardening.hardened.mask), trained.dense
    catalogue = job.model if isinstance(job.model, CatalogueModel) else None
    return ArchitectureDocument(
        name=catalogue.name if catalogue else "uploaded",
        params=resolve_params(catalogue.name, catalogue.params) if catalogue else {},
        inputs=exported.inputs,
        outputs=exported.outputs,
        classes=prepared.info.classes,
        groups=tuple(
            KeptUnits(
                name=group.name,
                kind=group.kind.value,
                size=group.size,
                kept=tuple(mask[group.slice].nonzero().flatten().tolist()),
            )
            for group in dense.coupling.groups
            if group.kind is not Kind.WEIGHT
        ),
        sparse=tuple(
            SparseWeight(
                name=name, shape=tuple(dense.parameters[name].shape), kept=int(mask[group.slice].sum())
            )
            for name, group in dense.coupling.weights.items()
        ),
        layers=layer_widths(dense.graph, trained.compact),
    )


def _warnings(
    prepared: Prepared, dense: Cost, budget: Budget, training: Training, expansion: Expansion | None
) -> tuple[str, ...]:
    warnings = [
        f"max_{kind} is {limit:,} and the dense network has {getattr(dense, kind):,}: nothing will be removed"
        for kind, limit in budget.limits.items()
        if limit >= getattr(dense, kind) and expansion is None
    ]
    course = Course.of(
        training,
        budget,
        expansion,
        dense,
        normed=is_normed(prepared.graph),
        objective=prepared.objective.kind,
        trained=prepared.trained,
    )
    stages = course.schedule.stage_epochs.values()
    if 0 in stages:
        dense_epochs, plastic, fine_tune = stages
        warnings.append(
            f"of {training.epochs} epochs stage 1 has {dense_epochs}, stage 2 {plastic} and stage 3 {fine_tune}: "
            "a stage without epochs learns nothing; all have some from 3 epochs on, where training.k says nothing else"
        )
    if training.units == "weights":
        warnings.append(SPARSE)
    return tuple(warnings)


def _between(job: CompressJob, stage: Stage, *, epoch: int) -> Progress:
    """Progress outside of the loop."""
    return Progress(
        step=0,
        steps=0,
        epoch=epoch,
        epochs=job.training.epochs,
        stage=stage,
        k=math.inf,
        loss=math.nan,
        metrics=(),
        costs=(),
        groups=(),
        samples_per_second=0.0,
        time_left=0.0,
    )
