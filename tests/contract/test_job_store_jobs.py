"""What owners do with jobs, over every JobStore."""

import base64
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from job_samples import ERROR, PLAN, RESULT, SPEC, create, lease

from npn_service.errors import AlreadyExists, InvalidRequest, NotFound, WrongState
from npn_service.jobs.model import Job, State
from npn_service.jobs.store import JobFilter, JobStore

ALL = JobFilter()


def list_ids(store: JobStore, where: JobFilter = ALL, page_size: int = 100) -> list[str]:
    """The ids of all pages, in order."""
    ids: list[str] = []
    token = ""
    while True:
        jobs, token = store.list_jobs(owner="local", where=where, page_size=page_size, page_token=token)
        ids += [job.id for job in jobs]
        if not token:
            return ids


def test_a_created_job_is_queued_and_read_back_whole(store: JobStore) -> None:
    """What was accepted is what is stored: spec, plan, owner, and why the job waits."""
    before = datetime.now(UTC)
    job = create(store)
    assert job == store.get_job(owner="local", job_id=job.id)
    assert (job.state, job.spec, job.plan, job.sequence, job.attempt) == (State.QUEUED, SPEC, PLAN, 1, 0)
    assert job.wait_reason == "waiting for a free worker"
    assert before <= job.create_time <= datetime.now(UTC)


def test_a_job_outlives_the_store(open_store: Callable[..., JobStore]) -> None:
    """A store opened later on the same database finds the job."""
    first = open_store()
    job = create(first)
    first.close()
    assert open_store().get_job(owner="local", job_id=job.id) == job


def test_another_owners_job_is_not_found(store: JobStore) -> None:
    """To a stranger a job is as absent as one that never was, in every call."""
    job = create(store, owner="alice")
    calls: list[Callable[[], object]] = [
        lambda: store.get_job(owner="bob", job_id=job.id),
        lambda: store.cancel_job(owner="bob", job_id=job.id),
        lambda: store.delete_job(owner="bob", job_id=job.id),
        lambda: store.events_after(owner="bob", job_id=job.id, sequence=0),
    ]
    for call in calls:
        with pytest.raises(NotFound):
            call()
    assert store.list_jobs(owner="bob", where=ALL, page_size=10, page_token="") == ([], "")
    assert store.get_job(owner="alice", job_id=job.id) == job


def test_no_owner_stands_for_every_owner(store: JobStore) -> None:
    """An admin finds, lists, cancels and deletes what any owner has; a filter narrows the list to one."""
    jobs = [create(store, owner=owner) for owner in ("alice", "bob")]
    listed, _ = store.list_jobs(owner=None, where=ALL, page_size=10, page_token="")
    assert {job.owner for job in listed} == {"alice", "bob"}
    only_bob, _ = store.list_jobs(owner=None, where=JobFilter(owner="bob"), page_size=10, page_token="")
    assert [job.id for job in only_bob] == [jobs[1].id]
    assert store.list_jobs(owner="alice", where=JobFilter(owner="bob"), page_size=10, page_token="") == (
        [],
        "",
    )
    _, token = store.list_jobs(owner=None, where=ALL, page_size=1, page_token="")
    with pytest.raises(InvalidRequest):
        store.list_jobs(owner=None, where=JobFilter(owner="bob"), page_size=1, page_token=token)
    for job in jobs:
        assert store.get_job(owner=None, job_id=job.id) == job
        store.cancel_job(owner=None, job_id=job.id)
        store.delete_job(owner=None, job_id=job.id)
        with pytest.raises(NotFound):
            store.get_job(owner=None, job_id=job.id)


def test_the_same_request_gives_the_same_job(store: JobStore) -> None:
    """A repeated call makes nothing, also after the job went on."""
    job = create(store, request_id="one")
    lease(store)
    again = create(store, request_id="one")
    assert again.id == job.id
    assert again.state is State.RUNNING
    assert list_ids(store) == [job.id]
    assert store.find_request(owner="local", request_id="one", request_hash="hash") == again


def test_one_request_sent_by_many_threads_makes_one_job(store: JobStore) -> None:
    """Racing repeats of one request all get the same job."""
    with ThreadPoolExecutor(8) as pool:
        jobs = list(pool.map(lambda _: create(store, request_id="one"), range(16)))
    assert len({job.id for job in jobs}) == 1


