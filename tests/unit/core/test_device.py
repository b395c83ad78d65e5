"""A job on another device than the CPU: the same random numbers, and every tensor where it belongs."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from compress_runs import report_of, run, write_model
from own_jobs import Pictures, PicturesAndValues, Regressor, Scaled, job_of, pictures, seeded, values
from pretend_device import pretend_device
from test_pipeline import write_digits
from torch import nn

from npn_core.config import Budget, CatalogueModel, Expansion, ModelFile, Training
from npn_core.data import Room
from npn_core.job import CompressJob

Job = Callable[[Path], CompressJob]


@pytest.fixture(autouse=True)
def without_onnx(monkeypatch: pytest.MonkeyPatch) -> None:
    """No model.onnx."""
    monkeypatch.setattr("npn_core.onnx_export._PACKAGES", ("an_absent_package",))


def convolutional() -> nn.Sequential:
    """Convolutions, BatchNorm, features that can leave one by one, and dropout of both kinds."""
    return nn.Sequential(
        nn.Conv2d(1, 6, 3),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.Dropout2d(0.1),
        nn.Flatten(),
        nn.Linear(216, 12),
        nn.ReLU(),
        nn.Dropout(0.1),
        nn.Linear(12, 10),
    )


def digits_job(tmp_path: Path, model: CatalogueModel | ModelFile, **options: object) -> CompressJob:
    """A job on the digits."""
    training = Training(epochs=6, batch_size=64, seed=1, from_scratch=True, **options)  # type: ignore[arg-type]
    return CompressJob(
        model=model,
        dataset=write_digits(tmp_path / "digits.npz"),
        layout="",
        budget=Budget(max_params=900),
        training=training,
        output=tmp_path / "out",
    )


def crops(tmp_path: Path) -> CompressJob:
    """Images cropped and flipped; a teacher that is asked at every step; SGD."""
    job = job_of(tmp_path, Pictures(), [(1, 6, 6)], pictures)
    return replace(
        job, training=replace(job.training, augment="crop-flip", from_scratch=True, optimizer="sgd", lr=0.1)
    )


def dropout(tmp_path: Path) -> CompressJob:
    """Dropout, features, a mask by magnitude."""
    path = write_model(tmp_path / "model.pt2", seeded(convolutional), (1, 8, 8))
    return digits_job(tmp_path, ModelFile(path=path), mask="magnitude")


def features(tmp_path: Path) -> CompressJob:
    """Features, and samples that are mapped from a file."""
    path = write_model(tmp_path / "model.pt2", seeded(convolutional), (1, 8, 8))
    return replace(digits_job(tmp_path, ModelFile(path=path)), room=Room(memory=0))


def grows(tmp_path: Path) -> CompressJob:
    """A network that is widened."""
    job = digits_job(tmp_path, CatalogueModel(name="mlp", params={"hidden": "3,3"}))
    return replace(job, expansion=Expansion())


def two_inputs(tmp_path: Path) -> CompressJob:
    """Two inputs."""
    job = job_of(tmp_path, PicturesAndValues(), [(1, 6, 6), (5,)], pictures, extra=True)
    return replace(job, training=replace(job.training, from_scratch=True))


def own_teacher(tmp_path: Path) -> CompressJob:
    """No targets: the network is its own teacher."""
    job = job_of(tmp_path, seeded(Regressor), [(6,)], values, targets=False)
    return replace(job, training=replace(job.training, loss="distill"))


def makes_tensors(tmp_path: Path) -> CompressJob:
    """A network that makes a tensor itself."""
    job = job_of(tmp_path, seeded(Scaled), [(6,)], values)
    return replace(job, training=replace(job.training, loss="mse"))


@pytest.mark.parametrize("job", [crops, dropout, features, grows, two_inputs, own_teacher, makes_tensors])
def test_a_job_elsewhere_ends_with_the_same_network(job: Job, tmp_path: Path) -> None:
    """Bit by bit, where the device computes as the CPU does."""
    here = job(tmp_path)
    run(here)
    with pretend_device() as device:
        there = replace(here, output=tmp_path / "there", device=device)
        run(there)
    assert weights_of(there) == weights_of(here)
    assert report_of(there).metrics == report_of(here).metrics
    assert (report_of(here).versions.device, report_of(there).versions.device) == ("cpu", "pretend")


def weights_of(job: CompressJob) -> bytes:
    """The compact network's."""
    return (job.output / "model.safetensors").read_bytes()
