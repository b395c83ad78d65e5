"""Jobs on networks with several inputs or outputs, and those that do not fit their data."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from compress_runs import architecture_of, loaded_outputs, metrics_of, report_of, run
from own_jobs import TEST, TRAINING, Normed, PicturesAndValues, TwoHeads, job_of, pictures, seeded, values
from torch import Tensor, nn

from npn_core.config import Budget, Preprocessing
from npn_core.data import inspect_dataset
from npn_core.errors import InvalidInput
from npn_core.pipeline import plan


@pytest.fixture(autouse=True)
def without_onnx(monkeypatch: pytest.MonkeyPatch) -> None:
    """No model.onnx, which takes longer than a job of these."""
    monkeypatch.setattr("npn_core.onnx_export._PACKAGES", ("an_absent_package",))


@pytest.mark.parametrize("output", ["logits", "1"])
def test_the_loss_looks_at_one_output(tmp_path: Path, output: str) -> None:
    """By its name or its place; the compact network still gives both."""
    job = job_of(tmp_path, seeded(TwoHeads), [(1, 6, 6)], pictures)
    training = replace(TRAINING, preprocessing=Preprocessing(mode="none"), output=output)
    job = replace(job, training=training, budget=Budget(max_params=400))
    outcome, _ = run(job)
    assert outcome.compact.params <= 400
    assert architecture_of(job).outputs == ("side", "logits")
    assert metrics_of(job)["compact_test_accuracy"] > 0.9
    found = loaded_outputs(job, torch.from_numpy(pictures(TEST, 1)["x"][:, None]).float())
    assert isinstance(found, dict)
    assert {name: tuple(value.shape) for name, value in found.items()} == {
        "side": (TEST, 4),
        "logits": (TEST, 3),
    }


def test_an_unknown_output_is_refused(tmp_path: Path) -> None:
    """With the names of those that there are."""
    job = job_of(tmp_path, seeded(TwoHeads), [(1, 6, 6)], pictures)
    training = replace(TRAINING, preprocessing=Preprocessing(mode="none"), output="boxes")
    with pytest.raises(InvalidInput, match="side, logits") as refused:
        plan(job.model, inspect_dataset(job.dataset), job.budget, training)
    assert refused.value.field == "training.output"


def test_an_output_of_another_shape_is_refused(tmp_path: Path) -> None:
    """Three values for a sample, where the targets are two."""
    job = job_of(tmp_path, nn.Sequential(nn.Linear(6, 4), nn.Tanh(), nn.Linear(4, 3)), [(6,)], values)
    with pytest.raises(InvalidInput, match=r"\(3,\) for a sample, the targets \(2,\)") as refused:
        plan(job.model, inspect_dataset(job.dataset), job.budget, replace(TRAINING, loss="mse"))
    assert (refused.value.field, refused.value.reason) == ("dataset.uri", "DATASET_SHAPES")


def test_several_inputs(tmp_path: Path) -> None:
    """In the network's order, whatever the file's; the artifact takes both."""
    job = job_of(tmp_path, seeded(PicturesAndValues), [(1, 6, 6), (5,)], pictures, extra=True)
    training = replace(TRAINING, preprocessing=Preprocessing(mode="none"))
    job = replace(job, training=training, budget=Budget(max_params=400))
    outcome, _ = run(job)
    assert outcome.compact.params <= 400
    architecture = architecture_of(job)
    assert [(one.name, one.shape) for one in architecture.inputs] == [("image", (1, 6, 6)), ("extra", (5,))]
    assert [group.name for group in architecture.groups] == ["values.in", "conv1", "values"]
    assert [one.name for one in report_of(job).dataset.inputs] == ["image", "extra"]
    data = pictures(TEST, 1, extra=True)
    found = loaded_outputs(job, torch.from_numpy(data["x.image"]).float(), torch.from_numpy(data["x.extra"]))
    assert isinstance(found, Tensor)
    accuracy = (found.argmax(1).numpy() == data["y"]).mean()
    assert accuracy == pytest.approx(metrics_of(job)["compact_test_accuracy"])


def test_inputs_of_other_names_are_refused(tmp_path: Path) -> None:
    """With the names that the network has."""

    def renamed(samples: int, seed: int) -> dict[str, np.ndarray]:
        data = pictures(samples, seed, extra=True)
        return {name.replace("extra", "more"): array for name, array in data.items()}

    job = job_of(tmp_path, seeded(PicturesAndValues), [(1, 6, 6), (5,)], renamed)
    with pytest.raises(InvalidInput, match="image, extra") as refused:
        plan(job.model, inspect_dataset(job.dataset), job.budget, replace(TRAINING, from_scratch=True))
    assert refused.value.field == "dataset.uri"


def test_a_network_without_units_is_refused(tmp_path: Path) -> None:
    """Where nothing can leave there is nothing to do, and the reasons are told."""
    job = job_of(tmp_path, seeded(Normed), [(1, 6, 6)], pictures)
    with pytest.raises(InvalidInput, match="normalises over it") as refused:
        plan(job.model, inspect_dataset(job.dataset), job.budget, replace(TRAINING, from_scratch=True))
    assert refused.value.reason == "MODEL_NOT_PRUNABLE"
