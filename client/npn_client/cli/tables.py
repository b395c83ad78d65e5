"""Tables for the terminal: results, plans, jobs, the catalogue."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from rich import box
from rich.table import Table

from npn_client.job import Job
from npn_client.model import ArchitectureInfo, JobSnapshot, Metric, Outcome, Plan, Progress, Unpruned

from . import text

_CURVE_ROWS = 20


def result(outcome: Outcome, title: str, *, grown: bool = False) -> Table:
    """Dense beside compact; of a network that has `grown` its start, which nobody measured, beside its end."""
    table = _table(title)
    table.add_column("")
    for heading in ("at first", "grown", "larger") if grown else ("dense", "compact", "smaller"):
        table.add_column(heading, justify="right")
    for kind, name in text.COST_NAMES.items():
        first, last = getattr(outcome.dense, kind), getattr(outcome.compact, kind)
        ratio = last / max(first, 1) if grown else first / max(last, 1)
        table.add_row(name, f"{first:,}", f"{last:,}", f"{ratio:.1f} times")
    for name, dense_metric, compact_metric in _pairs(outcome.metrics):
        table.add_row(
            text.metric_name(name),
            text.metric(None if grown else dense_metric, interval=True),
            text.metric(compact_metric, interval=True),
            "",
        )
    if any(metric.low is not None for metric in outcome.metrics.values()):
        table.caption = "in parentheses: 95 % intervals"
    return table


def units(artifact: Path) -> str:
    """Units, or weights, that the compact network kept, by group, as its architecture.json says."""
    document = json.loads((artifact / "architecture.json").read_text())
    kept = [(group["name"], len(group["kept"]), group["size"]) for group in document["groups"]]
    kept += [(one["name"], one["kept"], math.prod(one["shape"])) for one in document.get("sparse", ())]
    return "   ".join(f"{name} {count:,}/{size:,}" for name, count, size in kept)


def plan(answer: Plan, title: str) -> Table:
    """The feasible range."""
    table = _table(title)
    table.add_column("")
    table.add_column("dense", justify="right")
    table.add_column("smallest possible", justify="right")
    for kind, name in text.COST_NAMES.items():
        table.add_row(name, f"{getattr(answer.dense, kind):,}", f"{getattr(answer.smallest, kind):,}")
    return table


def plan_notes(answer: Plan) -> list[str]:
    """What else a plan tells, line by line."""
    notes = []
    if (data := answer.dataset) is not None:
        shape = "x".join(map(str, data.input_shape))
        inputs = f"{shape} ({data.dtype})"
        if len(data.inputs) > 1:
            inputs = ", ".join(
                f"{item.name} {'x'.join(map(str, item.shape)) or 'scalar'} ({item.dtype})"
                for item in data.inputs
            )
        target = f", {data.classes} classes" if data.classes else ""
        if data.target_shape:
            target = f", targets of {'x'.join(map(str, data.target_shape))}"
        notes.append(
            f"dataset: {data.train_samples:,} training, {data.validation_samples:,} validation and "
            f"{data.test_samples:,} test samples of {inputs}{target}"
        )
    groups = ", ".join(f"{group.name} {group.size:,} {group.kind}s" for group in answer.groups)
    notes.append(f"units that can go: {groups} ({answer.prunable:.1%} of the parameters)")
    for reason, left in _by_reason(answer.unpruned).items():
        notes.append(f"stays whole: {', '.join(left)}: {reason}")
    return [*notes, *(f"warning: {line}" for line in answer.warnings)]


def _by_reason(unpruned: Iterable[Unpruned]) -> dict[str, list[str]]:
    """Names with sizes of what stays whole, by the reason."""
    reasons: dict[str, list[str]] = {}
    for left in unpruned:
        reasons.setdefault(left.reason, []).append(f"{left.name} {left.size:,}")
    return reasons


def jobs(listed: Iterable[Job]) -> Table:
    """One job per row."""
    table = _table(None)
    for heading in ("job", "state", "model", "budget", "progress", "created"):
        table.add_column(heading, overflow="fold" if heading == "job" else "ellipsis", no_wrap=True)
    for job in listed:
        snapshot = job.snapshot
        created = f"{snapshot.create_time.astimezone():%Y-%m-%d %H:%M}" if snapshot.create_time else ""
        table.add_row(
            job.id,
            text.state(job.state),
            snapshot.model.name,
            text.budget(snapshot.budget).removeprefix("at most "),
            _short_progress(snapshot),
            created,
        )
    return table


def curve(points: Sequence[Progress]) -> Table:
    """Loss and metrics along the training: some points of a long curve, the first and the last among them."""
    table = _table(None)
    names = list(dict.fromkeys(name for point in points for name in point.metrics))
    for heading in ("step", "stage", "epoch", "loss", *map(text.metric_name, names)):
        table.add_column(heading, justify="left" if heading == "stage" else "right")
    rows = min(len(points), _CURVE_ROWS)
    for row in range(rows):
        point = points[row * (len(points) - 1) // max(rows - 1, 1)]
        table.add_row(
            f"{point.step:,}",
            text.STAGE_NAMES.get(point.stage, ""),
            f"{point.epoch}",
            f"{point.loss:.4g}",
            *(text.metric(point.metrics.get(name)) for name in names),
        )
    return table


def architectures(listed: Iterable[ArchitectureInfo]) -> Table:
    """One network per row."""
    table = _table(None)
    for heading in ("model", "description", "parameters with defaults"):
        table.add_column(heading)
    for name in text.COST_NAMES.values():
        table.add_column(f"dense {name}", justify="right")
    for info in listed:
        params = "\n".join(
            f"{param.name}={param.default_value}  {param.description}" for param in info.params
        )
        costs = (f"{getattr(info.dense, kind):,}" for kind in text.COST_NAMES)
        table.add_row(info.name, info.description, params, *costs)
    return table


def _table(title: str | None) -> Table:
    return Table(
        title=title,
        title_justify="left",
        title_style="bold",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )


def _pairs(metrics: Mapping[str, Metric]) -> list[tuple[str, Metric | None, Metric | None]]:
    """(name, dense, compact) for every metric measured on either network."""
    names = dict.fromkeys(name.removeprefix("dense_").removeprefix("compact_") for name in metrics)
    return [(name, metrics.get(f"dense_{name}"), metrics.get(f"compact_{name}")) for name in names]


def _short_progress(job: JobSnapshot) -> str:
    if job.done or job.progress is None:
        return ""
    stage = text.STAGE_NAMES.get(job.progress.stage, "")
    return f"{stage}, {text.epoch(job.progress)}" if job.progress.stage in text.TRAINING_STAGES else stage
