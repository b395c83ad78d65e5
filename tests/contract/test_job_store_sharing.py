"""Several servers on one database: the queue, the leases and the book of attempts, over every JobStore."""

import multiprocessing
import re
import threading
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest
import sqlalchemy as sa
from job_samples import ERROR, RESULT, create, lease
from postgres_server import PostgresServer
from sqlalchemy.exc import IntegrityError
from test_job_store_attempts import PUBLISHING, Publish

import npn_service.jobs
from npn_service.errors import LostLease
from npn_service.jobs.database import Database
from npn_service.jobs.model import FileSpec, Job, Outcome, Resources, State
from npn_service.jobs.schema import attempts
from npn_service.jobs.sql_store import SqlJobStore
from npn_service.jobs.store import JobStore

ANY = Resources(cpus=64, gpus=8, memory_bytes=1 << 40)


def lease_all(url: str, host: str) -> list[str]:
    """Lease until the queue is empty, in a process of its own."""
    store = SqlJobStore(url, answer_seconds=60.0)
    leased = []
    while (job := store.lease_job(host=host, lease_seconds=60, free=ANY)) is not None:
        leased.append(job.id)
    store.close()
    return leased


def test_processes_share_the_queue(store: JobStore, database_url: str) -> None:
    """Three processes that lease at once get each job exactly once, whoever asks for it."""
    made = [create(store, owner=f"owner {index % 5}") for index in range(60)]
    created = {job.id: job for job in made}
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(3, mp_context=spawn) as pool:
        parts = list(pool.map(lease_all, [database_url] * 3, ["a", "b", "c"]))
    leased = [job_id for part in parts for job_id in part]
    assert len(leased) == 60
    assert set(leased) == created.keys()
    for job in created.values():
        assert len(store.list_attempts(owner=job.owner, job_id=job.id)) == 1


def test_owners_take_turns(store: JobStore) -> None:
    """One owner's long queue does not hold up another's; within an owner the oldest goes first."""
    mine = [create(store, owner="alice").id for _ in range(4)]
    yours = [create(store, owner="bob").id for _ in range(2)]
    leased = [lease(store).id for _ in range(6)]
    assert leased == [mine[0], yours[0], mine[1], yours[1], mine[2], mine[3]]


def test_an_owner_who_comes_late_is_next(store: JobStore) -> None:
    """Who never had a turn goes before all who had one."""
    for _ in range(3):
        create(store, owner="alice")
    lease(store)
    late = create(store, owner="carol")
    assert lease(store).id == late.id


def test_priority_goes_before_turns(store: JobStore) -> None:
    """An owner's urgent jobs run first even though it is another's turn."""
    urgent = [create(store, owner="alice", priority=1).id for _ in range(2)]
    normal = create(store, owner="bob").id
    assert [lease(store).id for _ in range(3)] == [*urgent, normal]


@pytest.mark.parametrize(
    "asked", [Resources(cpus=5), Resources(gpus=1), Resources(memory_bytes=(8 << 30) + 1)], ids=str
)
def test_a_job_that_does_not_fit_is_passed_over(store: JobStore, asked: Resources) -> None:
    """A host leases what fits into what it has free, and leaves the rest to larger hosts."""
    free = Resources(cpus=4, gpus=0, memory_bytes=8 << 30)
    large, small = create(store, resources=asked, priority=1), create(store, resources=Resources(cpus=4))
    leased = store.lease_job(host="small", lease_seconds=60, free=free)
    assert leased is not None
    assert leased.id == small.id
    assert store.lease_job(host="small", lease_seconds=60, free=free) is None
    leased = store.lease_job(host="large", lease_seconds=60, free=ANY)
    assert leased is not None
    assert leased.id == large.id


def test_a_job_that_no_host_fits_says_so(store: JobStore) -> None:
    """wait_reason names what is asked and what there is, in GetJob and ListJobs, until a host comes that fits."""
    job = create(store, resources=Resources(gpus=2))
    expected = "no host fits: the job asks for 2 GPUs, the hosts have 4 CPUs, 8589934592 bytes of memory"
    assert job.wait_reason == expected
    assert store.get_job(owner="local", job_id=job.id).wait_reason == expected
    store.beat_host(host="large", capacity=ANY)
    assert store.get_job(owner="local", job_id=job.id).wait_reason == "waiting for a free worker"
    store.forget_host("large")
    assert store.get_job(owner="local", job_id=job.id).wait_reason == expected


