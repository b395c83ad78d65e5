"""checkpoint.py: a job taken up again ends as if nothing had happened, and no file is trusted."""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from compress_runs import report_of, run, write_dataset
from own_jobs import SAMPLES, TEST, TRAINING, Pictures, Regressor, Residual, job_of, pictures, seeded, values
from safetensors.torch import load_file, save_file
from torch import Tensor

from npn_core import checkpoint
from npn_core.config import Budget, CatalogueModel, Expansion, KSchedule, Preprocessing
from npn_core.errors import Stopped
from npn_core.job import CompressJob
from npn_core.pipeline import compress
from npn_core.progress import Stage
from npn_core.train import Trainer

EQUAL = ("model.safetensors", "architecture.json", "model.pt2")
SHORT = replace(TRAINING, epochs=6)
MLP = CatalogueModel(name="mlp", params={"hidden": "16,8", "batch_norm": "true", "dropout": "0.2"})


@pytest.fixture(autouse=True, scope="module")
def without_onnx() -> Iterator[None]:
    """No model.onnx and few measurements of latency, which take longer than a job of these."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("npn_core.latency.MAX_RUNS", 5)
        patch.setattr("npn_core.onnx_export._PACKAGES", ("an_absent_package",))
        yield


def mlp_job(folder: Path) -> CompressJob:
    """A network of the catalogue with BatchNorm and dropout."""
    data = write_dataset(folder / "data.npz", pictures(SAMPLES, 0), pictures(TEST, 1))
    budget = Budget(max_params=400, max_macs=350)
    return CompressJob(
        model=MLP, dataset=data, layout="", budget=budget, training=SHORT, output=folder / "out"
    )


def pictures_job(folder: Path, **changes: Any) -> CompressJob:
    """An uploaded network with a residual connection and BatchNorm."""
    job = job_of(folder, seeded(Pictures), [(1, 6, 6)], pictures)
    training = replace(SHORT, preprocessing=Preprocessing(mode="none"), **changes)
    return replace(job, training=training, budget=Budget(max_params=350))


def residual_job(folder: Path) -> CompressJob:
    """An uploaded network with residual branches, of which one leaves, in bfloat16."""
    job = job_of(folder, seeded(Residual), [(1, 6, 6)], pictures)
    training = replace(
        SHORT, preprocessing=Preprocessing(mode="none"), thinnest_branch=0.9, precision="bfloat16"
    )
    return replace(job, training=training, budget=Budget(max_params=700))


def distill_job(folder: Path) -> CompressJob:
    """An uploaded network that is its own teacher, and has BatchNorm."""
    job = job_of(folder, seeded(Pictures), [(1, 6, 6)], lambda n, seed: {"x": pictures(n, seed)["x"]})
    training = replace(SHORT, preprocessing=Preprocessing(mode="none"), loss="distill")
    return replace(job, training=training, budget=Budget(max_params=350))


def values_job(folder: Path) -> CompressJob:
    """An uploaded network of values, with a mask by chance, half taught by its targets."""
    job = job_of(folder, seeded(Regressor), [(6,)], values)
    return replace(job, training=replace(SHORT, loss="mse", mask="random", distillation=0.5))


def growing_job(folder: Path) -> CompressJob:
    """A network of 3 and 2 neurons, with BatchNorm and dropout, that is widened while it trains."""
    small = CatalogueModel(name="mlp", params={**MLP.params, "hidden": "3,2"})
    k = KSchedule(dense_fraction=0.5, plastic_fraction=0.2)
    training = replace(SHORT, epochs=10, lr=0.01, k=k)
    return replace(mlp_job(folder), model=small, expansion=Expansion(awake={"fc1": 2}), training=training)


JOBS: dict[str, Callable[[Path], CompressJob]] = {
    "catalogue": mlp_job,
    "augmented": lambda folder: pictures_job(folder, augment="crop-flip"),
    "from scratch": lambda folder: pictures_job(folder, from_scratch=True, estimator="arm"),
    "distill": distill_job,
    "values": values_job,
    "branches": residual_job,
    "weights": lambda folder: pictures_job(folder, units="weights"),
}
STEPS = 9  # of an epoch: a tenth of the samples is held out
STAGES = {Stage.DENSE: (0, 1), Stage.PLASTIC: (1, 3), Stage.FINE_TUNE: (3, 6)}
PLACES = [
    place
    for first, end in STAGES.values()
    for place in ((first, 0), ((first + end) // 2, STEPS // 2), (end - 1, STEPS - 1))
] + [(6, 0)]


@dataclass
class Everywhere:
    """Keeps a checkpoint at each of PLACES."""

    folder: Path
    kept: dict[tuple[int, int], Path] = field(default_factory=dict)

    def due(self) -> bool:
        """Always: `keep` sees where the loop is."""
        return True

    def keep(self, trainer: Trainer) -> None:
        """One at every place."""
        place = (trainer.state.epoch, trainer.state.batch)
        if place in PLACES:
            self.kept[place] = self.folder / "-".join(map(str, place))
            checkpoint.write(self.kept[place], trainer)


@dataclass(frozen=True)
class Undisturbed:
    """A job that ran to its end, and the checkpoints that it left."""

    job: CompressJob
    kept: dict[tuple[int, int], Path]


def hashes(job: CompressJob) -> dict[str, str]:
    """Of the files that must be equal."""
    return {name: hashlib.sha256((job.output / name).read_bytes()).hexdigest() for name in EQUAL}


@pytest.fixture(scope="module", params=JOBS)
def undisturbed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    """Each job, run once."""
    folder = tmp_path_factory.mktemp("job")
    job = JOBS[request.param](folder)
    keeper = Everywhere(folder)
    run(job, keeper=keeper)
    return Undisturbed(job=job, kept=keeper.kept)


def history(job: CompressJob) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl without what depends on the clock."""
    lines = [json.loads(line) for line in (job.output / "metrics.jsonl").read_text().splitlines()]
    return [
        {key: value for key, value in line.items() if key not in ("samples_per_second", "time_left")}
        for line in lines
    ]


