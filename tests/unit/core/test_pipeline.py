"""pipeline.py and train.py: the whole method on a small real dataset."""

import hashlib
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from compress_runs import architecture_of, metrics_of, report_of, run
from safetensors.torch import load_file
from sklearn.datasets import load_digits

from npn_core.config import ESTIMATORS, Budget, CatalogueModel, KSchedule, Training
from npn_core.data import inspect_dataset
from npn_core.errors import InfeasibleBudget, InvalidInput, Stopped, TrainingDiverged
from npn_core.job import CompressJob
from npn_core.pace import STILL_WARNING
from npn_core.pipeline import plan
from npn_core.progress import InputInfo, Progress, Stage
from npn_core.step import Masked

MLP = CatalogueModel(name="mlp", params={"hidden": "100,50"})
TRAINING = Training(epochs=12, batch_size=32, seed=3)
BUDGET = Budget(max_params=3_000)


def write_digits(path: Path, *, noise: bool = False, scale: float = 1.0) -> Path:
    """The digits as a dataset file; with `noise` the test split is random."""
    digits = load_digits()
    order = np.random.default_rng(0).permutation(len(digits.target))
    x, y = (digits.images * 15.9).astype(np.uint8)[order], digits.target[order]
    x_test, y_test = x[1437:], y[1437:]
    if noise:
        rng = np.random.default_rng(1)
        x_test, y_test = rng.integers(0, 256, x_test.shape, dtype=np.uint8), rng.permutation(y_test)
    x_train = x[:1437] if scale == 1.0 else x[:1437].astype(np.float32) * scale
    x_test = x_test if scale == 1.0 else x_test.astype(np.float32) * scale
    np.savez(path, x_train=x_train, y_train=y[:1437], x_test=x_test, y_test=y_test)
    return path


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The digits, 1,437 training and 360 test images of 8 x 8."""
    return write_digits(tmp_path_factory.mktemp("digits") / "digits.npz")


@pytest.fixture(autouse=True)
def without_onnx(monkeypatch: pytest.MonkeyPatch) -> None:
    """No model.onnx, which takes longer than a job of these; test_artifact.py and test_onnx_export.py write it."""
    monkeypatch.setattr("npn_core.onnx_export._PACKAGES", ("an_absent_package",))


@pytest.fixture
def job(digits: Path, tmp_path: Path) -> CompressJob:
    """A job that ends in a second or two."""
    return CompressJob(
        model=MLP,
        dataset=digits,
        layout="",
        budget=BUDGET,
        training=TRAINING,
        output=tmp_path,
    )


def weights_hash(job: CompressJob) -> str:
    """Of the compact weights."""
    return hashlib.sha256((job.output / "model.safetensors").read_bytes()).hexdigest()


def test_a_job_meets_its_budget_and_proves_it(job: CompressJob) -> None:
    """Recounted parameters are at most the budget, and the compact network equals the gated one."""
    outcome, _ = run(job)
    report = report_of(job)
    stored = sum(tensor.numel() for tensor in load_file(job.output / "model.safetensors").values())
    assert stored == outcome.compact.params == report.compact.params <= 3_000
    assert report.largest_difference <= 1e-5
    assert report.dense.params == 64 * 100 + 100 + 100 * 50 + 50 + 50 * 10 + 10
    assert report.relative_difference <= 1e-5
    assert report.onnx is None
    assert any("no model.onnx" in warning for warning in report.warnings)
    assert [entry.batch for entry in report.latency.entries] == [1, 64]
    metrics = {metric.name: metric for metric in report.metrics}
    assert set(metrics) == {
        f"{network}_{split}_{measure}"
        for network in ("dense", "compact")
        for split in ("validation", "test")
        for measure in ("accuracy", "loss")
    }
    accuracy = metrics["compact_test_accuracy"]
    assert accuracy.low is not None
    assert accuracy.high is not None
    assert accuracy.value > 0.8
    assert accuracy.low < accuracy.value < accuracy.high
    assert report.metrics == outcome.metrics


def test_the_new_widths_are_told(job: CompressJob) -> None:
    """The layers' sizes in architecture.json build a network of one's own that loads the weights."""
    run(job)
    architecture = architecture_of(job)
    weights = load_file(job.output / "model.safetensors")
    for layer in architecture.layers:
        assert tuple(weights[f"{layer.name}.weight"].shape) == layer.compact
        torch.nn.Linear(**layer.arguments).load_state_dict(
            {key: weights[f"{layer.name}.{key}"] for key in ("weight", "bias")}
        )
    assert architecture.inputs[0].name == "x"
    assert architecture.outputs == ("output",)


def test_the_budget_is_used(job: CompressJob) -> None:
    """No single neuron would still fit: less than one neuron's weights are left over."""
    outcome, _ = run(job)
    architecture = architecture_of(job)
    features, first, second = (len(group.kept) for group in architecture.groups)
    assert 3_000 - outcome.compact.params < min(features + 1 + second, first + 1 + 10, first)


