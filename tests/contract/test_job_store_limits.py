"""What one owner may have, what is over, and what is kept of attempts, over every JobStore."""

import itertools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from job_samples import ERROR, RESULT, create, lease, progress_at

from npn_service.errors import LimitExceeded, NotFound
from npn_service.jobs.limits import OwnerLimits
from npn_service.jobs.model import ArtifactFile, FileSpec, Job, Resources, State, Upload
from npn_service.jobs.store import JobFilter, JobStore

OpenStore = Callable[..., JobStore]


def begin(
    store: JobStore, size: int, *, owner: str = "local", request_id: str = "", name: str = "a"
) -> Upload:
    """An upload of one file."""
    files = [FileSpec(path=name, size=size, sha256="0" * 64)]
    return store.create_upload(owner=owner, files=files, request_id=request_id, lifetime_seconds=60)


def end(store: JobStore, job: Job) -> Job:
    """The job, cancelled."""
    return store.cancel_job(owner=job.owner, job_id=job.id)


def test_a_full_queue_takes_no_more_of_its_owner(open_store: OpenStore) -> None:
    """The refusal has the numbers; another owner, and a repeated request, are not touched by it."""
    store = open_store(limits=OwnerLimits(queued_jobs=2))
    first = create(store, request_id="one")
    create(store)
    for refuse in (lambda: create(store), lambda: store.require_place_in_queue(owner="local")):
        with pytest.raises(LimitExceeded) as refused:
            refuse()
    quota = refused.value.quota
    assert quota is not None
    assert (refused.value.reason, quota.limit, quota.used) == ("QUEUED_JOBS_LIMIT", 2, 2)
    assert create(store, owner="bob").state is State.QUEUED
    assert create(store, request_id="one") == first
    lease(store)
    store.require_place_in_queue(owner="local")
    assert create(store).state is State.QUEUED


def test_two_creates_at_once_do_not_pass_the_limit(open_store: OpenStore) -> None:
    """However many calls come together, as many jobs are queued as the owner may have."""
    store = open_store(limits=OwnerLimits(queued_jobs=5))

    def attempt(_: int) -> bool:
        try:
            create(store)
        except LimitExceeded:
            return False
        return True

    with ThreadPoolExecutor(8) as threads:
        assert sum(threads.map(attempt, range(24))) == 5


def test_running_jobs_hold_back_their_owner_alone(open_store: OpenStore) -> None:
    """An owner at its limit waits and says so; others are leased past it, and it goes on when a job ends."""
    store = open_store(limits=OwnerLimits(running_jobs=1))
    store.beat_host(host="host", capacity=Resources(cpus=8))
    first, second = create(store), create(store)
    other = create(store, owner="bob")
    assert lease(store).id == first.id
    assert lease(store).id == other.id
    assert store.lease_job(host="host", lease_seconds=60) is None
    assert "1 are running, of at most 1" in store.get_job(owner="local", job_id=second.id).wait_reason
    listed, _ = store.list_jobs(owner=None, where=JobFilter(), page_size=3, page_token="")
    assert [job.id for job in listed if "waiting for your own jobs" in job.wait_reason] == [second.id]
    store.fail_job(job_id=first.id, attempt=1, error=ERROR)
    assert "running" not in store.get_job(owner="local", job_id=second.id).wait_reason
    assert lease(store).id == second.id


def test_two_leases_at_once_do_not_pass_the_limit(open_store: OpenStore) -> None:
    """However many servers ask together, an owner runs as many jobs as it may."""
    store = open_store(limits=OwnerLimits(running_jobs=2))
    for _ in range(12):
        create(store)
    with ThreadPoolExecutor(8) as threads:
        leased = list(threads.map(lambda _: store.lease_job(host="host", lease_seconds=60), range(24)))
    assert len([job for job in leased if job is not None]) == 2


def test_bytes_are_reserved_when_an_upload_begins(open_store: OpenStore) -> None:
    """Announced bytes count until the upload goes; complete ones as the object; a repeat asks for nothing."""
    store = open_store(limits=OwnerLimits(stored_bytes=100))
    upload = begin(store, 60, request_id="one")
    with pytest.raises(LimitExceeded) as refused:
        begin(store, 41, name="b")
    quota = refused.value.quota
    assert quota is not None
    assert (refused.value.reason, quota.limit, quota.used, quota.asked) == ("STORED_BYTES_LIMIT", 100, 60, 41)
    assert begin(store, 60, request_id="one") == upload
    begin(store, 100, owner="bob")
    store.complete_upload(owner="local", upload_id=upload.id, object_id=upload.id)
    with pytest.raises(LimitExceeded):
        begin(store, 41, name="b")
    assert begin(store, 60).object_id == upload.id  # the same bytes are there already
    open_one = begin(store, 40, name="c")
    store.delete_upload(owner="local", upload_id=open_one.id)
    begin(store, 40, name="d")


