"""What dispatchers do with jobs, over every JobStore."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from job_samples import ERROR, PLAN, RESULT, SPEC, create, lease, progress_at

from npn_service.errors import LostLease
from npn_service.jobs.model import ArtifactFile, Checkpoint, Job, State
from npn_service.jobs.store import JobStore

Publish = Callable[[JobStore, str, int], object]


def _renew(store: JobStore, job_id: str, attempt: int) -> None:
    """Renew one lease; a loss is told by what is missing in the answer."""
    if job_id not in store.renew_leases({job_id: attempt}, lease_seconds=60):
        raise LostLease("not renewed")


def checkpoint_at(attempt: int, step: int) -> Checkpoint:
    """A checkpoint of one file."""
    return Checkpoint(
        attempt=attempt, step=step, files=(ArtifactFile(path="state.json", size=2, sha256="0" * 64),)
    )


PUBLISHING: dict[str, Publish] = {
    "renew": lambda store, job, n: _renew(store, job, n),
    "plan": lambda store, job, n: store.record_plan(job_id=job, attempt=n, plan=PLAN),
    "progress": lambda store, job, n: store.record_progress(job_id=job, attempt=n, progress=progress_at(1)),
    "finish": lambda store, job, n: store.finish_job(job_id=job, attempt=n, result=RESULT),
    "fail": lambda store, job, n: store.fail_job(job_id=job, attempt=n, error=ERROR),
    "confirm": lambda store, job, n: store.confirm_cancel(job_id=job, attempt=n),
    "checkpoint": lambda store, job, n: store.record_checkpoint(
        job_id=job, attempt=n, checkpoint=checkpoint_at(n, 1)
    ),
    "release": lambda store, job, n: store.release_job(job_id=job, attempt=n, cause="x", counts=True),
}


def test_a_leased_job_runs(store: JobStore) -> None:
    """A lease begins attempt 1 and stamps the start; the job waits for nothing any more."""
    create(store)
    job = lease(store)
    assert (job.state, job.attempt, job.wait_reason) == (State.RUNNING, 1, "")
    assert job.start_time is not None
    assert job.attempt_prefix == f"jobs/{job.id}/attempts/1/"
    assert store.get_job(owner="local", job_id=job.id) == job


def test_a_job_gets_its_plan_later(store: JobStore) -> None:
    """One that was created without it; the event of its next state has it, and it has no event of its own."""
    store.create_job(owner="local", creator="local", spec=SPEC, plan=None, request_id="", request_hash="")
    job = lease(store)
    assert job.plan is None
    store.record_plan(job_id=job.id, attempt=1, plan=PLAN)
    assert store.get_job(owner="local", job_id=job.id) == replace(job, plan=PLAN)
    assert store.finish_job(job_id=job.id, attempt=1, result=RESULT).plan == PLAN
    newest = store.events_after(owner="local", job_id=job.id, sequence=job.sequence)
    assert [event.job and event.job.plan for event in newest] == [PLAN]


def test_the_line_goes_by_priority_then_age(store: JobStore) -> None:
    """Higher priority first; within one priority the oldest first."""
    low, first, second, high = (create(store, priority=priority).id for priority in (-1, 0, 0, 5))
    assert [lease(store).id for _ in range(4)] == [high, first, second, low]
    assert store.lease_job(host="host", lease_seconds=60) is None


def test_no_job_is_leased_twice(store: JobStore) -> None:
    """Eight threads that lease at once get each job exactly once."""
    ids = {create(store).id for _ in range(24)}

    def drain(_: int) -> list[str]:
        leased: list[str] = []
        while (job := store.lease_job(host="host", lease_seconds=60)) is not None:
            leased.append(job.id)
        return leased

    with ThreadPoolExecutor(8) as pool:
        leased = [job_id for part in pool.map(drain, range(8)) for job_id in part]
    assert len(leased) == len(ids)
    assert set(leased) == ids


def test_success_holds_the_result(store: JobStore) -> None:
    """finish_job ends the job with its result."""
    create(store)
    job = lease(store)
    ended = store.finish_job(job_id=job.id, attempt=1, result=RESULT)
    assert (ended.state, ended.result, ended.error) == (State.SUCCEEDED, RESULT, None)
    assert ended.end_time is not None
    assert store.get_job(owner="local", job_id=job.id) == ended


def test_failure_holds_the_error(store: JobStore) -> None:
    """fail_job ends the job with its error, and what it wrote may go."""
    create(store)
    job = lease(store)
    ended = store.fail_job(job_id=job.id, attempt=1, error=ERROR)
    assert (ended.state, ended.error) == (State.FAILED, ERROR)
    assert store.list_garbage() == [job.attempt_prefix]


def test_a_job_that_finishes_while_it_is_cancelled_has_succeeded(store: JobStore) -> None:
    """Work that was complete when the cancel arrived is not thrown away."""
    create(store)
    job = lease(store)
    store.cancel_job(owner="local", job_id=job.id)
    assert store.finish_job(job_id=job.id, attempt=1, result=RESULT).state is State.SUCCEEDED


def test_a_released_job_waits_for_its_next_attempt(store: JobStore) -> None:
    """A drain requeues: the reason says why, progress begins anew, the first start time stays."""
    create(store)
    first = lease(store)
    store.record_progress(job_id=first.id, attempt=1, progress=progress_at(1))
    queued = store.release_job(job_id=first.id, attempt=1, cause="the server shut down", counts=False)
    assert (queued.state, queued.progress) == (State.QUEUED, None)
    assert queued.wait_reason == "attempt 1 ended: the server shut down; waiting for a free worker"
    second = lease(store)
    assert (second.id, second.attempt, second.start_time) == (first.id, 2, first.start_time)


def test_the_third_lost_attempt_fails_the_job(store: JobStore) -> None:
    """A job that takes its workers down stops doing so, and drains do not count."""
    create(store)
    states = []
    for counts in (True, False, True, False, True):
        job = lease(store)
        cause = f"worker {job.attempt} died"
        released = store.release_job(job_id=job.id, attempt=job.attempt, cause=cause, counts=counts)
        states.append(released.state)
    assert states == [State.QUEUED] * 4 + [State.FAILED]
    assert released.error is not None
    assert released.error.reason == "ATTEMPTS_EXHAUSTED"
    assert "worker 5 died" in released.error.message


def record(store: JobStore, job: Job, step: int) -> Checkpoint:
    """The job's current attempt records one."""
    made = checkpoint_at(job.attempt, step)
    store.record_checkpoint(job_id=job.id, attempt=job.attempt, checkpoint=made)
    return made


