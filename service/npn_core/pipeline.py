"""`plan()` and `compress()`: the whole story on one page."""

import math
import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, fx

from .artifact import OutputFile, write_artifact
from .budget import check_feasible
from .catalogue import build, resolve_params
from .config import Budget, Training
from .cost import CostModel, cost_model
from .data import Data, check_preprocessing, load_dataset, load_test
from .errors import InvalidInput
from .gated import Network
from .graph import NORMS, trace
from .groups import find_groups
from .observe import accuracy
from .progress import Cost, DatasetInfo, GroupPlan, Metric, Plan, Progress, Stage
from .recount import count
from .report import Accuracies, Accuracy, ArchitectureDocument, Hardening, KeptUnits, Report, Versions
from .schedule import Schedule
from .step import gated_outputs
from .surgery import write_back
from .train import Trained, Trainer

PROOF_SAMPLES = 1000


@dataclass(frozen=True, kw_only=True, slots=True)
class CompressJob:
    """One job: `dataset` is a local file to read, `output` an existing empty folder for the artifact."""

    architecture: str
    params: Mapping[str, str]
    dataset: Path
    layout: str
    budget: Budget
    training: Training
    output: Path


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What a job gives: `train_time` in seconds, from reading the data to the last step."""

    dense: Cost
    compact: Cost
    metrics: tuple[Metric, ...]
    files: tuple[OutputFile, ...]
    train_time: float


def plan(
    architecture: str, params: Mapping[str, str], info: DatasetInfo, budget: Budget, training: Training
) -> Plan:
    """What the job comes to, without allocating a weight; raises InvalidInput, InfeasibleBudget."""
    check_preprocessing(training.preprocessing, info)
    with torch.device("meta"):
        module = build(architecture, params, input_shape=info.input_shape, classes=info.classes, seed=0)
        graph = trace(module, info.input_shape)
    _check_batch_size(graph, training)
    coupling = find_groups(graph)
    dense, smallest = check_feasible(cost_model(graph, coupling), budget)
    groups = tuple(GroupPlan(name=g.name, kind=g.kind.value, size=g.size) for g in coupling.groups)
    return Plan(dense=dense, smallest=smallest, groups=groups, warnings=_warnings(dense, budget, training))


def compress(job: CompressJob, should_stop: Callable[[], bool]) -> Generator[Progress, None, Outcome]:
    """Train, harden, measure, export.

    Yields progress, ends with the outcome; raises InvalidInput before training, TrainingDiverged, Stopped.
    """
    started = time.monotonic()
    training = job.training
    yield _between(job, Stage.PREPARE, epoch=0)
    data = load_dataset(
        job.dataset, layout=job.layout, preprocessing=training.preprocessing, seed=training.seed
    )
    shape, classes = data.info.input_shape, data.info.classes
    module = build(job.architecture, job.params, input_shape=shape, classes=classes, seed=training.seed)
    graph = trace(module, shape)
    _check_batch_size(graph, training)
    network = Network(graph, find_groups(graph))
    costs = cost_model(graph, network.coupling)
    check_feasible(costs, job.budget)
    trainer = Trainer(
        network=network,
        costs=costs,
        data=data,
        budget=job.budget,
        training=training,
        should_stop=should_stop,
    )
    prepared = time.monotonic() - started
    lines: list[Progress] = []
    trained = yield from _recorded(trainer.run(), lines)
    train_time = time.monotonic() - started

    yield _between(job, Stage.EXPORT, epoch=training.epochs)
    report = _report(job, network, costs, data, trained, prepared)
    files = write_artifact(
        job.output,
        trained.compact,
        data.x_val[:1].expand(2, *shape).contiguous(),
        architecture=_architecture(job, data.info, costs, trained),
        report=report,
        metrics=lines,
    )
    return Outcome(
        dense=report.dense,
        compact=report.compact,
        metrics=_metrics(report.accuracies),
        files=files,
        train_time=train_time,
    )


def _check_batch_size(graph: fx.GraphModule, training: Training) -> None:
    if training.batch_size == 1 and any(isinstance(module, NORMS) for module in graph.modules()):
        raise InvalidInput(
            "training.batch_size", "batch_size is 1; BatchNorm needs at least 2 samples to train on"
        )


def _report(
    job: CompressJob, network: Network, costs: CostModel, data: Data, trained: Trained, prepared: float
) -> Report:
    """The proof, measured on the compact network; `prepared` in seconds."""
    dense, _ = check_feasible(costs, job.budget)
    write_back(network, trained.active, trained.compact)
    difference = largest_difference(network, trained, data.x_val[:PROOF_SAMPLES])
    return Report(
        budget=job.budget,
        dense=dense,
        compact=count(trained.compact, data.info.input_shape),
        largest_difference=difference,
        accuracies=_measure(network, trained, data, job),
        hardening=_hardening(trained, job.budget),
        preprocessing=data.preprocessing,
        dataset=data.info,
        training=job.training,
        seeds={"training": job.training.seed},
        versions=Versions.current(),
        timings={"prepare": prepared}
        | {stage.value: seconds for stage, seconds in trained.meter.seconds.items()},
        warnings=_warnings(dense, job.budget, job.training),
    )


def largest_difference(network: Network, trained: Trained, x: Tensor) -> float:
    """Largest absolute difference between gated and compact outputs for `x` (N, *input shape)."""
    with torch.no_grad():
        compact = trained.compact(x)
    return float((gated_outputs(network, x, trained.active) - compact).abs().max())


def _recorded(
    run: Generator[Progress, None, Trained], lines: list[Progress]
) -> Generator[Progress, None, Trained]:
    """Pass progress on and keep what each validation saw."""
    while True:
        try:
            progress = next(run)
        except StopIteration as end:
            trained: Trained = end.value
            return trained
        if progress.metrics and (not lines or progress.metrics is not lines[-1].metrics):
            lines.append(progress)
        yield progress


def _measure(network: Network, trained: Trained, data: Data, job: CompressJob) -> Accuracies:
    """Dense and compact accuracy; the one place that reads the test split."""
    network.graph.load_state_dict(trained.dense)
    x_test, y_test = load_test(job.dataset, layout=job.layout, preprocessing=data.preprocessing)
    return Accuracies(
        dense_validation=accuracy(network.evaluate(data.x_val), data.y_val),
        dense_test=accuracy(network.evaluate(x_test), y_test),
        compact_validation=accuracy(_outputs(trained.compact, data.x_val), data.y_val),
        compact_test=accuracy(_outputs(trained.compact, x_test), y_test),
    )


def _outputs(module: fx.GraphModule, x: Tensor, chunk: int = 1000) -> Tensor:
    with torch.no_grad():
        return torch.cat([module(part) for part in torch.split(x, chunk)])


def _hardening(trained: Trained, budget: Budget) -> Hardening:
    before = trained.hardened.before
    return Hardening(
        expected_cost=trained.expected,
        hard_cost_before_repair={kind: getattr(before, kind) for kind in budget.limits},
        gate_entropy=trained.gate_entropy,
        units_changed=trained.hardened.changed,
    )


def _architecture(
    job: CompressJob, info: DatasetInfo, costs: CostModel, trained: Trained
) -> ArchitectureDocument:
    mask = trained.hardened.mask
    return ArchitectureDocument(
        name=job.architecture,
        params=resolve_params(job.architecture, job.params),
        input_shape=info.input_shape,
        classes=info.classes,
        groups=tuple(
            KeptUnits(
                name=group.name,
                kind=group.kind.value,
                size=group.size,
                kept=tuple(mask[group.slice].nonzero().flatten().tolist()),
            )
            for group in costs.coupling.groups
        ),
    )


def _metrics(accuracies: Accuracies) -> tuple[Metric, ...]:
    names = ("dense_validation", "dense_test", "compact_validation", "compact_test")
    shares: list[tuple[str, Accuracy]] = [(name, getattr(accuracies, name)) for name in names]
    return tuple(
        Metric(name=f"{name}_accuracy", value=share.value, low=share.low, high=share.high)
        for name, share in shares
    )


def _warnings(dense: Cost, budget: Budget, training: Training) -> tuple[str, ...]:
    warnings = [
        f"max_{kind} is {limit:,} and the dense network has {getattr(dense, kind):,}: nothing will be removed"
        for kind, limit in budget.limits.items()
        if limit >= getattr(dense, kind)
    ]
    schedule = Schedule.of(training.epochs, training.k)
    if schedule.dense == 0 or schedule.plastic == schedule.dense or schedule.epochs == schedule.plastic:
        warnings.append(f"{training.epochs} epochs are too few for all three stages; use at least 4")
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
