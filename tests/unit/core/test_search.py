"""search.py: which sizes are tried, and whole jobs that look for the smallest network that keeps its accuracy."""

from dataclasses import replace
from pathlib import Path

import pytest
from compress_runs import architecture_of, report_of, run, write_model
from own_jobs import seeded
from test_pipeline import write_digits
from torch import nn

from npn_core import checkpoint, state_document
from npn_core.config import Budget, CatalogueModel, ModelFile, Preprocessing, Training
from npn_core.errors import AccuracyNotMet, InvalidInput
from npn_core.job import CompressJob
from npn_core.progress import Cost, Stage, Trial
from npn_core.search import CLOSE, RECORD, Search
from npn_core.train import Trainer

DENSE, SMALLEST = Cost(params=100_000, macs=90_000, bytes=400_000), Cost(params=40, macs=30, bytes=160)


@pytest.fixture(autouse=True)
def without_onnx(monkeypatch: pytest.MonkeyPatch) -> None:
    """No model.onnx, which takes longer than a job of these."""
    monkeypatch.setattr("npn_core.onnx_export._PACKAGES", ("an_absent_package",))


def tried(found: Search, needed: int) -> Search:
    """The search at its end, where networks pass that cost `needed` or more, and use all but a few of a limit."""
    while found.limit is not None:
        cost = max(found.limit - 3, found.smallest)
        passed = cost >= needed
        trial = Trial(
            kind="params", limit=found.limit, cost=cost, accuracy=0.9, low=0.8, high=1, passed=passed
        )
        found = found.after(trial)
    return found


@pytest.mark.parametrize("needed", [45, 300, 5_000, 12_000, 60_000, 93_000])
def test_the_next_smaller_size_fails_and_is_close(needed: int) -> None:
    """The one returned passes; one that has at least nine tenths of it was tried, and did not."""
    found = tried(Search.of(Budget(max_accuracy_drop_points=1), DENSE, SMALLEST), needed)
    assert found.best is not None
    failed = max(one.cost for one in found.trials if not one.passed and one.cost < found.best.cost)
    assert CLOSE * found.best.cost <= failed < needed <= found.best.cost
    assert len(found.trials) <= 12


def test_the_smallest_network_may_do() -> None:
    """Then nothing smaller is left to try."""
    found = tried(Search.of(Budget(max_accuracy_drop_points=1), DENSE, SMALLEST), 1)
    assert found.best is not None
    assert found.best.cost == SMALLEST.params


@pytest.mark.parametrize("needed", [16, 48, 80, 112])
def test_coarse_sizes_are_all_in_reach(needed: int) -> None:
    """Where layers come in steps, a limit gives far less than it allows: what lies above is tried all the same."""
    dense, smallest = Cost(params=128, macs=128, bytes=512), Cost(params=16, macs=16, bytes=64)
    found = Search.of(Budget(max_accuracy_drop_points=1), dense, smallest)
    while found.limit is not None:
        cost = found.limit // 16 * 16
        passed = cost >= needed
        trial = Trial(kind="params", limit=found.limit, cost=cost, accuracy=1, low=0, high=1, passed=passed)
        found = found.after(trial)
    assert found.best is not None
    assert found.best.cost == needed


def test_a_limit_bounds_the_search() -> None:
    """It is the first size tried; where it fails nothing passes."""
    budget = Budget(max_params=2_000, max_accuracy_drop_points=1)
    assert Search.of(budget, DENSE, SMALLEST).limit == 2_000
    assert max(one.cost for one in tried(Search.of(budget, DENSE, SMALLEST), 500).trials) <= 2_000
    nothing = tried(Search.of(budget, DENSE, SMALLEST), 5_000)
    assert nothing.best is None
    assert len(nothing.trials) == 1


@pytest.mark.parametrize("points", [-0.1, 101.0, float("nan")])
def test_what_is_no_number_of_points(points: float) -> None:
    """Refused, by name."""
    with pytest.raises(InvalidInput, match="between 0 and 100"):
        Budget(max_accuracy_drop_points=points)


def search_job(folder: Path, points: float = 3.0) -> CompressJob:
    """A job of a few seconds: every trial trains a small network for some epochs."""
    output = folder / "out"
    output.mkdir()
    return CompressJob(
        model=CatalogueModel(name="mlp", params={"hidden": "40"}),
        dataset=write_digits(folder / "digits.npz"),
        layout="",
        budget=Budget(max_accuracy_drop_points=points),
        training=Training(epochs=6, batch_size=32, seed=3, lr=3e-3),
        output=output,
    )


