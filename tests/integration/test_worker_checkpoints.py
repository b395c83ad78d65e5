"""Attempts that end early: their checkpoints, what counts as lost, and how a death is explained."""

import hashlib
import os
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from worker_lab import OWNER, TESTS, Lab, alive, busy_worker, wait_until, worker_pids

from npn_service.errors import Unavailable
from npn_service.jobs.model import ArtifactFile, Checkpoint, Job, State
from npn_service.jobs.sql_store import SqlJobStore
from npn_service.storage.local import LocalObjectStore
from npn_service.storage.store import StoredObject
from npn_service.worker import vigil
from npn_service.worker.checkpoints import CheckpointUploads
from npn_service.worker.child import Child
from npn_service.worker.memory import OomKills, tree_bytes
from npn_service.worker.messages import Checkpointed
from npn_service.worker.vigil import WorkerLimits

OFTEN = WorkerLimits(checkpoint_seconds=0.1)


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    """A lab whose workers find their scripts."""
    monkeypatch.setenv("PYTHONPATH", str(TESTS))
    made = Lab(tmp_path)
    yield made
    made.close()
    assert not worker_pids()


def keys(lab: Lab, job: Job) -> list[str]:
    """What is stored of a job, without its prefix."""
    return [entry.key.removeprefix(job.prefix) for entry in lab.objects.list(job.prefix)]


def threads(job: Job) -> set[str]:
    """What runs for a job in this process."""
    return {thread.name.removeprefix(f"{job.name} ") for thread in threading.enumerate()}


def checkpointed(lab: Lab, job: Job) -> Checkpoint:
    """The job's checkpoint, once there is one."""
    found = lab.wait(job, lambda job: job.checkpoint is not None or job.state.done).checkpoint
    assert found is not None
    return found


def test_deaths_that_leave_newer_checkpoints_do_not_add_up(lab: Lab) -> None:
    """A worker that dies every 25 steps ends after three attempts, each of which began where the last was."""
    lab.dispatcher(limits=OFTEN)
    job = lab.wait(lab.create("count-die"))
    assert job.state is State.SUCCEEDED
    assert job.attempt >= 3
    assert 25 < lab.facts(job)["first_step"] <= 25 * (job.attempt - 1)
    wait_until(
        lambda: keys(lab, job) == [f"attempts/{job.attempt}/facts.json"], why=lambda: str(keys(lab, job))
    )
    assert job.checkpoint is None


def test_only_the_newest_checkpoint_is_kept(lab: Lab) -> None:
    """While a job runs nothing but its last checkpoint is stored."""
    lab.dispatcher(limits=OFTEN)
    job = lab.create("count-stop")
    wait_until(lambda: (found := lab.get(job).checkpoint) is not None and found.step >= 20)
    time.sleep(0.5)
    found = checkpointed(lab, job)
    assert keys(lab, job) == [f"attempts/1/checkpoints/{found.step}/step"]
    assert not list((lab.folder / "scratch" / f"{job.id}-1" / "checkpoints").iterdir())


@pytest.mark.parametrize("how", ["fail", "cancel"])
def test_a_job_that_ends_badly_leaves_nothing(lab: Lab, how: str) -> None:
    """No checkpoint outlives its job."""
    lab.dispatcher(limits=OFTEN)
    job = lab.create("count-stop", max_duration=3.0 if how == "fail" else None)
    checkpointed(lab, job)
    if how == "cancel":
        lab.store.cancel_job(owner=OWNER, job_id=job.id)
    assert lab.wait(job).state is (State.FAILED if how == "fail" else State.CANCELLED)
    wait_until(lambda: not keys(lab, job))


