"""`plan()` and `compress()`: the whole story on one page."""

import math
import time
from collections.abc import Callable, Generator
from dataclasses import replace
from functools import partial

from .artifact import export_model, write_documents
from .branches import check_branches
from .budget import check_feasible
from .checkpoint import resumed
from .config import Budget, Expansion, Model, Training
from .copies import duplicate, on_device
from .cost import CostModel, cost_model
from .course import Course
from .data import Data, inspect_dataset, load_dataset
from .device import full_precision
from .gated import Network, is_normed
from .growth import awake_at_first, check_expansion
from .job import CompressJob, Outcome
from .keeper import Keeper
from .precision import with_precision
from .prepare import Prepared, prepare
from .progress import Cost, DatasetInfo, GroupPlan, Plan, Progress, Stage
from .proof import architecture_of, measured, report_of
from .search import check_searchable, search
from .state import Trained
from .surgery import write_back
from .train import Trainer
from .weights import check_units

SPARSE = (
    "single weights leave, not channels or neurons: model.safetensors holds what stays and where it is, and is "
    "smaller; model.pt2 and model.onnx hold zeros instead, and compute as long as the dense network"
)


def plan(
    model: Model, info: DatasetInfo, budget: Budget, training: Training, expansion: Expansion | None = None
) -> Plan:
    """What the job comes to, before it trains; raises InvalidInput, InfeasibleBudget."""
    _check(budget, training, expansion)
    prepared = prepare(model, info, training, weights=False)
    costs = cost_model(prepared.graph, prepared.coupling)
    dense, smallest = check_feasible(costs, budget, training.round_to, grows=expansion is not None)
    if expansion is not None:
        awake_at_first(prepared.coupling, expansion)  # which raises InvalidInput
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
    _check(job.budget, training, job.expansion)
    yield _between(job, Stage.PREPARE, epoch=0)
    prepared = prepare(job.model, inspect_dataset(job.dataset, layout=job.layout), training)
    network = Network(on_device(prepared.graph, job.device), prepared.coupling)
    costs = cost_model(network.graph, network.coupling)
    dense, smallest = check_feasible(costs, job.budget, training.round_to, grows=job.expansion is not None)
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
    samples = tuple(x.to(network.device) for x in data.samples(2))
    job = replace(job, training=with_precision(training, network, dense.macs, samples))
    ready = time.monotonic() - started
    trained = yield from _train(job, prepared, network, costs, (dense, smallest), data, should_stop, keeper)
    train_time = ready + trained.seconds

    yield _between(job, Stage.EXPORT, epoch=training.epochs)
    with full_precision():
        metrics = measured(job, prepared, data, trained)
    trained = trained.on_cpu()
    write_back(trained.full, trained.active, trained.compact)
    ends = data.samples(2), prepared.input_names
    exported = export_model(job.output, trained.compact, *ends, prepared.coupling.weights)
    yield _between(job, Stage.EXPORT, epoch=training.epochs)
    warnings = _warnings(prepared, dense, job.budget, training, job.expansion)
    report = report_of(job, prepared, data, trained, metrics, exported, ready=ready, warnings=warnings)
    files = write_documents(
        job.output,
        architecture=architecture_of(job, prepared, trained, exported),
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


def _check(budget: Budget, training: Training, expansion: Expansion | None) -> None:
    """Refuse settings that do not go together."""
    check_searchable(budget, training, expansion)
    check_units(budget, training, expansion)
    check_branches(training, expansion)
    check_expansion(training, expansion)


def _train(
    job: CompressJob,
    prepared: Prepared,
    network: Network,
    costs: CostModel,
    bounds: tuple[Cost, Cost],
    data: Data,
    should_stop: Callable[[], bool],
    keeper: Keeper | None,
) -> Generator[Progress, None, Trained]:
    """From the start, or from the checkpoint; a budget of accuracy is a search over sizes within `bounds`."""
    searched = job.budget.max_accuracy_drop_points is not None

    def fresh(budget: Budget, keeper: Keeper | None) -> Trainer:
        own = Network(duplicate(network.graph), network.coupling) if searched else network
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
        folder = job.output.with_name(f"{job.output.name}.search")
        return (yield from search(fresh, job.budget, bounds, folder, keeper, job.checkpoint))
    trainer = partial(fresh, job.budget, keeper)
    return (yield from (trainer() if job.checkpoint is None else resumed(trainer, job.checkpoint)).run())


def _warnings(
    prepared: Prepared, dense: Cost, budget: Budget, training: Training, expansion: Expansion | None
) -> tuple[str, ...]:
    open_ended = expansion is not None or budget.max_accuracy_drop_points is not None
    removes = open_ended or any(limit < getattr(dense, kind) for kind, limit in budget.limits.items())
    warnings = [
        f"max_{kind} is {limit:,} and the dense network has {getattr(dense, kind):,}: nothing will be removed"
        for kind, limit in budget.limits.items()
        if not removes
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