def test_without_a_host_jobs_say_so(open_store: Callable[..., JobStore]) -> None:
    """Jobs that wait for a host that runs jobs are not told that they wait for a free worker."""
    store = open_store()
    assert create(store).wait_reason == "no host that runs jobs is up"


@pytest.mark.parametrize("publish", PUBLISHING.values(), ids=PUBLISHING)
def test_after_its_lease_an_attempt_publishes_nothing(store: JobStore, publish: Publish) -> None:
    """Also where nobody noticed yet that it passed: the job stays as it is until it is taken back."""
    create(store)
    job = lease(store, seconds=0.01)
    time.sleep(0.05)
    with pytest.raises(LostLease):
        publish(store, job.id, 1)
    assert store.get_job(owner="local", job_id=job.id) == job
    (released,) = store.expire_leases()
    assert (released.id, released.state) == (job.id, State.QUEUED)


def test_leases_are_renewed_together(store: JobStore) -> None:
    """One call renews all; a job that another attempt has, or whose lease passed, is missing in the answer."""
    for _ in range(4):
        create(store)
    kept, cancelled, passed, lost = lease(store), lease(store), lease(store, seconds=0.01), lease(store)
    store.cancel_job(owner="local", job_id=cancelled.id)
    store.release_job(job_id=lost.id, attempt=1, cause="x", counts=False)
    lease(store)
    time.sleep(0.05)
    states = store.renew_leases({job.id: 1 for job in (kept, cancelled, passed, lost)}, lease_seconds=60)
    assert states == {kept.id: State.RUNNING, cancelled.id: State.CANCELLING}
    assert store.renew_leases({}, lease_seconds=60) == {}


def test_every_attempt_is_in_the_book(store: JobStore) -> None:
    """Its host, times, outcome and cause; exactly one succeeds, and the book goes with the job."""
    create(store)
    job = lease(store)
    store.release_job(job_id=job.id, attempt=1, cause="the server shut down", counts=False)
    lease(store)
    (running,) = [
        record for record in store.list_attempts(owner="local", job_id=job.id) if record.outcome is None
    ]
    assert (running.number, running.end_time, running.cause) == (2, None, "")
    store.finish_job(job_id=job.id, attempt=2, result=RESULT)
    first, second = store.list_attempts(owner="local", job_id=job.id)
    assert (first.number, first.outcome, first.cause) == (1, Outcome.RELEASED, "the server shut down")
    assert (second.number, second.outcome, second.cause) == (2, Outcome.SUCCEEDED, "")
    assert first.host == "host"
    assert first.end_time is not None
    assert first.start_time <= first.end_time <= second.start_time
    store.delete_job(owner="local", job_id=job.id)
    create(store)
    assert store.list_attempts(owner="local", job_id=lease(store).id)[0].number == 1


def test_an_attempt_that_was_lost_ended_with_its_lease(store: JobStore) -> None:
    """However long nobody was there to notice."""
    create(store)
    job = lease(store, seconds=0.5)
    time.sleep(1.5)
    store.expire_leases()
    (record,) = store.list_attempts(owner="local", job_id=job.id)
    assert record.end_time is not None
    assert 0.4 < (record.end_time - record.start_time).total_seconds() < 1.0


@pytest.mark.parametrize(
    ("end", "outcome"),
    [
        (lambda store, job: store.fail_job(job_id=job, attempt=1, error=ERROR), Outcome.FAILED),
        (lambda store, job: store.confirm_cancel(job_id=job, attempt=1), Outcome.CANCELLED),
    ],
    ids=["failed", "cancelled"],
)
def test_the_book_tells_how_it_ended(
    store: JobStore, end: Callable[[JobStore, str], Job], outcome: Outcome
) -> None:
    """A failure and a cancel are outcomes with their causes."""
    create(store)
    job = lease(store)
    if outcome is Outcome.CANCELLED:
        store.cancel_job(owner="local", job_id=job.id)
    end(store, job.id)
    (record,) = store.list_attempts(owner="local", job_id=job.id)
    assert record.outcome is outcome
    assert record.cause