def test_a_drain_keeps_the_last_step(lab: Lab) -> None:
    """A server that stops has its worker write a checkpoint, and the next one goes on from that step."""
    dispatcher = lab.dispatcher(limits=WorkerLimits(checkpoint_seconds=3600.0))
    job = lab.create("count-slowly")
    lab.wait(
        job, lambda job: job.progress is not None and job.progress.step >= 3 and job.state is State.RUNNING
    )
    dispatcher.drain()
    assert not worker_pids()
    queued = lab.get(job)
    assert (queued.state, queued.attempt) == (State.QUEUED, 1)
    assert queued.checkpoint is not None
    assert queued.checkpoint.step >= 3
    lab.dispatcher()
    ended = lab.wait(job)
    assert (ended.state, ended.attempt) == (State.SUCCEEDED, 2)
    assert lab.facts(ended)["first_step"] == queued.checkpoint.step


def test_a_drain_ends_within_its_grace(lab: Lab) -> None:
    """A worker that does not obey is killed then, and its last checkpoint stays."""
    dispatcher = lab.dispatcher(limits=WorkerLimits(checkpoint_seconds=0.1, grace_seconds=1.0))
    job = lab.create("count-stop")
    wait_until(lambda: (found := lab.get(job).checkpoint) is not None and found.step >= 20)
    time.sleep(2.0)  # it has come to the step that does not end
    asked = time.monotonic()
    dispatcher.drain()
    assert 1.0 <= time.monotonic() - asked < 20.0
    queued = lab.get(job)
    assert queued.state is State.QUEUED
    assert queued.checkpoint is not None
    assert not worker_pids()


class _Away(LocalObjectStore):
    """A store that is away while its event is set."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.away = threading.Event()
        self.refused = 0

    def _answer(self) -> None:
        if self.away.is_set():
            self.refused += 1
            raise Unavailable("the store is away")

    def put_file(self, key: str, source: Path) -> StoredObject:
        self._answer()
        return super().put_file(key, source)

    def read(self, key: str, **how: Any) -> Iterator[bytes]:
        self._answer()
        return super().read(key, **how)


def test_training_goes_on_while_the_store_is_away(lab: Lab) -> None:
    """No attempt is spent, the newest checkpoint is stored afterwards, and the artifact waits for the store."""
    objects = _Away(lab.folder / "objects")
    lab.dispatcher(objects=objects, limits=OFTEN)
    job = lab.create("count")
    checkpointed(lab, job)
    objects.away.set()
    wait_until(lambda: (now := lab.get(job)).progress is not None and now.progress.step == 59)
    wait_until(lambda: objects.refused >= 3)
    after = lab.get(job)
    assert after.state is State.RUNNING
    assert after.checkpoint is not None
    assert after.checkpoint.step < 59
    objects.away.clear()
    ended = lab.wait(job)
    assert (ended.state, ended.attempt) == (State.SUCCEEDED, 1)


class _Overtaken(LocalObjectStore):
    """Is away, and says so when there is a newer checkpoint."""

    asked, newer = threading.Event(), threading.Event()

    def put_file(self, key: str, source: Path) -> StoredObject:
        """Unavailable."""
        self.asked.set()
        self.newer.wait(20)
        raise Unavailable("out of reach")


def test_a_checkpoint_that_was_overtaken_leaves_no_folder(lab: Lab, tmp_path: Path) -> None:
    """However long the store is away, there is one on the disk: the newest."""
    objects, folder = _Overtaken(lab.folder / "objects"), tmp_path / "checkpoints"
    with closing(CheckpointUploads(lab.store, objects, lab.create("sleep"), folder, lab.observed)) as uploads:
        for step in (1, 2):
            (folder / str(step)).mkdir(parents=True)
            (folder / str(step) / "step").write_text("1")
            file = ArtifactFile(path="step", size=1, sha256=hashlib.sha256(b"1").hexdigest())
            uploads.offer(Checkpointed(step=step, files=(file,)))
            assert objects.asked.wait(20)
        objects.newer.set()
        wait_until(lambda: not (folder / "1").exists())
        assert (folder / "2").exists()


def test_a_checkpoint_waits_for_its_store(lab: Lab) -> None:
    """An attempt that finds the store away when it wants its checkpoint waits, and is not spent."""
    first = lab.dispatcher(limits=OFTEN)
    job = lab.create("count-slowly")
    checkpointed(lab, job)
    first.drain()
    objects = _Away(lab.folder / "objects")
    objects.away.set()
    lab.dispatcher(objects=objects)
    wait_until(lambda: objects.refused >= 3)
    assert lab.get(job).state is State.RUNNING
    objects.away.clear()
    ended = lab.wait(job)
    assert (ended.state, ended.attempt) == (State.SUCCEEDED, 2)
    assert lab.facts(ended)["first_step"] > 0


@pytest.mark.parametrize("damage", ["other bytes", "gone"])
def test_a_damaged_checkpoint_never_reaches_the_worker(lab: Lab, damage: str) -> None:
    """Bytes that are not those that were recorded are left out: the worker gets an empty place."""
    first = lab.dispatcher(limits=OFTEN)
    job = lab.create("count-slowly")
    checkpointed(lab, job)
    first.drain()
    stored = lab.get(job)
    assert stored.checkpoint is not None
    key = stored.checkpoint_prefix(stored.checkpoint) + "step"
    if damage == "gone":
        lab.objects.delete(key)
    else:
        other = lab.folder / "other"
        other.write_text("7777")
        lab.objects.put_file(key, other)
    lab.dispatcher()
    ended = lab.wait(job)
    assert ended.state is State.FAILED  # this script, unlike the method, needs its file
    assert ended.error is not None
    assert "FileNotFoundError" in ended.error.message


class _Forgetful(SqlJobStore):
    """A store whose answers to the first two records are lost, after the commit."""

    lost = 0

    def record_checkpoint(self, **how: Any) -> None:
        super().record_checkpoint(**how)
        if self.lost < 2:
            self.lost += 1
            raise Unavailable("the answer was lost")


def test_a_record_whose_answer_is_lost_keeps_its_files(lab: Lab) -> None:
    """Repeating it points at the same bytes, and they are there."""
    store = _Forgetful(f"sqlite:///{lab.folder / 'npn.sqlite'}")
    lab.dispatcher(store=store, limits=OFTEN)
    job = lab.wait(lab.create("count-die"))
    assert job.state is State.SUCCEEDED
    assert store.lost == 2
    lab.dispatchers[0].drain()
    store.close()


class _Slow(LocalObjectStore):
    """A store where checkpoints arrive once `over` is set, and whose answers to that are lost."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.over = threading.Event()
        self.copy = root.parent / "under way"

    def put_file(self, key: str, source: Path) -> StoredObject:
        if "/checkpoints/" not in key:
            return super().put_file(key, source)
        shutil.copy(source, self.copy)
        assert self.over.wait(60)
        super().put_file(key, self.copy)
        raise Unavailable("the answer was lost")


