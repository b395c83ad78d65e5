"""The dispatcher with real processes, a real database and a real object store; the workers follow scripts."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from job_samples import RESULT
from worker_lab import OWNER, TESTS, Lab, alive, wait_until, worker_pids

from npn_service.errors import LostLease, Unavailable
from npn_service.jobs.inputs import JobInputs
from npn_service.jobs.model import Job, State
from npn_service.jobs.sql_store import SqlJobStore
from npn_service.storage.space import DiskSpace
from npn_service.worker import child
from npn_service.worker.vigil import WorkerLimits


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    """A lab whose workers find their scripts."""
    monkeypatch.setenv("PYTHONPATH", str(TESTS))
    monkeypatch.setenv("NPN_S3_SECRET_KEY", "a secret")
    made = Lab(tmp_path)
    yield made
    made.close()
    assert not worker_pids()


def test_a_job_runs_to_its_artifact(lab: Lab) -> None:
    """A job ends SUCCEEDED with progress and its files under its attempt; the scratch folder is empty."""
    lab.dispatcher()
    job = lab.wait(lab.create("succeed"))
    assert job.state is State.SUCCEEDED
    assert job.attempt == 1
    assert job.progress is not None
    assert job.progress.step == 100
    assert job.result is not None
    assert [file.path for file in job.result.files] == ["facts.json"]
    assert lab.facts(job)["dataset"] == "the dataset"
    wait_until(lambda: lab.observed.outcomes == ["succeeded"])
    assert lab.observed.progress >= 2
    assert not list((lab.folder / "scratch").iterdir())


def test_a_warm_worker_starts_within_a_second(lab: Lab) -> None:
    """A job created while a worker is warm reports its first progress within a second."""
    lab.dispatcher()
    lab.wait(lab.create("succeed"))
    time.sleep(1.0)  # the next worker gets warm
    created = time.monotonic()
    lab.wait_reported(lab.create("obey"))
    assert time.monotonic() - created < 1.0
    assert lab.observed.queued[-1] < 1.0


def test_workers_give_way_and_hold_no_secrets(lab: Lab) -> None:
    """A worker has lower priority, a session of its own, one thread and none of the server's secrets."""
    lab.dispatcher()
    facts = lab.facts(lab.wait(lab.create("succeed")))
    assert facts["nice"] == min(19, os.getpriority(os.PRIO_PROCESS, 0) + 10)
    assert facts["session"] == facts["pid"]
    assert facts["environment"]["OMP_NUM_THREADS"] == "1"
    assert not [name for name in facts["environment"] if name.startswith("NPN_")]


def test_two_workers_run_two_jobs(lab: Lab) -> None:
    """With two workers two jobs run at the same time, in processes of their own."""
    lab.dispatcher(workers=2)
    jobs = [lab.create("obey"), lab.create("obey")]
    for job in jobs:
        lab.wait_reported(job)
    assert len(worker_pids()) >= 2
    third = lab.create("succeed")
    time.sleep(0.5)
    assert lab.get(third).state is State.QUEUED


CRASHES = {
    "sigkill": "SIGKILL",
    "sigsegv": "SIGSEGV",
    "exit": "code 3",
    "garbage": "cannot be read",
    "half": "cannot be read",
    "stranger": "not understood",
    "hang-up": "closed its connection",
}