def lose(store: JobStore, job: Job) -> Job:
    """The job's current attempt dies."""
    return store.release_job(job_id=job.id, attempt=job.attempt, cause="it died", counts=True)


def test_a_newer_checkpoint_begins_the_count_anew(store: JobStore) -> None:
    """Attempts that die with progress never add up; one that only repeats a step has made none."""
    create(store)
    for step in (10, 20, 30, 40):
        job = lease(store)
        made = record(store, job, step)
        assert lose(store, job).state is State.QUEUED
    assert lose(store, lease(store)).state is State.QUEUED
    last = lease(store)
    assert last.checkpoint == made
    record(store, last, 40)
    failed = lose(store, last)
    assert failed.state is State.FAILED
    assert failed.error is not None
    assert failed.error.message.startswith("3 attempts in a row died without a newer checkpoint")


def test_an_older_checkpoint_goes_when_a_newer_one_is_recorded(store: JobStore) -> None:
    """Within an attempt the one folder, of an earlier attempt all that is left of it; repeating changes nothing."""
    create(store)
    first = lease(store)
    for step in (1, 2, 2):
        record(store, first, step)
    assert store.list_garbage() == [f"{first.attempt_prefix}checkpoints/1/"]
    store.forget_garbage(f"{first.attempt_prefix}checkpoints/1/")
    lose(store, first)
    assert store.list_garbage() == []  # the checkpoint lives in it
    second = lease(store)
    record(store, second, 3)
    assert store.list_garbage() == [first.attempt_prefix]


