"""The inspector and a worker with the method itself, on a tiny dataset."""

import asyncio
import io
import json
import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from job_samples import SPEC
from worker_lab import Lab, busy_worker, wait_until, worker_pids

from npn_core.config import Budget, Training
from npn_service.jobs.model import ArchitectureModel, Job, JobSpec, State
from npn_service.worker.inspection import inspect
from npn_service.worker.inspector import Inspector
from npn_service.worker.messages import Inspected, Inspection
from npn_service.worker.vigil import WorkerLimits

MODEL = ArchitectureModel(name="mlp", params={"hidden": "8"})
BUDGET = Budget(max_params=60)
TRAINING = Training(epochs=3, batch_size=16, seed=1)


def tiny_dataset() -> bytes:
    """Two well separated classes in six dimensions, 200 samples for training and 50 for the test."""
    generator = np.random.default_rng(0)
    arrays = {}
    for split, count in (("train", 200), ("test", 50)):
        labels = np.arange(count) % 2
        samples = generator.normal(size=(count, 6)) + 3.0 * labels[:, None]
        arrays |= {f"x_{split}": samples.astype(np.float32), f"y_{split}": labels}
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    """A lab whose workers compress."""
    made = Lab(tmp_path)
    yield made
    made.close()
    assert not worker_pids()


def test_a_worker_compresses(lab: Lab) -> None:
    """A job with the real method ends with an artifact within its budget, all of it in the store."""
    lab.dispatcher(target="npn_service.worker.compression:run")
    job = lab.create(
        "", model=MODEL, budget=BUDGET, training=TRAINING, dataset=lab.upload(tiny_dataset()), labels={}
    )
    ended = lab.wait(job)
    assert ended.state is State.SUCCEEDED, ended.error
    assert ended.result is not None
    assert ended.result.compact.params <= 60 < ended.result.dense.params
    stored = {entry.key: entry.size for entry in lab.objects.list(ended.attempt_prefix)}
    assert stored == {ended.attempt_prefix + file.path: file.size for file in ended.result.files}
    report = b"".join(lab.objects.read(ended.attempt_prefix + "report.json"))
    assert json.loads(report)["format_version"]


def test_a_worker_plans_what_was_created_unchecked(lab: Lab, tmp_path: Path) -> None:
    """The job has the plan that the inspector would have given, as soon as training begins."""
    lab.dispatcher(target="npn_service.worker.compression:run")
    path = tmp_path / "data.npz"
    path.write_bytes(tiny_dataset())
    asked = {"model": MODEL, "budget": BUDGET, "training": TRAINING, "labels": {}}
    job = lab.create("", plan=None, dataset=lab.upload(tiny_dataset()), **asked)
    ended = lab.wait(job)
    assert (job.plan, ended.state) == (None, State.SUCCEEDED), ended.error
    spec = replace(SPEC, **asked)
    assert ended.plan == inspect(Inspection(spec=spec, dataset=path), lambda field: None).plan


def test_the_inspector_plans_and_refuses(tmp_path: Path) -> None:
    """A good job gets its plan; bad bytes, a bad network and an impossible budget get their fields."""
    good, bad = tmp_path / "good.npz", tmp_path / "bad.npz"
    good.write_bytes(tiny_dataset())
    bad.write_bytes(b"no archive")
    spec = replace(SPEC, model=MODEL, budget=BUDGET, training=TRAINING)
    questions: list[tuple[JobSpec, Path]] = [
        (spec, good),
        (spec, bad),
        (replace(spec, model=ArchitectureModel(name="no-such", params={})), good),
        (replace(spec, budget=Budget(max_params=1)), good),
    ]
    inspector = Inspector(timeout=120.0)
    inspector.start()

    async def ask() -> list[Inspected | None]:
        asked = (inspector.inspect(Inspection(spec=spec, dataset=path)) for spec, path in questions)
        return await asyncio.gather(*asked)

    try:
        fine, *refused = asyncio.run(ask())
    finally:
        inspector.stop()
    assert fine is not None
    assert fine.plan is not None
    assert fine.plan.dataset.input_shape == (6,)
    assert fine.plan.plan.dense.params == 6 * 8 + 8 + 8 * 2 + 2
    fields = [answer.error.field for answer in refused if answer and answer.error]
    assert fields == ["dataset.uri", "model.architecture.name", "budget.max_params"]
    assert not worker_pids()


EQUAL = ("model.safetensors", "architecture.json", "model.pt2")


def artifact(lab: Lab, job: Job) -> dict[str, bytes]:
    """The files that an interruption must not change."""
    return {name: b"".join(lab.objects.read(job.attempt_prefix + name)) for name in EQUAL}


@pytest.mark.timeout(600)
def test_killed_workers_change_nothing(lab: Lab) -> None:
    """A job whose worker is killed again and again, and whose server stops, gives an undisturbed run's bytes."""
    often = WorkerLimits(checkpoint_seconds=0.05)
    dispatcher = lab.dispatcher(target="npn_service.worker.compression:run", limits=often)
    how = {"model": MODEL, "budget": BUDGET, "dataset": lab.upload(tiny_dataset()), "max_duration": None}
    training = Training(epochs=40, batch_size=8, seed=1)
    undisturbed = lab.wait(lab.create("", training=training, **how), seconds=150)
    assert undisturbed.state is State.SUCCEEDED, undisturbed.error
    job, step = lab.create("", training=training, **how), -1
    for _ in range(3):
        job = lab.wait(job, lambda job, step=step: job.checkpoint is not None and job.checkpoint.step > step)
        assert job.checkpoint is not None
        step = job.checkpoint.step
        os.kill(busy_worker(), signal.SIGKILL)
        job = lab.wait(job, lambda now, before=job.attempt: now.attempt > before)
    dispatcher.drain()
    lab.dispatcher(target="npn_service.worker.compression:run", limits=often)
    ended = lab.wait(job, seconds=150)
    assert ended.state is State.SUCCEEDED, ended.error
    assert ended.attempt >= 4
    assert artifact(lab, ended) == artifact(lab, undisturbed)
    report = json.loads(b"".join(lab.objects.read(ended.attempt_prefix + "report.json")))
    assert report["resumed"] >= 1  # an attempt that is killed before its first checkpoint leaves no trace
    wait_until(lambda: not any("checkpoints" in entry.key for entry in lab.objects.list(ended.prefix)))
    wait_until(lambda: not list((lab.folder / "scratch").iterdir()))
