"""The inspector and a worker with the method itself, on a tiny dataset."""

import asyncio
import io
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from job_samples import SPEC
from worker_lab import Lab, worker_pids

from npn_core.config import Budget, Training
from npn_service.jobs.model import ArchitectureModel, JobSpec, State
from npn_service.worker.inspector import Inspector
from npn_service.worker.messages import Inspected, Inspection

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
    inspector = Inspector()
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