def test_hard_cost_before_repair_is_near_the_budget(job: CompressJob) -> None:
    """What the gates alone came to lies within 5 % of the budget or one unit of it."""
    run(replace(job, training=replace(TRAINING, epochs=40)))
    report = report_of(job)
    before = report.hardening.hard_cost_before_repair["params"]
    assert abs(before - 3_000) <= 0.05 * 3_000 or report.hardening.units_changed <= 1


def test_the_test_split_steers_nothing(job: CompressJob, tmp_path: Path) -> None:
    """With the test split replaced by noise the compact weights are the same to the bit."""
    run(job)
    noisy = write_digits(tmp_path / "noisy.npz", noise=True)
    other = replace(job, dataset=noisy, output=tmp_path / "other")
    run(other)
    assert weights_hash(job) == weights_hash(other)


def test_the_seed_decides_everything(job: CompressJob, tmp_path: Path) -> None:
    """The same seed gives the same losses and weights, another seed gives others."""
    again = replace(job, output=tmp_path / "again")
    another = replace(job, training=replace(TRAINING, seed=4), output=tmp_path / "another")
    (_, first), (_, second) = run(job), run(again)
    run(another)

    def history(said: list[Progress]) -> dict[tuple[int, float], float]:
        return {(p.step, p.epoch): p.loss for p in said if p.step and p.step % 41 == 0}

    assert history(first) == history(second)
    assert weights_hash(job) == weights_hash(again) != weights_hash(another)


def test_progress_tells_the_story(job: CompressJob) -> None:
    """Stages come in order, steps only grow, every epoch reports, and the gates are seen to close."""
    _, said = run(job)
    stages = list(dict.fromkeys(p.stage for p in said))
    assert stages == [Stage.PREPARE, Stage.DENSE, Stage.PLASTIC, Stage.FINE_TUNE, Stage.EXPORT]
    loop = [p for p in said if p.steps]
    assert [p.step for p in loop] == sorted(p.step for p in loop)
    assert [p.epoch for p in loop if p.stage is Stage.PREPARE] == [0]
    assert {p.epoch for p in loop if p.stage is not Stage.PREPARE} == set(range(1, 13))
    assert all(p.costs[0].budget == 3_000 and p.costs[0].kind == "params" for p in loop)
    assert loop[0].costs[0].hard == 12_060
    assert loop[-1].costs[0].hard <= 3_000
    assert loop[-1].time_left == pytest.approx(0, abs=1e-6)
    assert all(math.isinf(p.k) == (p.stage is not Stage.PLASTIC) for p in loop)
    assert all(0 <= group.active <= group.size for p in loop for group in p.groups)


def test_a_stage_2_without_time_is_told_of(job: CompressJob) -> None:
    """Three steps, at none of which a gate moves: the mask is repair's, and the job says so."""
    training = replace(TRAINING, epochs=10, batch_size=2_000)
    _, said = run(replace(job, training=training, budget=Budget(max_params=1_000)))
    told = " ".join(progress.warning for progress in said)
    assert "stage 2 ended with gates that cost" in told
    assert told.count(STILL_WARNING) == 1
    assert all(
        part in " ".join(report_of(job).warnings) for part in ("above max_params 1,000", STILL_WARNING)
    )