def test_the_database_refuses_a_second_commit(store: JobStore, database_url: str) -> None:
    """Whatever a defect of ours may do, no job has two attempts that succeeded."""
    create(store)
    job = lease(store)
    store.finish_job(job_id=job.id, attempt=1, result=RESULT)
    names = ["job_id", "host", "lease_expire_time", "start_time", "outcome"]
    copy = sa.select(sa.literal(2), *(attempts.c[name] for name in names))
    database = Database(database_url)
    with pytest.raises(IntegrityError), database.write() as connection:
        connection.execute(sa.insert(attempts).from_select(["number", *names], copy))
    database.close()


def test_one_upload_request_sent_by_many_threads_makes_one_upload(store: JobStore) -> None:
    """Racing repeats of one request all get the same upload."""
    files = [FileSpec(path="a", size=1, sha256="0" * 64)]

    def send(_: int) -> str:
        return store.create_upload(owner="local", files=files, request_id="one", lifetime_seconds=60).id

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(send, range(16)))) == 1


def test_no_lease_is_timed_by_a_server(store: JobStore) -> None:
    """The database's clock is all that is written to a lease and compared with it, whatever a server's says."""
    assert isinstance(store, SqlJobStore)
    seen: list[str] = []

    def look(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        if "lease_expire_time" in statement:
            seen.append(statement)

    sa.event.listen(store._database._writing, "before_cursor_execute", look)
    create(store)
    job = lease(store)
    store.renew_leases({job.id: 1}, lease_seconds=60)
    store.expire_leases()
    store.finish_job(job_id=job.id, attempt=1, result=RESULT)
    assert len(seen) == 6  # one to lease, to renew, to expire, two to publish, and one to end the attempt
    clock = re.compile(r"\(?(clock_timestamp|npn_clock)\(")
    for statement in seen:
        beside = re.findall(r"lease_expire_time\s*(?:=|<=?|>)\s*(\S+)", statement)
        assert all(clock.match(found) for found in beside)
        assert beside or ("INSERT" in statement and clock.search(statement))


def test_the_rooms_of_jobs_read_no_clock_of_their_own() -> None:
    """A server whose clock is wrong writes the same times as any other: the database's.

    Only bytes that no row speaks of have no other age than the one by our clock.
    """
    folder = Path(npn_service.jobs.__file__).parent
    reading = {
        path.name
        for path in folder.glob("*.py")
        if any(clock in path.read_text() for clock in ("datetime.now", "utcnow", "time.time("))
    }
    assert reading == {"database.py", "garbage.py"}  # SQLite's clock is its process's


def test_a_job_that_is_being_leased_is_passed_over(
    postgres: PostgresServer, migrated_postgres: str, request: pytest.FixtureRequest
) -> None:
    """On PostgreSQL nobody waits for another's lease, and a rolled back one leaves the job in the queue."""
    url = postgres.emptied(migrated_postgres)
    store = SqlJobStore(url, answer_seconds=60.0)
    request.addfinalizer(store.close)
    first, second = create(store), create(store)
    with psycopg.connect(url) as connection:
        connection.execute("SELECT id FROM jobs WHERE id = %s FOR UPDATE", [first.id])
        assert lease(store).id == second.id
        assert store.lease_job(host="host", lease_seconds=60) is None
    assert lease(store).id == first.id


def test_the_second_of_two_equal_requests_waits_for_the_first(
    postgres: PostgresServer, migrated_postgres: str, request: pytest.FixtureRequest
) -> None:
    """On PostgreSQL a request whose id is claimed but not committed decides nothing: the commit does."""
    url = postgres.emptied(migrated_postgres)
    store = SqlJobStore(url, answer_seconds=60.0)
    request.addfinalizer(store.close)
    claimed = "INSERT INTO requests VALUES ('local', 'job', 'one', 'hash', 'a', now() + interval '1 day')"
    made: list[str] = []
    with psycopg.connect(url) as connection:
        connection.execute(claimed)
        second = threading.Thread(target=lambda: made.append(create(store, request_id="one").id))
        second.start()
        second.join(1.0)
        assert second.is_alive()
        assert made == []
        connection.rollback()
    second.join(60)
    assert len(made) == 1
