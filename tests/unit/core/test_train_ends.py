"""Jobs on networks with several inputs or outputs, and those that do not fit their data."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from compress_runs import architecture_of, loaded_outputs, metrics_of, report_of, run
from own_jobs import (
    TEST,
    TRAINING,
    Normed,
    Pictures,
    PicturesAndValues,
    Regressor,
    Scaled,
    TwoHeads,
    job_of,
    pictures,
    seeded,
    values,
)
from safetensors.torch import load_file
from torch import Tensor, nn

from npn_core.config import Budget, Expansion, Preprocessing
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


def test_what_a_network_does_not_store_is_not_stored(tmp_path: Path) -> None:
    """A buffer that is not persistent and a constant shrink with their units, and count for nothing."""
    job = job_of(tmp_path, seeded(Scaled), [(6,)], values)
    job = replace(job, training=replace(TRAINING, loss="mse"), budget=Budget(max_bytes=1_000))
    outcome, _ = run(job)
    stored = load_file(job.output / "model.safetensors")
    assert stored.keys() == seeded(Scaled).state_dict().keys()
    assert outcome.compact.bytes == sum(tensor.nbytes for tensor in stored.values()) <= 1_000
    assert report_of(job).relative_difference <= 1e-5


@pytest.mark.filterwarnings("ignore:No complete tensor found")  # torch.export.save of such weights
def test_the_order_of_weights_in_memory_changes_nothing(tmp_path: Path) -> None:
    """A network that was exported with channels innermost trains as the same one without."""
    written = []
    for name, form in (("first", torch.contiguous_format), ("last", torch.channels_last)):
        (tmp_path / name).mkdir()
        module = seeded(Pictures).to(memory_format=form)  # type: ignore[call-overload]
        job = job_of(tmp_path / name, module, [(1, 6, 6)], pictures)
        run(replace(job, training=replace(TRAINING, preprocessing=Preprocessing(mode="none"))))
        written.append((job.output / "model.safetensors").read_bytes())
    assert written[0] == written[1]


def normed_regressor() -> nn.Module:
    """A regressor whose BatchNorm has seen other data than the dataset's."""
    module = nn.Sequential(nn.Linear(6, 24), nn.BatchNorm1d(24), nn.Tanh(), nn.Linear(24, 2))
    module.train()
    for seed in range(30):
        module(2 + torch.randn(64, 6, generator=torch.Generator().manual_seed(seed)))
    return module


@pytest.mark.parametrize("labelled", [False, True])
def test_a_network_is_measured_against_what_it_said_when_it_came(labelled: bool, tmp_path: Path) -> None:
    """Its own teacher as it was sent, statistics included; targets that the dataset has are of no use."""
    module = seeded(normed_regressor)

    def data(samples: int, seed: int) -> dict[str, np.ndarray]:
        found = values(samples, seed, targets=False)
        return found | ({"y": np.arange(samples) % 3} if labelled else {})

    job = job_of(tmp_path, module, [(6,)], data)
    job = replace(job, training=replace(TRAINING, loss="distill"), budget=Budget(max_params=120))
    run(job)
    x = torch.from_numpy(values(TEST, 1)["x"])
    found = loaded_outputs(job, x)
    assert isinstance(found, Tensor)
    with torch.no_grad():
        said = module.eval()(x)
    error = float((found - said).square().mean() / said.var())
    assert metrics_of(job)["compact_test_loss"] == pytest.approx(error, rel=1e-4)


def test_one_sample_has_no_variance(tmp_path: Path) -> None:
    """Batches of one sample of one value: the loss is a number all the same."""
    job = job_of(
        tmp_path, seeded(lambda: nn.Sequential(nn.Linear(6, 24), nn.Tanh(), nn.Linear(24, 1))), [(6,)], values
    )
    training = replace(TRAINING, loss="distill", batch_size=1, epochs=3)
    run(replace(job, training=training, budget=Budget(max_params=120)))
    assert np.isfinite(metrics_of(job)["compact_test_loss"])


def test_a_network_that_grows_needs_targets(tmp_path: Path) -> None:
    """What it says already is nothing to grow for."""
    job = job_of(tmp_path, seeded(Regressor), [(6,)], values, targets=False)
    with pytest.raises(InvalidInput, match="loss distill has no other target") as refused:
        plan(
            job.model,
            inspect_dataset(job.dataset),
            job.budget,
            replace(TRAINING, loss="distill"),
            Expansion(),
        )
    assert refused.value.field == "training.loss"