@pytest.mark.parametrize("epochs", [1, 2])
@pytest.mark.parametrize("units", ["coupled", "weights"])
def test_without_a_stage_1_units_are_valued_all_the_same(job: CompressJob, epochs: int, units: str) -> None:
    """By the gradients of a few batches: no layer is emptied because its units come last."""
    job = replace(
        job, training=replace(TRAINING, epochs=epochs, units=units), budget=Budget(max_params=4_000)
    )
    run(job)
    architecture = architecture_of(job)
    kept = [len(group.kept) / group.size for group in architecture.groups]
    kept += [one.kept / math.prod(one.shape) for one in architecture.sparse]
    assert all(share > 0.02 for share in kept)
    assert metrics_of(job)["compact_validation_accuracy"] > 0.2


@pytest.mark.parametrize("k", [0.0, math.inf])
def test_gates_that_have_no_gradient_stay(job: CompressJob, k: float) -> None:
    """At k = 0 and at inf phi has no influence or no gradient, with estimators of evaluations, too."""
    training = replace(TRAINING, epochs=4, estimator="disarm", k=KSchedule(start=k, end=k))
    outcome, _ = run(replace(job, training=training))
    assert outcome.compact.params <= 3_000


def test_a_limit_may_be_as_large_as_a_number_can_be(job: CompressJob) -> None:
    """Beside one that counts: nothing overflows, and nothing says that all will stay."""
    budget = Budget(max_params=3_000, max_bytes=2**63 - 1)
    outcome, _ = run(replace(job, budget=budget, training=replace(TRAINING, epochs=4)))
    assert outcome.compact.params <= 3_000
    assert not any("nothing will be removed" in one for one in report_of(job).warnings)


@pytest.mark.parametrize(("gate_lr", "is_told"), [(0.02, False), (1e-6, True)])
def test_gates_that_do_not_move_are_told_of(job: CompressJob, gate_lr: float, is_told: bool) -> None:
    """While stage 2 runs, and that it will miss the budget; the estimates' variance is a share, most of it."""
    outcome, said = run(replace(job, training=replace(TRAINING, gate_lr=gate_lr, weight_decay=0.0)))
    plastic = [progress for progress in said if progress.stage is Stage.PLASTIC]
    told = " ".join(progress.warning for progress in plastic)
    assert told.count(STILL_WARNING) == is_told
    assert told.count("not to max_params 3,000") == is_told
    assert " ".join(report_of(job).warnings).startswith(told.strip())
    assert outcome.compact.params <= 3_000
    assert all(0.5 < group.variance <= 1 for group in plastic[-1].groups)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_every_estimator_can_run_a_job(job: CompressJob, estimator: str) -> None:
    """A budget is met whatever the estimator."""
    outcome, _ = run(replace(job, training=replace(TRAINING, estimator=estimator)))
    assert outcome.compact.params <= 3_000


@pytest.mark.parametrize("mask", ["random", "magnitude", "saliency"])
def test_baseline_masks_meet_the_same_budget(job: CompressJob, mask: str) -> None:
    """The comparison is fair: the same budget, exactly met."""
    outcome, _ = run(replace(job, training=replace(TRAINING, mask=mask)))
    assert 2_700 < outcome.compact.params <= 3_000


def test_several_limits_hold_together(job: CompressJob) -> None:
    """Parameters, multiply-adds and bytes are all at most what was asked."""
    budget = Budget(max_params=4_000, max_macs=3_500, max_bytes=15_000)
    outcome, _ = run(replace(job, budget=budget))
    assert outcome.compact.params <= 4_000
    assert outcome.compact.macs <= 3_500
    assert outcome.compact.bytes <= 15_000


def test_batchnorm_and_dropout_keep_the_proof(job: CompressJob) -> None:
    """With BatchNorm and dropout the compact network still equals the gated one."""
    run(replace(job, model=replace(MLP, params={"hidden": "60,30", "batch_norm": "true", "dropout": "0.2"})))
    report = report_of(job)
    assert report.compact.params <= 3_000
    assert report.largest_difference <= 1e-5


def test_a_budget_above_the_dense_network_removes_nothing_and_says_so(job: CompressJob) -> None:
    """Everything stays, with a warning."""
    outcome, _ = run(replace(job, budget=Budget(max_params=1_000_000)))
    report = report_of(job)
    assert outcome.compact == outcome.dense
    assert "nothing will be removed" in report.warnings[0]