@pytest.mark.parametrize("script", CRASHES)
def test_a_crash_is_retried_and_then_fails_with_its_cause(
    lab: Lab, script: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that dies or talks nonsense costs an attempt; the third one fails the job and says why."""
    monkeypatch.setattr(child, "_MESSAGE_SECONDS", 1)
    lab.dispatcher()
    job = lab.wait(lab.create(script))
    assert job.state is State.FAILED
    assert job.attempt == 3
    assert job.error is not None
    assert CRASHES[script] in job.error.message
    assert lab.wait(lab.create("succeed")).state is State.SUCCEEDED


@pytest.mark.parametrize(
    ("script", "reason", "says", "field"),
    [
        ("refuse", "LABEL_OUT_OF_RANGE", "y_train holds 11", "dataset.uri"),
        ("diverge", "TRAINING_DIVERGED", "step 17", ""),
        ("blunder", "DEFECT", "ValueError", ""),
    ],
)
def test_a_failure_of_the_job_is_not_retried(
    lab: Lab, script: str, reason: str, says: str, field: str
) -> None:
    """What the job itself does wrong fails it at once, with reason and field, without internals."""
    lab.dispatcher()
    job = lab.wait(lab.create(script))
    assert (job.state, job.attempt) == (State.FAILED, 1)
    assert job.error is not None
    assert (job.error.reason, job.error.field) == (reason, field)
    assert says in job.error.message
    assert "secret" not in job.error.message


def test_a_dataset_that_is_gone_fails_the_job(lab: Lab, tmp_path: Path) -> None:
    """A job whose dataset is not there any more fails with the field."""
    job = lab.create("succeed")
    empty = Lab(tmp_path / "empty")
    lab.dispatcher(inputs=JobInputs(empty.store, empty.objects, empty.cache))
    ended = lab.wait(job)
    empty.close()
    assert ended.state is State.FAILED
    assert ended.error is not None
    assert ended.error.field == "dataset.uri"


def test_a_dataset_that_is_damaged_fails_the_job(lab: Lab) -> None:
    """What is stored of an upload is gone from the disk: the job says so, and does not go round."""
    job = lab.create("succeed")
    for entry in lab.objects.list("objects/"):
        lab.objects.delete(entry.key)
    lab.dispatcher()
    ended = lab.wait(job)
    assert (ended.state, ended.attempt) == (State.FAILED, 1)
    assert ended.error is not None
    assert (ended.error.reason, ended.error.field) == ("OBJECT_DAMAGED", "dataset.uri")


class _DefectiveStore(SqlJobStore):
    """Fails in a way that nobody thought of."""

    def list_attempts(self, **_: Any) -> Any:
        """A defect."""
        raise RuntimeError("a defect, with a secret")


def test_a_defect_of_the_server_does_not_go_round_for_ever(lab: Lab) -> None:
    """Its attempts count, so that the third in a row fails the job; what it was stays in the log."""
    store = _DefectiveStore(f"sqlite:///{lab.folder / 'npn.sqlite'}")
    lab.dispatcher(store=store)
    ended = lab.wait(lab.create("succeed"))
    assert (ended.state, ended.attempt) == (State.FAILED, 3)
    assert ended.error is not None
    assert ended.error.reason == "ATTEMPTS_EXHAUSTED"
    assert "secret" not in ended.error.message
    lab.dispatchers[0].drain()
    store.close()


@pytest.mark.parametrize("script", ["obey", "sleep", "hold"])
def test_cancel_completes_within_two_seconds(lab: Lab, script: str) -> None:
    """A cancel ends a worker that obeys, one that sleeps and one stuck in C code holding the interpreter."""
    lab.dispatcher()
    job = lab.wait_reported(lab.create(script))
    (busy,) = [pid for pid in worker_pids() if _has_open(pid, job)] or [0]
    asked = time.monotonic()
    lab.store.cancel_job(owner=OWNER, job_id=job.id)
    ended = lab.wait(job)
    assert time.monotonic() - asked < 2.0
    assert ended.state is State.CANCELLED
    assert ended.attempt == 1
    assert not alive(busy)


def test_a_job_that_takes_too_long_fails(lab: Lab) -> None:
    """max_duration ends the worker and fails the job with the limit."""
    lab.dispatcher()
    job = lab.wait(lab.create("sleep", max_duration=0.5))
    assert job.state is State.FAILED
    assert job.error is not None
    assert job.error.reason == "MAX_DURATION_EXCEEDED"
    assert "0.5 s" in job.error.message


def test_all_attempts_count_for_the_duration(lab: Lab) -> None:
    """An attempt that follows another has what that left; the time in the queue is nobody's."""
    first = lab.dispatcher()
    job = lab.create("count-slowly", max_duration=8.0)
    lab.wait_reported(job)
    time.sleep(3.0)
    first.drain()
    time.sleep(5.0)
    lab.dispatcher()
    ended = lab.wait(job)
    assert (ended.state, ended.attempt) == (State.FAILED, 2)
    assert ended.error is not None
    assert ended.error.reason == "MAX_DURATION_EXCEEDED"
    records = lab.store.list_attempts(owner=OWNER, job_id=job.id)
    took = [(record.end_time - record.start_time).total_seconds() for record in records if record.end_time]
    assert took[0] > 3.0
    assert took[1] < 8.0 - 1.5  # alone it would have had all eight
    assert sum(took) > 7.0


def test_a_flood_of_progress_is_thinned(lab: Lab) -> None:
    """A worker that reports without pause neither stalls its job nor fills the events."""
    lab.dispatcher()
    job = lab.wait(lab.create("flood"))
    assert job.state is State.SUCCEEDED
    assert job.sequence < 100


def test_a_late_finisher_cannot_publish(lab: Lab) -> None:
    """A worker whose attempt is not current any more is ended and leaves nothing behind."""
    lab.dispatcher()
    job = lab.wait_reported(lab.create("second"))
    lab.store.release_job(job_id=job.id, attempt=1, cause="the lease passed", counts=True)
    second = lab.wait(job)
    assert second.state is State.SUCCEEDED
    assert second.attempt == 2
    keys = [entry.key for entry in lab.objects.list(f"jobs/{job.id}/")]
    assert keys == [f"jobs/{job.id}/attempts/2/facts.json"]
    assert "lost" in lab.observed.outcomes


class _LateStore(SqlJobStore):
    """A store in which another attempt begins just before this one commits."""

    def finish_job(self, **how: Any) -> Job:
        if how["attempt"] == 1:
            self.release_job(job_id=how["job_id"], attempt=1, cause="the lease passed", counts=True)
        return super().finish_job(**how)


def test_what_a_loser_stored_is_removed(lab: Lab) -> None:
    """An attempt that loses its lease after storing its files removes them."""
    store = _LateStore(f"sqlite:///{lab.folder / 'npn.sqlite'}")
    lab.dispatcher(store=store)
    job = lab.wait(lab.create("succeed"))
    assert (job.state, job.attempt) == (State.SUCCEEDED, 2)
    keys = [entry.key for entry in lab.objects.list(f"jobs/{job.id}/")]
    assert keys == [f"jobs/{job.id}/attempts/2/facts.json"]
    lab.dispatchers[0].drain()
    store.close()


class _DeafStore(SqlJobStore):
    """A store whose answer to the first finish_job is lost, after the commit."""

    answered = False

    def finish_job(self, **how: Any) -> Job:
        job = super().finish_job(**how)
        if not self.answered:
            self.answered = True
            raise Unavailable("the answer was lost")
        return job


def test_a_commit_whose_answer_is_lost_keeps_its_artifact(lab: Lab) -> None:
    """Repeating a commit that succeeded does not take the published artifact away."""
    store = _DeafStore(f"sqlite:///{lab.folder / 'npn.sqlite'}")
    lab.dispatcher(store=store)
    job = lab.wait(lab.create("succeed"))
    wait_until(lambda: len(lab.observed.outcomes) == 1)
    assert lab.facts(job)["dataset"] == "the dataset"
    lab.dispatchers[0].drain()
    store.close()


def test_drain_requeues_and_leaves_no_process(lab: Lab) -> None:
    """A drain returns a running job to the queue, uncounted, and ends every process when its grace is over."""
    limits = WorkerLimits(grace_seconds=0.5)
    dispatcher = lab.dispatcher(workers=2, limits=limits)
    jobs = [lab.create("hold"), lab.create("obey")]
    for job in jobs:
        lab.wait_reported(job)
    asked = time.monotonic()
    dispatcher.drain()
    assert time.monotonic() - asked < 10.0
    assert not worker_pids()
    assert [lab.get(job).state for job in jobs] == [State.QUEUED, State.QUEUED]
    for _ in range(3):  # not counted: a third drain does not fail it
        again = lab.dispatcher(limits=limits)
        lab.wait_reported(jobs[0])
        again.drain()
    assert lab.get(jobs[0]).state is State.QUEUED


class _SlowStore(SqlJobStore):
    """Takes its time with progress."""

    asked, answers = threading.Event(), threading.Event()

    def record_progress(self, **how: Any) -> None:
        """When it is let."""
        self.asked.set()
        self.answers.wait(20)
        super().record_progress(**how)


def test_a_drain_keeps_a_result_that_is_there(lab: Lab) -> None:
    """A worker that has finished and gone while a slow store was waited for: what it said last counts."""
    store = _SlowStore(f"sqlite:///{lab.folder / 'npn.sqlite'}")
    dispatcher = lab.dispatcher(store=store)
    job = lab.create("succeed")
    assert store.asked.wait(20)
    time.sleep(1)  # the worker ends
    drain = threading.Thread(target=dispatcher.drain)
    drain.start()
    time.sleep(0.2)
    store.answers.set()
    drain.join(20)
    assert (lab.get(job).state, lab.get(job).attempt) == (State.SUCCEEDED, 1)
    store.close()


def test_a_server_that_starts_again_takes_its_jobs_back(lab: Lab) -> None:
    """Jobs leased by this host before it died are requeued at the start, long before their leases pass."""
    job = lab.create("succeed")
    leased = lab.store.lease_job(host="here", lease_seconds=3600.0)
    assert leased is not None
    stored = lab.folder / "stored"
    stored.write_text("before the commit")
    lab.objects.put_file(leased.attempt_prefix + "facts.json", stored)
    lab.dispatcher()
    ended = lab.wait(job)
    assert (ended.state, ended.attempt) == (State.SUCCEEDED, 2)
    assert not lab.objects.list(leased.attempt_prefix)
    with pytest.raises(LostLease):
        lab.store.finish_job(job_id=job.id, attempt=1, result=RESULT)


def test_a_job_of_a_silent_server_is_taken_over(lab: Lab) -> None:
    """A job whose lease passed on another host is run here."""
    job = lab.create("succeed")
    assert lab.store.lease_job(host="elsewhere", lease_seconds=0.5) is not None
    lab.dispatcher(lease_seconds=1.0)
    ended = lab.wait(job)
    assert (ended.state, ended.attempt) == (State.SUCCEEDED, 2)


class _ShyStore(SqlJobStore):
    """A store that is out of reach for what can wait, and at first for what cannot."""

    refused = 0

    def get_job(self, *_: Any, **__: Any) -> Any:
        raise Unavailable("out of reach")

    record_progress = renew_leases = get_job

    def finish_job(self, **how: Any) -> Job:
        self.refused += 1
        if self.refused < 3:
            raise Unavailable("out of reach")
        return super().finish_job(**how)


def test_a_store_out_of_reach_costs_no_attempt(lab: Lab) -> None:
    """A job goes on while the store does not answer, and commits when it does again."""
    store = _ShyStore(f"sqlite:///{lab.folder / 'npn.sqlite'}")
    lab.dispatcher(store=store)
    job = lab.wait(lab.create("second"))
    assert (job.state, job.attempt) == (State.SUCCEEDED, 1)
    assert store.refused == 3
    lab.dispatchers[0].drain()
    store.close()


def test_a_store_out_of_reach_for_a_lease_ends_the_attempt(lab: Lab) -> None:
    """A worker whose lease may have passed unseen is ended: another may have begun."""
    store = _ShyStore(f"sqlite:///{lab.folder / 'npn.sqlite'}")
    lab.dispatcher(store=store, lease_seconds=1.0)
    lab.create("sleep")
    wait_until(lambda: "lost" in lab.observed.outcomes)
    lab.dispatchers[0].drain()
    store.close()


def test_a_worker_that_cannot_start_leaves_jobs_queued(lab: Lab) -> None:
    """While no worker gets warm no job is leased, so none is lost."""
    lab.dispatcher(target="no_such_module:run")
    job = lab.create("succeed")
    time.sleep(1.5)
    assert lab.get(job).state is State.QUEUED
    assert lab.get(job).attempt == 0


def test_an_idle_worker_that_dies_is_replaced(lab: Lab) -> None:
    """Killing the idle worker costs no job anything."""
    lab.dispatcher()
    lab.wait(lab.create("succeed"))
    wait_until(lambda: len(worker_pids()) == 1)
    os.kill(worker_pids().pop(), 9)
    job = lab.wait(lab.create("succeed"))
    assert (job.state, job.attempt) == (State.SUCCEEDED, 1)


def test_a_killed_server_leaves_no_orphan(lab: Lab) -> None:
    """After kill -9 of the parent its workers are gone within five seconds, stuck and stopped ones included."""
    process = subprocess.Popen(
        [sys.executable, str(TESTS / "worker_parent.py")], stdout=subprocess.PIPE, text=True
    )
    with process:
        assert process.stdout is not None
        pids = json.loads(process.stdout.readline())
        assert len(pids) == 4
        assert all(alive(pid) for pid in pids)
        process.kill()
    wait_until(lambda: not any(alive(pid) for pid in pids), seconds=5.0)


def _has_open(pid: int, job: Job) -> bool:
    """Whether the process is the one that runs `job`: idle ones wait, so only it has a second thread."""
    return len(list(Path(f"/proc/{pid}/task").iterdir())) > 1


def test_an_attempt_that_ends_badly_keeps_its_last_lines(lab: Lab) -> None:
    """What happened, and the worker's own last words, without the folders of this machine."""
    lab.dispatcher()
    job = lab.wait(lab.create("blunder"))
    log = lab.store.get_log(owner=OWNER, job_id=job.id, attempt=None)
    text = "\n".join(log.lines)
    assert "attempt 1 began" in log.lines[0]
    assert "stage dense, step 1 of 100" in text
    assert "failed: DEFECT" in text
    assert 'File "worker_scripts.py"' in text
    assert "ValueError" in text
    assert str(TESTS) not in text
    assert str(lab.folder) not in text
    assert [point.progress.step for point in log.curve] == [1]


def test_every_lost_attempt_and_a_cancelled_one_keep_a_log(lab: Lab) -> None:
    """Each of three crashes has its own; a cancel shows when it was asked for."""
    lab.dispatcher()
    crashed = lab.wait(lab.create("sigkill"))
    for number in (1, 2, 3):
        log = lab.store.get_log(owner=OWNER, job_id=crashed.id, attempt=number)
        assert "SIGKILL" in log.lines[-1]
    job = lab.wait_reported(lab.create("obey"))
    lab.store.cancel_job(owner=OWNER, job_id=job.id)
    cancelled = lab.wait(job)
    assert cancelled.state is State.CANCELLED
    text = "\n".join(lab.store.get_log(owner=OWNER, job_id=job.id, attempt=1).lines)
    assert "cancel was asked for" in text


def test_nothing_is_leased_without_room(lab: Lab) -> None:
    """With too little free space jobs wait; they run when there is room again."""
    dispatcher = lab.dispatcher(min_free_bytes=1 << 62)
    job = lab.create("succeed")
    time.sleep(0.5)
    assert lab.get(job).state is State.QUEUED
    dispatcher._space = DiskSpace(lab.folder)
    assert lab.wait(job).state is State.SUCCEEDED


def test_a_full_disk_is_the_machines_fault(lab: Lab) -> None:
    """A worker that finds no room ends its attempt, not its job: another attempt follows."""
    lab.dispatcher()
    job = lab.wait(lab.create("no-room-once"))
    assert (job.state, job.attempt) == (State.SUCCEEDED, 2)
    assert "disk is full" in lab.store.get_log(owner=OWNER, job_id=job.id, attempt=1).cause