def test_a_request_id_used_for_another_request_is_refused(store: JobStore) -> None:
    """The same id with another hash is ALREADY_EXISTS, for the same owner alone."""
    create(store, request_id="one")
    other = {"creator": "x", "spec": SPEC, "plan": PLAN, "request_id": "one", "request_hash": "other"}
    with pytest.raises(AlreadyExists):
        store.create_job(owner="local", **other)
    with pytest.raises(AlreadyExists):
        store.find_request(owner="local", request_id="one", request_hash="other")
    assert store.create_job(owner="another", **other).owner == "another"


def test_requests_without_an_id_make_a_job_each(store: JobStore) -> None:
    """An empty request_id is no request_id."""
    assert create(store).id != create(store).id
    assert store.find_request(owner="local", request_id="", request_hash="hash") is None


def test_the_request_of_a_deleted_job_stays_known(store: JobStore) -> None:
    """A late repeat does not run a deleted job again."""
    job = create(store, request_id="one")
    store.cancel_job(owner="local", job_id=job.id)
    store.delete_job(owner="local", job_id=job.id)
    with pytest.raises(WrongState) as refused:
        create(store, request_id="one")
    assert refused.value.reason == "JOB_DELETED"


def test_pages_are_newest_first_and_whole(store: JobStore) -> None:
    """Every page size gives every job once, in the same order."""
    ids = [create(store).id for _ in range(7)]
    for size in (1, 2, 3, 7, 8):
        assert list_ids(store, page_size=size) == ids[::-1]


def test_pages_are_stable_while_jobs_come_and_go(store: JobStore) -> None:
    """Inserting newer jobs and deleting read ones neither repeats nor skips a job."""
    ids = [create(store).id for _ in range(6)]
    first, token = store.list_jobs(owner="local", where=ALL, page_size=3, page_token="")
    create(store)
    store.cancel_job(owner="local", job_id=first[2].id)
    store.delete_job(owner="local", job_id=first[2].id)
    second, end = store.list_jobs(owner="local", where=ALL, page_size=3, page_token=token)
    assert [job.id for job in (*first, *second)] == ids[::-1]
    assert end == ""


@pytest.mark.parametrize("token", ["nonsense", "é", "WzEsMl0=", "bnVsbA=="])
def test_a_token_that_is_none_is_refused(store: JobStore, token: str) -> None:
    """Garbage in page_token is the caller's error, naming the field."""
    with pytest.raises(InvalidRequest) as refused:
        store.list_jobs(owner="local", where=ALL, page_size=1, page_token=token)
    assert refused.value.violations[0].field == "page_token"


@pytest.mark.parametrize(
    "place",
    [
        ["0001-01-01T00:00:00+23:00", "a"],
        ["2026-01-01T00:00:00+00:00", 7],
        ["2026-01-01T00:00:00+00:00", "\0"],
    ],
)
def test_a_token_whose_place_was_changed_is_refused(store: JobStore, place: list[object]) -> None:
    """What it is bound to can be read in it; what else it says is not believed."""
    create(store)
    create(store)
    _, token = store.list_jobs(owner="local", where=ALL, page_size=1, page_token="")
    binding = json.loads(base64.urlsafe_b64decode(token))[0]
    changed = base64.urlsafe_b64encode(json.dumps([binding, *place]).encode()).decode()
    with pytest.raises(InvalidRequest):
        store.list_jobs(owner="local", where=ALL, page_size=1, page_token=changed)


def test_a_token_is_bound_to_its_filter(store: JobStore) -> None:
    """A token of one filter, or of one owner, is refused with another."""
    create(store)
    create(store)
    _, token = store.list_jobs(owner="local", where=ALL, page_size=1, page_token="")
    with pytest.raises(InvalidRequest):
        store.list_jobs(owner="local", where=JobFilter(state=State.QUEUED), page_size=1, page_token=token)
    with pytest.raises(InvalidRequest):
        store.list_jobs(owner="bob", where=ALL, page_size=1, page_token=token)


