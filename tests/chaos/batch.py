"""A batch of equal jobs, and kills that land where they are wanted while it runs."""

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from cluster import Cluster, Line

from npn_client import Architecture, Budget, Client, Job, JobState, Training
from npn_client.errors import Unavailable

RESULTS = ("model.safetensors", "architecture.json", "model.pt2")
# An attempt that dies thrice in a row without a newer checkpoint ends its job, which is not what is tested here.
SPARED_AFTER = 2

TRAINING = ("dense", "plastic", "fine_tune")

# Where a kill lands: the line of the log that says so, and what it must hold.
PLACES: dict[str, tuple[str, dict[str, str]]] = {
    "data": ("attempt.fetching", {}),
    "prepare": ("attempt.stage", {"stage": "prepare"}),
    "dense": ("attempt.stage", {"stage": "dense"}),
    "plastic": ("attempt.stage", {"stage": "plastic"}),
    "hardening": ("attempt.stage", {"stage": "fine_tune"}),
    "checkpoint": ("checkpoint.storing", {}),
    "fine_tune": ("checkpoint.made", {"stage": "fine_tune"}),
    "export": ("attempt.stage", {"stage": "export"}),
    "upload": ("attempt.uploading", {}),
    "before commit": ("attempt.committing", {"ending": "finished"}),
    "before answer": ("attempt.committed", {"state": "SUCCEEDED"}),
    "end": ("attempt.ended", {}),
}


@dataclass
class Kills:
    """How many kills of a worker and of a server are still to land at each place; and what they cost."""

    worker: Counter[str]
    server: Counter[str]
    landed: Counter[tuple[str, str]] = field(default_factory=Counter)
    deaths: Counter[str] = field(default_factory=Counter)  # deaths since the newest checkpoint
    dying: set[tuple[str, int]] = field(default_factory=set)
    kept: Counter[str] = field(default_factory=Counter)
    begun: set[tuple[str, int]] = field(default_factory=set)

    def see(self, cluster: Cluster, line: Line) -> None:
        """Kill what the line gives a reason to kill."""
        if line.event == "checkpoint.recorded" and line.fields["step"] > self.kept[line.job]:
            self.deaths[line.job] = int(line.attempt in self.dying)
            self.kept[line.job] = line.fields["step"]
        if line.event == "attempt.stage" and line.fields["stage"] in TRAINING:
            self._begins(line)
        for place in (name for name in PLACES if is_at(line, name)):
            if (
                self.worker[place] > 0
                and self.deaths[line.job] < SPARED_AFTER
                and line.attempt not in self.dying
                and cluster.kill_worker(line.attempt)
            ):
                self.deaths[line.job] += 1
                self.dying.add(line.attempt)
                self._count(self.worker, "worker", place)
                return
            if self.server[place] > 0:
                cluster.kill_server(line.server)
                self._count(self.server, "server", place)
                return

    @property
    def left(self) -> int:
        """Kills that did not land yet."""
        return self.worker.total() + self.server.total()

    def _begins(self, line: Line) -> None:
        """The first step that an attempt tells of: none is trained again that a recorded checkpoint has."""
        if line.attempt not in self.begun:
            self.begun.add(line.attempt)
            assert line.fields["step"] >= self.kept[line.job], line

    def _count(self, wanted: Counter[str], victim: str, place: str) -> None:
        wanted[place] -= 1
        self.landed[victim, place] += 1


PEACE = Kills(Counter(), Counter())


def is_at(line: Line, place: str) -> bool:
    """Whether a line says that its attempt has come there."""
    event, fields = PLACES[place]
    return line.event == event and all(line.fields.get(name) == value for name, value in fields.items())


def write_clouds(path: Path) -> None:
    """Points of two classes in six dimensions, enough for a job of seconds."""
    random = np.random.default_rng(0)
    y = random.integers(0, 2, 4400)
    x = (random.normal(size=(4400, 6)) + y[:, None]).astype(np.float32)
    np.savez(path, x_train=x[:4000], y_train=y[:4000], x_test=x[4000:], y_test=y[4000:])


def submit(client: Client, dataset: Path, count: int, *, epochs: int = 12) -> list[Job]:
    """Equal jobs: whatever happens to them, they must end with equal bytes."""
    training = Training(epochs=epochs, batch_size=16, seed=1)
    model, budget = Architecture("mlp", {"hidden": [64, 32]}), Budget(max_params=600)
    first = client.compress(model, dataset=str(dataset), budget=budget, training=training)
    return [first] + [
        client.compress(model, dataset=first.snapshot.dataset.source, budget=budget, training=training)
        for _ in range(count - 1)
    ]


def follow(cluster: Cluster, jobs: Sequence[Job], kills: Kills, *, seconds: float) -> list[Job]:
    """Kill while the jobs run; returns them as they ended.  Fails when that takes longer than `seconds`."""
    deadline = time.monotonic() + seconds
    asked = time.monotonic()
    running = list(jobs)
    while running:
        for line in cluster.lines():
            kills.see(cluster, line)
        time.sleep(0.002)
        if time.monotonic() - asked < 1.0:
            continue
        asked = time.monotonic()
        assert asked < deadline, f"after {seconds} s {len(running)} jobs run, {kills.left} kills did not land"
        try:
            running = [job for job in running if not job.refresh().done]
        except Unavailable:  # a server that was killed just now
            continue
    return list(jobs)


def wait_for(cluster: Cluster, place: str, job: Job, attempt: int | None = None) -> Line:
    """The line of the log that says that the job, or this attempt of it, has come there."""
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        for line in cluster.lines():
            own = line.job == job.name if attempt is None else line.attempt == (job.name, attempt)
            if own and is_at(line, place):
                return line
        time.sleep(0.002)
    raise AssertionError(f"{job.name} never came to {place}")


def check(cluster: Cluster, jobs: Sequence[Job], undisturbed: dict[str, str]) -> None:
    """Every job succeeded once, with the bytes of an undisturbed one, and nothing else of it is left."""
    states = Counter(job.snapshot.state for job in jobs)
    assert states == {JobState.SUCCEEDED: len(jobs)}, [job.snapshot.error for job in jobs]
    for job in jobs:
        assert hashes_of(job) == undisturbed, job.name
    commits = dict(
        cluster.query("SELECT job_id, count(*) FROM attempts WHERE outcome = 'succeeded' GROUP BY job_id")
    )
    assert commits == {job.name.removeprefix("jobs/"): 1 for job in jobs}
    assert cluster.query("SELECT * FROM attempts WHERE end_time IS NULL") == []
    deadline = time.monotonic() + 60
    while left := [key for job in jobs for key in _left_over(cluster, job)]:
        assert time.monotonic() < deadline, left
        time.sleep(0.5)


def _left_over(cluster: Cluster, job: Job) -> list[str]:
    """Keys of a job that are not its artifact: dead attempts', checkpoints'."""
    assert job.snapshot.result is not None
    published = {
        f"{job.name}/attempts/{job.snapshot.attempt}/{file.path}" for file in job.snapshot.result.files
    }
    return [key for key in cluster.keys(f"{job.name}/") if key not in published]


def hashes_of(job: Job) -> dict[str, str]:
    """SHA-256 of the files that must be equal."""
    assert job.snapshot.result is not None
    return {file.path: file.sha256 for file in job.snapshot.result.files if file.path in RESULTS}