@pytest.mark.parametrize("end", ["succeeded", "failed", "cancelled", "cancelled in the queue"])
def test_no_checkpoint_outlives_its_job(store: JobStore, end: str) -> None:
    """Whatever its end: what is left is the artifact, and that of a success alone."""
    create(store)
    first = lease(store)
    record(store, first, 1)
    queued = lose(store, first)
    match end:
        case "cancelled in the queue":
            ended = store.cancel_job(owner="local", job_id=queued.id)
            expected = [first.attempt_prefix]
        case "succeeded":
            second = lease(store)
            ended = store.finish_job(job_id=second.id, attempt=2, result=RESULT)
            expected = [first.attempt_prefix, f"{second.attempt_prefix}checkpoints/"]
        case "failed":
            second = lease(store)
            ended = store.fail_job(job_id=second.id, attempt=2, error=ERROR)
            expected = [first.attempt_prefix, second.attempt_prefix]
        case _:
            second = lease(store)
            store.cancel_job(owner="local", job_id=second.id)
            ended = store.confirm_cancel(job_id=second.id, attempt=2)
            expected = [first.attempt_prefix, second.attempt_prefix]
    assert ended.checkpoint is None
    assert sorted(store.list_garbage()) == expected


def test_a_lease_that_passes_does_not_count(store: JobStore) -> None:
    """A killed server, a lost node: never the job's fault, however often."""
    create(store)
    for _ in range(4):
        lease(store, seconds=0.01)
        time.sleep(0.02)
        (released,) = store.expire_leases()
        assert released.state is State.QUEUED


def test_releasing_a_cancelling_job_cancels_it(store: JobStore) -> None:
    """Nobody starts a job again that was to be cancelled."""
    create(store)
    job = lease(store)
    store.cancel_job(owner="local", job_id=job.id)
    released = store.release_job(job_id=job.id, attempt=1, cause="drained", counts=False)
    assert released.state is State.CANCELLED


def test_an_expired_lease_requeues_the_job(store: JobStore) -> None:
    """A silent worker loses its job; one that was heard of in time keeps it."""
    create(store)
    create(store)
    silent, heard = lease(store, seconds=1.0), lease(store, seconds=60)
    assert store.renew_leases({heard.id: 1}, lease_seconds=60) == {heard.id: State.RUNNING}
    time.sleep(1.0)
    released = store.expire_leases()
    assert [(job.id, job.state) for job in released] == [(silent.id, State.QUEUED)]
    assert store.get_job(owner="local", job_id=heard.id).state is State.RUNNING
    assert store.expire_leases() == []


def test_a_server_that_starts_gives_back_what_it_held(store: JobStore) -> None:
    """Leases of a host that died are released before they pass; those of other hosts stay."""
    for host in ("mine", "other"):
        create(store)
        store.lease_job(host=host, lease_seconds=60)
    (released,) = store.expire_leases(host="mine")
    assert released.state is State.QUEUED
    assert store.count_by_state()[State.RUNNING] == 1


def lost_to_another(store: JobStore) -> Job:
    """The job runs again, as another attempt."""
    job = lost_to_the_queue(store)
    lease(store)
    return job


def lost_to_the_queue(store: JobStore) -> Job:
    """The job waits again."""
    create(store)
    job = lease(store)
    store.release_job(job_id=job.id, attempt=job.attempt, cause="lost", counts=True)
    return job


def lost_to_the_end(store: JobStore) -> Job:
    """The job is over."""
    create(store)
    job = lease(store)
    store.cancel_job(owner="local", job_id=job.id)
    store.confirm_cancel(job_id=job.id, attempt=job.attempt)
    return job


@pytest.mark.parametrize("publish", PUBLISHING.values(), ids=PUBLISHING)
@pytest.mark.parametrize("lose", [lost_to_another, lost_to_the_queue, lost_to_the_end])
def test_a_worker_that_lost_its_lease_publishes_nothing(
    store: JobStore, publish: Publish, lose: Callable[[JobStore], Job]
) -> None:
    """Whatever it calls, it hears LostLease, and the job and its events stay as they are."""
    lost = lose(store)
    before = store.get_job(owner="local", job_id=lost.id)
    with pytest.raises(LostLease):
        publish(store, lost.id, lost.attempt)
    assert store.get_job(owner="local", job_id=lost.id) == before


def test_of_two_that_end_an_attempt_one_wins(store: JobStore) -> None:
    """Racing publications of one attempt: one is stored, every other is LostLease."""
    create(store)
    job = lease(store)

    def end(index: int) -> bool:
        try:
            if index % 2:
                store.finish_job(job_id=job.id, attempt=1, result=RESULT)
            else:
                store.release_job(job_id=job.id, attempt=1, cause="drained", counts=False)
        except LostLease:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(end, range(8))) == 1
    events = store.events_after(owner="local", job_id=job.id, sequence=0)
    assert [event.sequence for event in events] == [1, 2, 3]