def test_filters_on_state_labels_and_time(store: JobStore) -> None:
    """Each filter shows its jobs alone, and filters join by AND."""
    first = create(store, labels={"team": "a", "run": "1"})
    second = create(store, labels={"team": "a", "run": "2"})
    third = create(store, labels={"team": "b", "run": "2"})
    store.cancel_job(owner="local", job_id=second.id)
    assert list_ids(store, JobFilter(state=State.CANCELLED)) == [second.id]
    assert list_ids(store, JobFilter(labels={"team": "a"})) == [second.id, first.id]
    assert list_ids(store, JobFilter(labels={"team": "a", "run": "2"})) == [second.id]
    assert list_ids(store, JobFilter(labels={"team": "2"})) == []
    assert list_ids(store, JobFilter(state=State.QUEUED, labels={"run": "2"})) == [third.id]
    assert list_ids(store, JobFilter(created_from=second.create_time)) == [third.id, second.id]
    assert list_ids(store, JobFilter(created_to=second.create_time)) == [second.id, first.id]
    later = third.create_time + timedelta(seconds=1)
    assert list_ids(store, JobFilter(created_from=later)) == []


def test_cancel_of_a_queued_job_ends_it(store: JobStore) -> None:
    """A job that nobody runs is CANCELLED at once and is never leased; a repeat changes nothing."""
    job = create(store)
    cancelled = store.cancel_job(owner="local", job_id=job.id)
    assert cancelled.state is State.CANCELLED
    assert cancelled.end_time is not None
    assert cancelled.wait_reason == ""
    assert store.cancel_job(owner="local", job_id=job.id) == cancelled
    assert store.lease_job(host="host", lease_seconds=60) is None


def test_cancel_of_a_running_job_asks_its_worker(store: JobStore) -> None:
    """A running job is CANCELLING until its worker confirms; a repeat changes nothing."""
    create(store)
    job = lease(store)
    asked = store.cancel_job(owner="local", job_id=job.id)
    assert asked.state is State.CANCELLING
    assert store.cancel_job(owner="local", job_id=job.id) == asked
    assert store.renew_leases({job.id: 1}, lease_seconds=60) == {job.id: State.CANCELLING}
    assert store.confirm_cancel(job_id=job.id, attempt=1).state is State.CANCELLED


def end_well(store: JobStore, job: Job) -> Job:
    """SUCCEEDED."""
    return store.finish_job(job_id=job.id, attempt=job.attempt, result=RESULT)


def end_badly(store: JobStore, job: Job) -> Job:
    """FAILED."""
    return store.fail_job(job_id=job.id, attempt=job.attempt, error=ERROR)


@pytest.mark.parametrize("end", [end_well, end_badly])
def test_a_finished_job_cannot_be_cancelled(store: JobStore, end: Callable[[JobStore, Job], Job]) -> None:
    """What is over stays as it ended."""
    create(store)
    ended = end(store, lease(store))
    with pytest.raises(WrongState):
        store.cancel_job(owner="local", job_id=ended.id)
    assert store.get_job(owner="local", job_id=ended.id) == ended


def test_delete_only_after_the_end(store: JobStore) -> None:
    """A queued, running or cancelling job cannot be deleted; a finished one leaves nothing but garbage."""
    job = create(store)
    with pytest.raises(WrongState):
        store.delete_job(owner="local", job_id=job.id)
    lease(store)
    with pytest.raises(WrongState):
        store.delete_job(owner="local", job_id=job.id)
    store.cancel_job(owner="local", job_id=job.id)
    with pytest.raises(WrongState):
        store.delete_job(owner="local", job_id=job.id)
    store.confirm_cancel(job_id=job.id, attempt=1)
    store.delete_job(owner="local", job_id=job.id)
    with pytest.raises(NotFound):
        store.get_job(owner="local", job_id=job.id)
    assert f"jobs/{job.id}/" in store.list_garbage()


def test_counts_cover_every_state_and_owner(store: JobStore) -> None:
    """Each state has its number, also 0."""
    create(store, owner="alice")
    create(store, owner="bob")
    lease(store)
    counts = store.count_by_state()
    assert set(counts) == set(State)
    assert (counts[State.QUEUED], counts[State.RUNNING], counts[State.FAILED]) == (1, 1, 0)