def test_artifacts_count_as_stored(open_store: OpenStore) -> None:
    """A job's files are its owner's until the job is deleted."""
    store = open_store(limits=OwnerLimits(stored_bytes=100))
    job = create(store)
    file = ArtifactFile(path="model.pt2", size=90, sha256="0" * 64)
    store.finish_job(job_id=lease(store).id, attempt=1, result=replace(RESULT, files=(file,)))
    with pytest.raises(LimitExceeded):
        begin(store, 11)
    store.delete_job(owner="local", job_id=job.id)
    begin(store, 11)


def test_finished_jobs_go_after_their_time(store: JobStore) -> None:
    """Those that ended long ago go with their bytes noted as garbage; unfinished and younger ones stay."""
    waiting, over = create(store), create(store)
    end(store, over)
    assert store.expire_jobs(retention_seconds=3600) == []
    dry = store.expire_jobs(retention_seconds=0, dry_run=True)
    assert [removal.prefix for removal in dry] == [over.prefix]
    assert store.get_job(owner="local", job_id=over.id).state is State.CANCELLED
    assert store.list_garbage() == []
    assert store.expire_jobs(retention_seconds=0) == dry
    with pytest.raises(NotFound):
        store.get_job(owner="local", job_id=over.id)
    assert store.get_job(owner="local", job_id=waiting.id).state is State.QUEUED
    assert store.list_garbage() == [over.prefix]


def test_a_dry_run_expires_nothing(store: JobStore) -> None:
    """It tells what would go, and the upload is there afterwards."""
    upload = store.create_upload(
        owner="local", files=[FileSpec(path="a", size=1, sha256="0" * 64)], request_id="", lifetime_seconds=-1
    )
    told = store.expire_uploads(dry_run=True)
    assert [removal.prefix for removal in told] == [upload.prefix]
    assert store.get_upload(owner="local", upload_id=upload.id) == upload
    assert store.expire_uploads() == told
    assert store.expire_uploads() == []


def test_what_exists_is_found_for_every_owner(store: JobStore) -> None:
    """Jobs by id; uploads and the objects that they became."""
    job, upload = create(store, owner="bob"), begin(store, 1, owner="bob")
    store.complete_upload(owner="bob", upload_id=upload.id, object_id="object")
    assert store.find_jobs([job.id, "none"]) == {job.id: job}
    assert set(store.find_uploads([upload.id, "object", "none"])) == {upload.id, "object"}


def test_the_log_of_an_attempt_is_kept(store: JobStore) -> None:
    """Lines, cause and times of the newest attempt, or of the one that is named, for the job's owner alone."""
    job = create(store)
    assert store.get_log(owner="local", job_id=job.id, attempt=None).attempt == 0
    lease(store)
    store.record_log(job_id=job.id, attempt=1, log="one\ntwo")
    store.release_job(job_id=job.id, attempt=1, cause="it crashed", counts=True)
    lease(store)
    store.fail_job(job_id=job.id, attempt=2, error=ERROR)
    first = store.get_log(owner="local", job_id=job.id, attempt=1)
    assert (first.lines, first.cause) == (("one", "two"), "it crashed")
    assert first.start_time is not None
    assert first.end_time is not None
    newest = store.get_log(owner="local", job_id=job.id, attempt=None)
    assert (newest.attempt, newest.lines, newest.cause) == (2, (), ERROR.message)
    assert store.get_log(owner=None, job_id=job.id, attempt=2) == newest
    for owner, attempt in (("bob", 1), ("bob", None), ("local", 3)):
        with pytest.raises(NotFound):
            store.get_log(owner=owner, job_id=job.id, attempt=attempt)


def test_the_curve_is_kept_until_the_job_succeeds(store: JobStore) -> None:
    """Points lie a second apart at least; a failed job keeps them, one that succeeded has them in its artifact."""
    failed, succeeded = create(store), create(store)
    for job in (failed, succeeded):
        assert lease(store).id == job.id
        for step in (1, 2, 3):
            store.record_progress(job_id=job.id, attempt=1, progress=progress_at(step))
        curve = store.get_log(owner="local", job_id=job.id, attempt=1).curve
        assert curve[0].progress == progress_at(1)
        assert len(curve) <= 3
        gaps = [after.time - before.time for before, after in itertools.pairwise(curve)]
        assert all(gap.total_seconds() >= 1 for gap in gaps)
    store.fail_job(job_id=failed.id, attempt=1, error=ERROR)
    store.finish_job(job_id=succeeded.id, attempt=1, result=RESULT)
    assert store.get_log(owner="local", job_id=failed.id, attempt=None).curve
    assert not store.get_log(owner="local", job_id=succeeded.id, attempt=None).curve