def test_a_checkpoint_that_arrives_after_its_job_is_removed(lab: Lab) -> None:
    """What was under way when the job succeeded comes to where the checkpoints have been swept away already."""
    objects = _Slow(lab.folder / "objects")
    lab.dispatcher(objects=objects, limits=OFTEN)
    job = lab.wait(lab.create("count"))
    assert job.state is State.SUCCEEDED
    wait_until(lambda: not lab.store.list_garbage())
    objects.over.set()
    wait_until(lambda: "checkpoints" not in threads(job))
    assert keys(lab, job) == ["attempts/1/facts.json"]


class _Late(SqlJobStore):
    """A store in which the lease passes just before the first attempt's artifact is committed."""

    def finish_job(self, **how: Any) -> Job:
        if how["attempt"] == 1:
            self.release_job(job_id=how["job_id"], attempt=1, cause="the lease passed", counts=False)
        return super().finish_job(**how)


def test_a_lost_attempt_leaves_the_checkpoint_that_it_recorded(lab: Lab) -> None:
    """What it stored otherwise goes, but the next attempt goes on from its checkpoint."""
    store = _Late(f"sqlite:///{lab.folder / 'npn.sqlite'}")
    lab.dispatcher(store=store, limits=OFTEN)
    job = lab.wait(lab.create("count"))
    assert (job.state, job.attempt) == (State.SUCCEEDED, 2)
    assert lab.facts(job)["first_step"] > 0
    wait_until(lambda: keys(lab, job) == ["attempts/2/facts.json"], why=lambda: str(keys(lab, job)))
    lab.dispatchers[0].drain()
    store.close()


