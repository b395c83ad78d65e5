"""Numbers and names as people read them."""

from npn_client.model import CostProgress, JobLogs, JobSnapshot, JobState, Metric, Progress, Stage, Trial
from npn_client.spec import Architecture, Budget

COST_NAMES = {"params": "parameters", "macs": "multiply-adds", "bytes": "bytes"}
STAGE_NAMES = {
    Stage.PREPARE: "prepare",
    Stage.DENSE: "dense",
    Stage.PLASTIC: "plastic",
    Stage.FINE_TUNE: "fine-tune",
    Stage.EXPORT: "export",
}
TRAINING_STAGES = (Stage.DENSE, Stage.PLASTIC, Stage.FINE_TUNE)


def state(value: JobState) -> str:
    """`succeeded`."""
    return str(value.value).lower()


def duration(seconds: float) -> str:
    """`0:07`, `12:30`, `3:02:11`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def metric(measured: Metric | None, *, interval: bool = False) -> str:
    """A value with its 95 % interval; accuracies, which are fractions, in percent."""
    if measured is None:
        return "–"  # noqa: RUF001 - a dash for "not measured"
    percent = "accuracy" in measured.name
    scale, unit = (100, " %") if percent else (1, "")
    digits = ".2f" if percent else ".4g"
    value = f"{measured.value * scale:{digits}}{unit}"
    if interval and measured.low is not None and measured.high is not None:
        value += f"  ({measured.low * scale:{digits}} to {measured.high * scale:{digits}})"
    return value


def metric_name(name: str) -> str:
    """`validation_accuracy` -> `validation accuracy`."""
    return name.replace("_", " ")


def budget(limits: Budget) -> str:
    """`at most 10,000 parameters and 200,000 multiply-adds`."""
    terms = [
        f"{limit:,} {name}"
        for kind, name in COST_NAMES.items()
        if (limit := getattr(limits, f"max_{kind}")) is not None
    ]
    text = f"at most {' and '.join(terms)}" if terms else ""
    if limits.max_accuracy_drop_points is not None:
        drop = f"at most {limits.max_accuracy_drop_points:g} points of accuracy lost"
        text = f"{text}, {drop}" if text else drop
    return text


def title(job: JobSnapshot, dataset: str) -> str:
    """What the job does, in one line."""
    model = job.model.name
    if isinstance(job.model, Architecture):
        model = " ".join([model, *(f"{key}={value}" for key, value in sorted(job.model.params.items()))])
    what = f"{model} on {dataset}"
    if job.expansion is not None:
        what = f"grow {what}"
    return " · ".join(part for part in (what, budget(job.budget)) if part)


def attempt(job: JobSnapshot, kept: JobLogs) -> str:
    """`attempt 2 of jobs/ID, failed: y_train holds 11`."""
    if not kept.attempt:
        return f"{job.name} has had no attempt yet"
    end = "still running" if kept.end_time is None else kept.cause or "succeeded"
    return f"attempt {kept.attempt} of {job.name}: {end}"


def epoch(progress: Progress) -> str:
    """`epoch 3 of 20`."""
    return f"epoch {progress.epoch} of {progress.epochs}"


def cost(now: CostProgress) -> str:
    """How one budgeted cost stands."""
    return f"{now.expected:,.0f} expected · {now.hard:,} hardened now · budget {now.budget:,}"


def trial(tried: Trial) -> str:
    """`50,010 parameters: 95.20 % (94.10 to 96.10), passed`."""
    low, high = 100 * tried.low, 100 * tried.high
    size = f"{tried.cost:,} {COST_NAMES.get(tried.kind, tried.kind)}"
    verdict = "passed" if tried.passed else "lost too much"
    return f"{size}: {100 * tried.accuracy:.2f} % ({low:.2f} to {high:.2f}), {verdict}"


def measures(progress: Progress) -> str:
    """The first metric, loss, k and speed of a stage that trains."""
    parts = [f"{metric(value)} {metric_name(name)}" for name, value in progress.metrics.items()][:1]
    parts.append(f"loss {progress.loss:.4g}")
    if progress.stage is Stage.PLASTIC:
        parts.append(f"k {progress.k:.3g}")
    parts.append(f"{progress.samples_per_second:,.0f} samples/s")
    return " · ".join(parts)
