"""One whole job, in this process, as a worker runs it; and what its report says."""

import json
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from npn_core.config import Budget, Expansion, Model, Training
from npn_core.job import CompressJob, Outcome
from npn_core.pipeline import compress


def run_job(
    model: Model,
    dataset: Path,
    training: Training,
    budget: Budget,
    *,
    expansion: Expansion | None = None,
    say: bool = False,
    device: str = "cpu",
) -> dict[str, Any]:
    """Costs, accuracies, seconds and speeds of a job, data reading and export included."""
    with tempfile.TemporaryDirectory() as folder:
        job = CompressJob(
            model=model,
            dataset=dataset,
            layout="",
            budget=budget,
            training=training,
            expansion=expansion,
            output=Path(folder),
            device=torch.device(device),
        )
        started = time.perf_counter()
        outcome, speeds = _finish(job, say)
        seconds = time.perf_counter() - started
        report = json.loads((Path(folder) / "report.json").read_text())
        architecture = json.loads((Path(folder) / "architecture.json").read_text())
    metrics = {metric["name"]: metric["value"] for metric in report["metrics"]}
    return {
        "limits": dict(budget.limits),
        "seed": training.seed,
        "seconds": seconds,
        "first_params": outcome.dense.params,
        "params": outcome.compact.params,
        "macs": outcome.compact.macs,
        "kept": [len(group["kept"]) for group in architecture["groups"]]
        or [one["kept"] for one in architecture["sparse"]],
        "dense_test": metrics.get("dense_test_accuracy"),
        "validation": metrics.get("compact_validation_accuracy"),
        "test": metrics.get("compact_test_accuracy"),
        "precision": report["training"]["precision"],
        "difference": report["largest_difference"],
        "relative_difference": report["relative_difference"],
        "hardening": report["hardening"],
        "latency": report["latency"],
        "onnx": report["onnx"],
        "timings": report["timings"],
        "samples_per_second": speeds,
    }


def _finish(job: CompressJob, say: bool) -> tuple[Outcome, dict[str, float]]:
    """How it ended, and samples/s of each stage when that did."""
    run, epoch = compress(job, lambda: False), 0
    speeds: dict[str, float] = {}
    while True:
        try:
            progress = next(run)
        except StopIteration as end:
            outcome: Outcome = end.value
            return outcome, speeds
        if progress.epoch == epoch:
            continue
        epoch, speeds[progress.stage.value] = progress.epoch, progress.samples_per_second
        if say:
            values = {metric.name: round(metric.value, 4) for metric in progress.metrics}
            costs = {cost.kind: (round(cost.expected), cost.hard) for cost in progress.costs}
            print(time.strftime("%T"), epoch, progress.stage.value, values, costs, flush=True)