def test_a_job_finds_the_smallest_that_keeps_its_accuracy(tmp_path: Path) -> None:
    """Its report has every size with its interval; the one returned passed, and a close smaller one failed."""
    job = search_job(tmp_path)
    outcome, said = run(job)
    report = report_of(job)
    metrics = {one.name: one.value for one in report.metrics}
    passed = [one for one in report.trials if one.passed]
    best = min(passed, key=lambda one: one.cost)
    assert outcome.compact.params == best.cost == report.compact.params
    assert metrics["compact_validation_accuracy"] == pytest.approx(best.accuracy)
    assert metrics["dense_validation_accuracy"] - best.accuracy <= 0.03 + 1e-9
    failed = max(one.cost for one in report.trials if not one.passed and one.cost < best.cost)
    assert failed >= CLOSE * best.cost
    assert all(one.low < one.accuracy < one.high or one.accuracy == 1 for one in report.trials)
    assert report.relative_difference <= 1e-5
    assert len(architecture_of(job).groups[1].kept) < 40
    dense = [one for one in said if one.stage is Stage.DENSE]
    assert {one.epoch for one in dense} == set(range(1, 7))  # trained once, for all epochs
    assert [one.step for one in said if one.steps] == sorted(one.step for one in said if one.steps)
    assert said[-1].trials == () or said[-1].stage is Stage.EXPORT
    assert not job.output.with_name("out.search").exists()


@pytest.mark.parametrize("limit", [None, 3_000])
def test_a_trained_network_is_searched(limit: int | None, tmp_path: Path) -> None:
    """Every trial begins at the same dense network, whatever its limit, and has all of its stage 2."""
    digits = search_job(tmp_path)
    module = nn.Sequential(nn.Flatten(), nn.Linear(64, 40), nn.ReLU(), nn.Linear(40, 10))
    model = ModelFile(path=write_model(tmp_path / "model.pt2", seeded(lambda: module), (1, 8, 8)))
    training = replace(digits.training, epochs=12, preprocessing=Preprocessing(mode="none"))
    budget = Budget(max_params=limit, max_accuracy_drop_points=100.0 if limit else 1.0)
    _, said = run(replace(digits, model=model, training=training, budget=budget))
    gates = [one.k for one in said if one.stage is Stage.PLASTIC and one.k > 35]
    assert len(gates) >= len(report_of(digits).trials) > 1


class Once:
    """Keeps one checkpoint, in the second trial's stage 3, and then stops the job."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.now = folder, False

    def due(self) -> bool:
        """Always, until there is one."""
        return not self.folder.exists()

    def keep(self, trainer: Trainer, beside: object = None) -> None:
        """The one."""
        if trainer.past and trainer.state.stage is Stage.FINE_TUNE and trainer.state.batch == 3:
            checkpoint.write(self.folder, trainer)
            assert callable(beside)
            beside(self.folder)


def test_a_search_is_resumed(tmp_path: Path) -> None:
    """In the middle of a trial: the same sizes are tried, and the same bytes come out."""
    undisturbed = search_job(tmp_path)
    keeper = Once(tmp_path / "kept")
    run(undisturbed, keeper=keeper)
    assert (keeper.folder / RECORD).is_file()
    other = tmp_path / "other"
    other.mkdir()
    job = replace(undisturbed, output=other, checkpoint=keeper.folder)
    run(job)
    files = [(folder / "model.safetensors").read_bytes() for folder in (undisturbed.output, other)]
    assert files[0] == files[1]
    assert report_of(job).trials == report_of(undisturbed).trials
    assert report_of(job).resumed == 0  # its own trial may not be the one that was returned


def test_a_search_begins_anew_where_its_checkpoint_is_refused(tmp_path: Path) -> None:
    """A checkpoint of another format costs the work, not the job: it says so and finds the same network."""
    undisturbed = search_job(tmp_path)
    keeper = Once(tmp_path / "kept")
    run(undisturbed, keeper=keeper)
    state = keeper.folder / checkpoint.STATE
    state.write_text(
        state.read_text().replace(
            f'"format_version": {state_document.FORMAT_VERSION}', '"format_version": 99'
        )
    )
    other = tmp_path / "other"
    other.mkdir()
    job = replace(undisturbed, output=other, checkpoint=keeper.folder)
    _, said = run(job)
    assert any("began anew" in one.warning for one in said)
    assert report_of(job).trials == report_of(undisturbed).trials


def test_nothing_keeps_the_accuracy(tmp_path: Path) -> None:
    """Then the job says which size came nearest."""
    job = replace(search_job(tmp_path), budget=Budget(max_params=100, max_accuracy_drop_points=0))
    with pytest.raises(AccuracyNotMet, match="none of 1 sizes up to 100 params"):
        run(job)