@pytest.mark.parametrize("place", PLACES, ids=str)
def test_a_resumed_job_ends_bit_for_bit(
    undisturbed: Undisturbed, place: tuple[int, int], tmp_path: Path
) -> None:
    """From any place, in any stage, the same bytes come out, and only the steps that were missing are made."""
    job = replace(undisturbed.job, output=tmp_path / "out", checkpoint=undisturbed.kept[place])
    _, said = run(job)
    steps = [progress.step for progress in said if progress.steps]
    assert min(steps, default=6 * STEPS) > place[0] * STEPS + place[1] - (place == (0, 0)) or place == (6, 0)
    assert hashes(job) == hashes(undisturbed.job)
    assert history(job) == history(undisturbed.job)
    assert (report_of(job).resumed, report_of(undisturbed.job).resumed) == (1, 0)


def test_keeping_checkpoints_changes_nothing(undisturbed: Undisturbed, tmp_path: Path) -> None:
    """A run that kept none gives the same bytes."""
    job = replace(undisturbed.job, output=tmp_path / "out")
    run(job)
    assert hashes(job) == hashes(undisturbed.job)


def test_a_checkpoint_names_the_branches_that_left(tmp_path: Path) -> None:
    """In stage 3; then its weights are those of the dense network alone."""
    keeper = Everywhere(tmp_path)
    run(residual_job(tmp_path), keeper=keeper)
    for place, dropped in (((0, 4), []), ((2, 4), []), ((4, 4), ["conv3"])):
        document = json.loads((keeper.kept[place] / "state.json").read_text())
        assert document["dropped"] == dropped
        tensors = load_file(keeper.kept[place] / checkpoint.TENSORS)
        assert ("network.conv3.weight" in tensors) == (not dropped)
        assert ("dense.conv3.weight" in tensors) == (place[0] > 0)


@dataclass
class AfterGrowing:
    """Keeps a checkpoint at the first step, in each stage, of a network that has been widened."""

    folder: Path
    kept: list[Path] = field(default_factory=list)

    def due(self) -> bool:
        """Always: `keep` sees where the loop is."""
        return True

    def keep(self, trainer: Trainer) -> None:
        """One a stage."""
        path = self.folder / trainer.state.stage.value
        if trainer.full.coupling.by_name["fc1"].size > 3 and path not in self.kept:
            self.kept.append(path)
            checkpoint.write(path, trainer)


def test_a_network_that_grew_is_resumed(tmp_path: Path) -> None:
    """At its width of then, in every stage, and the same bytes come out."""
    undisturbed, keeper = growing_job(tmp_path), AfterGrowing(tmp_path)
    run(undisturbed, keeper=keeper)
    assert [path.name for path in keeper.kept] == ["dense", "plastic", "fine_tune"]
    for path in keeper.kept:
        job = replace(undisturbed, output=tmp_path / f"out-{path.name}", checkpoint=path)
        run(job)
        assert report_of(job).resumed == 1
        assert hashes(job) == hashes(undisturbed)
        assert history(job) == history(undisturbed)


