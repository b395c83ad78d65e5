"""Jobs on networks and targets of a user's own: every loss, from scratch, units in multiples."""

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from compress_runs import architecture_of, loaded_outputs, metrics_of, report_of, run, write_model
from own_jobs import TEST, TRAINING, Pictures, Regressor, accuracy_of, job_of, pictures, seeded, values
from torch import Tensor

from npn_core.config import Budget, ModelFile, Preprocessing
from npn_core.data import inspect_dataset
from npn_core.errors import InvalidInput
from npn_core.job import CompressJob
from npn_core.pipeline import plan


@pytest.fixture(autouse=True)
def without_onnx(monkeypatch: pytest.MonkeyPatch) -> None:
    """No model.onnx, which takes longer than a job of these."""
    monkeypatch.setattr("npn_core.onnx_export._PACKAGES", ("an_absent_package",))


@pytest.fixture
def regression(tmp_path: Path) -> CompressJob:
    """A network of values, initialised by its user."""
    job = job_of(tmp_path, seeded(Regressor), [(6,)], values)
    return replace(job, training=replace(TRAINING, loss="mse"))


@pytest.fixture
def classification(tmp_path: Path) -> CompressJob:
    """A network of images from 0 to 255."""
    job = job_of(tmp_path, seeded(Pictures), [(1, 6, 6)], pictures)
    return replace(
        job,
        training=replace(TRAINING, preprocessing=Preprocessing(mode="none")),
        budget=Budget(max_params=350, max_macs=9_000),
    )


def weights_hash(job: CompressJob) -> str:
    """Of the compact weights."""
    return hashlib.sha256((job.output / "model.safetensors").read_bytes()).hexdigest()


@pytest.mark.parametrize(("asked", "share"), [(None, 1.0), (0.0, 0.0)])
def test_values_are_learned(regression: CompressJob, asked: float | None, share: float) -> None:
    """Squared errors alone are reported; where the targets teach, they come near what the data allows."""
    training = replace(regression.training, epochs=20, distillation=asked)
    job = replace(regression, training=training)
    outcome, said = run(job)
    assert outcome.compact.params <= 200
    report, metrics = report_of(job), metrics_of(job)
    assert report.dataset.target == "values"
    assert report.relative_difference <= 1e-5
    assert report.distillation == share  # it came trained
    assert set(metrics) == {"received_validation_loss"} | {
        f"{network}_{split}_loss" for network in ("dense", "compact") for split in ("validation", "test")
    }
    assert metrics["dense_test_loss"] < metrics["received_validation_loss"]
    assert metrics["compact_test_loss"] < (0.2 if share == 0 else metrics["received_validation_loss"])
    assert all(metric.name == "validation_loss" for progress in said for metric in progress.metrics)
    x, y = values(TEST, 1).values()
    found = loaded_outputs(job, torch.from_numpy(x))
    assert isinstance(found, Tensor)
    error = (found - torch.from_numpy(y)).square().mean()
    assert error.item() == pytest.approx(metrics["compact_test_loss"], rel=1e-4)


def test_from_scratch_forgets_what_came(regression: CompressJob, tmp_path: Path) -> None:
    """Two files with other weights give the same network; nothing is received, and nobody teaches by default."""
    training = replace(regression.training, from_scratch=True)
    first = replace(regression, training=training)
    model = ModelFile(path=write_model(tmp_path / "other.pt2", seeded(Regressor, 7), (6,)))
    second = replace(first, model=model, output=tmp_path / "second")
    run(first)
    run(second)
    assert weights_hash(first) == weights_hash(second)
    report = report_of(first)
    assert report.distillation == 0.0
    assert not any(metric.name.startswith("received") for metric in report.metrics)
    assert report.training.from_scratch


def test_distillation_needs_no_targets(tmp_path: Path) -> None:
    """The network is its own teacher: the dense one has no loss, the compact one a part of the outputs' variance."""
    job = job_of(tmp_path, seeded(Regressor), [(6,)], values, targets=False)
    job = replace(job, training=replace(TRAINING, loss="distill", epochs=20))
    before = seeded(Regressor)
    outcome, _ = run(job)
    assert outcome.compact.params <= 200
    report, metrics = report_of(job), metrics_of(job)
    assert report.dataset.target == "none"
    assert report.distillation == 1.0
    assert metrics["received_validation_loss"] == metrics["dense_test_loss"] == 0
    assert 0 < metrics["compact_test_loss"] < 0.3
    x = torch.from_numpy(values(TEST, 1)["x"])
    expected = before(x).detach()
    found = loaded_outputs(job, x)
    assert isinstance(found, Tensor)
    relative = (found - expected).square().mean() / expected.var()
    assert relative.item() == pytest.approx(metrics["compact_test_loss"], rel=1e-3)


def test_an_uploaded_classifier(classification: CompressJob) -> None:
    """Both limits hold, the documents say what came in, and the file takes the user's 0 to 255."""
    outcome, _ = run(classification)
    report, architecture = report_of(classification), architecture_of(classification)
    assert outcome.compact.params <= 350
    assert outcome.compact.macs <= 9_000
    assert report.dense.params == 80 + 16 + 584 + 27
    assert (architecture.name, dict(architecture.params)) == ("uploaded", {})
    assert [(one.name, one.shape) for one in architecture.inputs] == [("image", (1, 6, 6))]
    assert architecture.outputs == ("output",)
    (group,) = architecture.groups
    assert (group.name, group.kind, group.size) == ("conv1", "channel", 8)
    assert 0 < len(group.kept) < 8
    assert [one.name for one in report.unpruned] == ["fc"]
    accuracy = accuracy_of(classification)
    assert accuracy == pytest.approx(metrics_of(classification)["compact_test_accuracy"])
    assert accuracy > 0.9


def test_a_trained_network_needs_its_preprocessing(classification: CompressJob) -> None:
    """Integers could mean anything to it; from scratch it may learn on what the service makes of them."""
    info = inspect_dataset(classification.dataset)
    with pytest.raises(InvalidInput) as refused:
        plan(classification.model, info, classification.budget, TRAINING)
    assert refused.value.field == "training.preprocessing.mode"
    plan(classification.model, info, classification.budget, replace(TRAINING, from_scratch=True))


def test_units_stay_in_multiples(regression: CompressJob) -> None:
    """Neurons in fours, features one by one; the plan's smallest network is of that kind."""
    training = replace(regression.training, round_to=4)
    job = replace(regression, training=training)
    found = plan(job.model, inspect_dataset(job.dataset), job.budget, training)
    assert found.smallest.params == 4 * (1 + 1) + 4 * (4 + 1) + 2 * (4 + 1)
    outcome, _ = run(job)
    assert outcome.compact.params <= 200
    kept = {group.name: len(group.kept) for group in architecture_of(job).groups}
    assert kept["fc1"] % 4 == kept["fc2"] % 4 == 0
    assert min(kept.values()) > 0
    assert 200 - outcome.compact.params < 4 * (kept["fc1.in"] + 1 + kept["fc2"])