@pytest.mark.parametrize("epochs", [1, 2, 3])
def test_very_short_jobs_still_meet_the_budget(job: CompressJob, epochs: int) -> None:
    """Too few epochs for three stages are a warning, not a failure."""
    outcome, _ = run(replace(job, training=replace(TRAINING, epochs=epochs)))
    assert outcome.compact.params <= 3_000


def test_without_stage_1_nothing_is_distilled(job: CompressJob) -> None:
    """An untrained network teaches nothing: stage 3 learns from the labels."""
    outcome, _ = run(
        replace(job, training=replace(TRAINING, k=KSchedule(dense_fraction=0.0, plastic_fraction=0.5)))
    )
    assert outcome.compact.params <= 3_000
    accuracy = next(m.value for m in outcome.metrics if m.name == "compact_validation_accuracy")
    assert accuracy > 0.6


def test_divergence_names_the_step(job: CompressJob) -> None:
    """A loss that is not finite ends the job with the step and advice."""
    with pytest.raises(TrainingDiverged, match=r"at step \d+; use a smaller lr"):
        run(replace(job, training=replace(TRAINING, lr=1e30)))


def test_stopping_is_prompt(job: CompressJob) -> None:
    """When should_stop says so the loop ends before its next step."""
    calls = iter(range(1_000_000))
    with pytest.raises(Stopped):
        run(job, lambda: next(calls) >= 10)
    assert next(calls) == 11


def test_the_plan_tells_the_range_before_training(digits: Path) -> None:
    """Dense cost, smallest cost and the groups, in no time and without weights."""
    found = plan(MLP, inspect_dataset(digits), BUDGET, TRAINING)
    assert (found.dense.params, found.smallest.params) == (12_060, 1 + 1 + 1 + 1 + 10 + 10)
    assert [(group.name, group.size) for group in found.groups] == [("fc1.in", 64), ("fc1", 100), ("fc2", 50)]


def test_an_impossible_budget_is_refused_with_the_range(digits: Path) -> None:
    """The error says what could be met."""
    with pytest.raises(InfeasibleBudget, match="between 24 and 12,060"):
        plan(MLP, inspect_dataset(digits), Budget(max_params=10), TRAINING)


def test_an_augmentation_that_does_not_fit_the_data_is_refused_by_the_plan(digits: Path) -> None:
    """Before the job is queued, not when it trains."""
    vectors = replace(inspect_dataset(digits), inputs=(InputInfo(name="x", shape=(64,), dtype="float32"),))
    plan(MLP, vectors, BUDGET, TRAINING)
    with pytest.raises(InvalidInput, match="augment flip is for datasets with one input of images") as caught:
        plan(MLP, vectors, BUDGET, replace(TRAINING, augment="flip"))
    assert caught.value.field == "training.augment"


def test_a_sliced_job_equals_a_masked_one(
    job: CompressJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Computing the active slices alone trains the same network as computing everything under masks."""
    short = replace(
        job,
        training=replace(TRAINING, epochs=4),
        model=replace(MLP, params={"hidden": "40,20"}),
        budget=Budget(max_params=1500),
    )
    masked = replace(short, output=tmp_path / "masked")
    run(short)
    monkeypatch.setattr("npn_core.train.Sliced", Masked)
    run(masked)
    one, other = (load_file(j.output / "model.safetensors") for j in (short, masked))
    assert {n: t.shape for n, t in one.items()} == {n: t.shape for n, t in other.items()}
    for name, tensor in one.items():
        torch.testing.assert_close(tensor, other[name], atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize(
    ("training", "stages"),
    [
        (Training(epochs=2), "stage 1 has 0, stage 2 1 and stage 3 1"),
        (Training(epochs=3), ""),
        (
            Training(epochs=10, k=KSchedule(dense_fraction=0.5, plastic_fraction=0.5)),
            "stage 1 has 5, stage 2 5 and stage 3 0",
        ),
    ],
)
def test_a_stage_without_epochs_is_told(digits: Path, training: Training, stages: str) -> None:
    """In the plan, with what each stage has."""
    warnings = " ".join(plan(MLP, inspect_dataset(digits), BUDGET, training).warnings)
    assert stages in warnings
    assert bool(stages) == ("a stage without epochs" in warnings)