# ----------------------------------------------------------------------------------- how attempts end


def test_a_worker_without_a_step_is_ended(lab: Lab) -> None:
    """A heartbeat is no progress: the attempt ends, counts, and the next goes on from the checkpoint."""
    lab.dispatcher(limits=WorkerLimits(checkpoint_seconds=0.1, stall_seconds=2.0))
    job = lab.wait(lab.create("count-stop"), lambda job: job.attempt == 2)
    assert job.checkpoint is not None
    assert job.checkpoint.step > 10
    failed = lab.wait(lab.create("sleep"))
    assert failed.state is State.FAILED
    assert failed.error is not None
    assert "no step for 2 s" in failed.error.message


@pytest.mark.parametrize("script", ["eat", "child-eats"])
def test_a_worker_above_its_memory_fails_its_job(lab: Lab, script: str) -> None:
    """What the worker and its children take counts; the job is not tried again, and hears limit and use."""
    lab.dispatcher(limits=WorkerLimits(memory_bytes=200 << 20))
    job = lab.wait(lab.create(script))
    assert (job.state, job.attempt) == (State.FAILED, 1)
    assert job.error is not None
    assert job.error.reason == "OUT_OF_MEMORY"
    assert "the server allows 200 MiB" in job.error.message
    assert "batch_size" in job.error.message


def test_a_memory_error_fails_its_job(lab: Lab) -> None:
    """The same settings would fail again."""
    lab.dispatcher()
    job = lab.wait(lab.create("memory-error"))
    assert (job.state, job.attempt) == (State.FAILED, 1)
    assert job.error is not None
    assert job.error.reason == "OUT_OF_MEMORY"
    assert "batch_size" in job.error.message


@pytest.mark.parametrize("counts", [True, False])
def test_the_kernels_memory_killer_is_told_apart(
    lab: Lab, tmp_path: Path, counts: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A SIGKILL while the cgroup's counter rises fails the job; any other is the machine's fault."""
    events = tmp_path / "memory.events"
    events.write_text("low 0\noom 3\noom_kill 3\noom_group_kill 0\n")
    monkeypatch.setattr(vigil, "OomKills", lambda: OomKills(events))
    lab.dispatcher(limits=OFTEN)
    job = lab.create("count-stop")
    checkpointed(lab, job)
    busy = busy_worker()
    if counts:
        events.write_text("low 0\noom 4\noom_kill 4\noom_group_kill 0\n")
    os.kill(busy, signal.SIGKILL)
    ended = lab.wait(job, lambda job: job.state.done or job.attempt == 2)
    if not counts:
        assert ended.attempt == 2
        return
    assert (ended.state, ended.attempt) == (State.FAILED, 1)
    assert ended.error is not None
    assert ended.error.reason == "OUT_OF_MEMORY"


def test_where_the_kernel_does_not_tell_nothing_is_counted(tmp_path: Path) -> None:
    """Without cgroup v2 there is no such file."""
    assert OomKills(tmp_path / "absent").count() == 0
    assert OomKills().count() >= 0


def test_memory_is_that_of_the_whole_tree() -> None:
    """A process that is gone takes none."""
    assert tree_bytes(os.getpid()) > 10 << 20
    child = Child("npn_service.worker.inspection:serve")
    child.close()
    assert tree_bytes(child.pid) == 0


def test_a_stopped_worker_dies_with_its_parent(lab: Lab) -> None:
    """SIGSTOP does not save a worker whose attempt ends."""
    lab.dispatcher(limits=WorkerLimits(checkpoint_seconds=0.1, stall_seconds=2.0))
    job = lab.create("count-stop")
    checkpointed(lab, job)
    busy = busy_worker()
    os.kill(busy, signal.SIGSTOP)
    lab.wait(job, lambda job: job.attempt == 2 or job.state.done)
    assert not alive(busy)