@dataclass
class Relay:
    """Keeps a checkpoint after a few steps and then stops the job."""

    folder: Path
    steps: int
    asked: int = 0
    kept: bool = False

    def due(self) -> bool:
        """At the last of the steps."""
        self.asked += 1
        return self.asked > self.steps

    def keep(self, trainer: Trainer) -> None:
        """The one."""
        checkpoint.write(self.folder, trainer)
        self.kept = True


def test_many_interruptions_change_nothing(undisturbed: Undisturbed, tmp_path: Path) -> None:
    """A job that gets seven steps at a time ends with the same bytes, and says how often it was taken up."""
    job, attempts = replace(undisturbed.job, output=tmp_path / "out"), 0
    while True:
        relay = Relay(tmp_path / str(attempts), 7)
        try:
            run(job, lambda relay=relay: relay.kept, relay)  # type: ignore[misc]
            break
        except Stopped:
            job, attempts = replace(job, checkpoint=relay.folder), attempts + 1
    assert attempts == 6 * STEPS // 7
    assert hashes(job) == hashes(undisturbed.job)
    assert report_of(job).resumed == attempts


# ------------------------------------------------------------------------------------- what is refused


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    """A short job of the catalogue with its checkpoints."""
    folder = tmp_path_factory.mktemp("one")
    job, keeper = mlp_job(folder), Everywhere(folder)
    run(job, keeper=keeper)
    return Undisturbed(job=job, kept=keeper.kept)


Change = Callable[[dict[str, Any], dict[str, Tensor]], None]


def damaged(folder: Path, copy: Path, change: Change) -> Path:
    """A checkpoint changed by someone who also writes the right hash into it."""
    document, tensors = (
        json.loads((folder / "state.json").read_text()),
        load_file(folder / checkpoint.TENSORS),
    )
    change(document, tensors)
    copy.mkdir()
    save_file(tensors, copy / checkpoint.TENSORS)
    document["tensors_sha256"] = hashlib.sha256((copy / checkpoint.TENSORS).read_bytes()).hexdigest()
    (copy / "state.json").write_text(json.dumps(document))
    return copy


def put(name: str, tensor: Tensor) -> Change:
    """Another tensor under a name."""
    return lambda _, tensors: tensors.update({name: tensor})


def say(**changes: Any) -> Change:
    """Other values in state.json."""
    return lambda document, _: document.update(changes)


def truncate_generator(_: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    """A generator's state of zeros, which is none."""
    tensors["generators.gates"] = torch.full_like(tensors["generators.gates"], 255)


CHANGES: dict[str, tuple[tuple[int, int], Change, str]] = {
    "newer format": ((3, 0), say(format_version=99), "format version 99"),
    "no format": ((3, 0), lambda document, _: document.pop("format_version"), "format version None"),
    "unknown key": ((3, 0), say(surprise=1), "surprise"),
    "missing key": ((3, 0), lambda document, _: document.pop("epoch"), "epoch"),
    "wrong type": ((3, 0), say(epoch="1"), "epoch"),
    "other job": ((3, 0), lambda document, _: document["training"].update(seed=9), "other settings"),
    "invalid settings": ((3, 0), lambda document, _: document["training"].update(lr=-1.0), "lr"),
    "unknown limit": (
        (3, 0),
        lambda d, _: d["multipliers"].update(watts=d["multipliers"]["params"]),
        "settings",
    ),
    "unknown stage": ((3, 0), lambda document, _: document["meter"]["done"].update(nap=0), "nap"),
    "unknown branch": ((3, 0), say(dropped=["fc1"]), "no residual branch 'fc1'"),
    "beyond the end": ((3, 0), say(epoch=7), "do not fit together"),
    "other stage": ((3, 0), say(stage="dense"), "do not fit together"),
    "other batch": ((3, 0), say(batch=3), "do not fit together"),
    "negative batch": ((3, 0), say(batch=-1), "do not fit together"),
    "missing tensor": ((0, 4), lambda _, tensors: tensors.pop("gates.phi"), "gates.phi"),
    "unknown tensor": ((0, 4), put("network.evil", torch.zeros(1)), "network.evil"),
    "other shape": ((0, 4), put("gates.phi", torch.zeros(3, dtype=torch.float64)), "gates.phi"),
    "other type": ((0, 4), put("gates.awake", torch.zeros(60)), "gates.awake"),
    "broken generator": ((0, 4), truncate_generator, "generators.gates"),
    "no mask": ((3, 0), lambda _, tensors: tensors.pop("hardening.mask"), "hardening.mask"),
    "mask of numbers": ((3, 0), put("hardening.mask", torch.ones(60)), "hardening.mask"),
    "empty mask": ((3, 0), lambda _, t: t["hardening.mask"].fill_(False), "no network within the budget"),
    "dear mask": ((3, 0), lambda _, t: t["hardening.mask"].fill_(True), "no network within the budget"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_does_not_fit_is_refused(one: Undisturbed, change: str, tmp_path: Path) -> None:
    """The job begins anew and says what was wrong."""
    place, how, says = CHANGES[change]
    check_refused(one, damaged(one.kept[place], tmp_path / "damaged", how), says)


def check_refused(one: Undisturbed, folder: Path, says: str) -> None:
    """The first that the loop says is that it begins anew, and why."""
    for progress in compress(replace(one.job, checkpoint=folder), lambda: False):
        if progress.warning:
            break
    assert "began anew" in progress.warning
    assert says in progress.warning
    assert str(folder) not in progress.warning
    assert (progress.stage, progress.step) == (Stage.PREPARE, 0)


def test_a_refused_checkpoint_leaves_no_trace(one: Undisturbed, tmp_path: Path) -> None:
    """The job ends as it would have without one, and its report has the warning."""
    folder = damaged(one.kept[3, 0], tmp_path / "damaged", put("network.evil", torch.zeros(1)))
    job = replace(one.job, output=tmp_path / "out", checkpoint=folder)
    run(job)
    report = report_of(job)
    assert hashes(job) == hashes(one.job)
    assert report.resumed == 0
    assert any("network.evil" in warning for warning in report.warnings)


@pytest.mark.parametrize("file", checkpoint.FILES)
@pytest.mark.parametrize("damage", ["flipped", "cut", "absent", "text"])
def test_a_damaged_file_is_refused(one: Undisturbed, file: str, damage: str, tmp_path: Path) -> None:
    """Whatever happened to it on the disk."""
    folder = tmp_path / "damaged"
    shutil.copytree(one.kept[1, 0], folder)
    path = folder / file
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x80
    match damage:
        case "flipped":
            path.write_bytes(data)
        case "cut":
            path.write_bytes(data[: len(data) // 2])
        case "absent":
            path.unlink()
        case _:
            path.write_text("[[" * 100_000)
    check_refused(one, folder, file)


@pytest.mark.parametrize(
    ("part", "key", "value"), [("versions", "torch", "1.0"), ("training", "precision", "bfloat16")]
)
def test_another_version_goes_on_and_says_so(
    one: Undisturbed, tmp_path: Path, part: str, key: str, value: str
) -> None:
    """A checkpoint of another torch, or of a processor where "auto" came to another precision, is used, but nobody is
    told that the bits are the same.
    """
    change: Change = lambda document, _: document[part].update({key: value})  # noqa: E731
    folder = damaged(one.kept[3, 0], tmp_path / "other", change)
    job = replace(one.job, output=tmp_path / "out", checkpoint=folder)
    run(job)
    report = report_of(job)
    assert (report.resumed, report.training.precision) == (1, "float32")
    assert any("not bit for bit" in warning for warning in report.warnings)


def test_checkpoints_hold_no_pickle(one: Undisturbed) -> None:
    """JSON and safetensors, and nothing else in the folder."""
    for folder in one.kept.values():
        assert sorted(path.name for path in folder.iterdir()) == sorted(checkpoint.FILES)
        json.loads((folder / "state.json").read_text())
        assert all(
            isinstance(t.sum().item(), int | float | bool)
            for t in load_file(folder / checkpoint.TENSORS).values()
        )


def test_a_full_disk_is_an_os_error(one: Undisturbed, tmp_path: Path) -> None:
    """The keeper can go on without a checkpoint."""
    caught: list[OSError] = []

    class Full:
        def due(self) -> bool:
            return not caught

        def keep(self, trainer: Trainer) -> None:
            try:
                checkpoint.write(tmp_path / "no" / "such", trainer)
            except OSError as error:
                caught.append(error)

    job = replace(one.job, output=tmp_path / "out")
    run(job, keeper=Full())
    assert caught
    assert hashes(job) == hashes(one.job)
