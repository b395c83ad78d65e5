"""A real PostgreSQL that hangs, is away or comes back, and servers of several roles on one."""

import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
from job_samples import RESULT, create, lease
from postgres_server import PostgresServer
from s3_server import S3Bucket
from server_process import ServerProcess
from test_rpc_command import run
from wire import SECONDS, Stub, connect, job_on, npz, refused, upload

from npn.v1 import compression_pb2 as pb
from npn_client import Architecture, Budget, Client
from npn_service.errors import Unavailable
from npn_service.jobs.migrations import migrate
from npn_service.jobs.model import Outcome, State
from npn_service.jobs.sql_store import SqlJobStore

# The promise is two seconds; a busy machine may take longer, a call that hangs takes for ever.
SOON = 10.0
PASSWORD = "correct-horse"


@pytest.fixture
def database(postgres: PostgresServer) -> Iterator[str]:
    """The name of a migrated database of the test's own; PostgreSQL runs again afterwards."""
    name = postgres.create_database()
    migrate(postgres.url(name))
    yield name
    postgres.thaw()
    if not postgres.running:
        postgres.start()


@pytest.fixture(params=[False, True], ids=["tcp", "unix"])
def store(request: pytest.FixtureRequest, postgres: PostgresServer, database: str) -> Iterator[SqlJobStore]:
    """A store with the server's own limits, over both kinds of sockets."""
    opened = SqlJobStore(postgres.url(database, unix=request.param))
    yield opened
    opened.close()


def ask(store: SqlJobStore, job_id: str) -> float:
    """Seconds until a call hears that the database is away."""
    asked = time.monotonic()
    with pytest.raises(Unavailable):
        store.get_job(owner="local", job_id=job_id)
    return time.monotonic() - asked


def recovered(store: SqlJobStore, job_id: str) -> None:
    """Fails unless the store answers again soon."""
    deadline = time.monotonic() + 30
    while True:
        try:
            assert store.get_job(owner="local", job_id=job_id).id == job_id
        except Unavailable:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        else:
            return


def test_a_database_that_hangs_is_answered_for(postgres: PostgresServer, store: SqlJobStore) -> None:
    """Nobody waits for a stopped server: not in a query, not for a connection, not in a queue of callers."""
    job = create(store)
    postgres.freeze()
    assert ask(store, job.id) < SOON
    with ThreadPoolExecutor(8) as pool:
        asked = time.monotonic()
        list(pool.map(lambda _: ask(store, job.id), range(200)))
        assert time.monotonic() - asked < SOON
    postgres.thaw()
    recovered(store, job.id)


def test_a_database_that_is_away_is_answered_for(postgres: PostgresServer, store: SqlJobStore) -> None:
    """A closed port is told at once, and the first call after a restart is answered, whatever the pool held."""
    job = create(store)
    postgres.stop()
    assert ask(store, job.id) < SOON
    postgres.start()
    recovered(store, job.id)


def test_a_restart_between_two_calls_costs_none(postgres: PostgresServer, store: SqlJobStore) -> None:
    """Connections that died in the pool are replaced before they are used."""
    job = create(store)
    postgres.stop()
    postgres.start()
    assert store.get_job(owner="local", job_id=job.id) == job


def test_a_commit_that_hangs_happens_once(postgres: PostgresServer, store: SqlJobStore) -> None:
    """A job that is published into a hanging database is published once, by the repetition or before."""
    create(store)
    job = lease(store)
    postgres.freeze()
    with pytest.raises(Unavailable):
        store.finish_job(job_id=job.id, attempt=1, result=RESULT)
    postgres.thaw()
    recovered(store, job.id)
    store.finish_job(job_id=job.id, attempt=1, result=RESULT)
    (record,) = store.list_attempts(owner="local", job_id=job.id)
    assert record.outcome is Outcome.SUCCEEDED


def test_calls_say_when_to_try_again(
    postgres: PostgresServer, database: str, start_server: Callable[..., ServerProcess]
) -> None:
    """UNAVAILABLE with RetryInfo, metrics without the jobs, no password in the log; and it goes on by itself."""
    server = start_server(database_url=postgres.url(database, password=PASSWORD), workers="0")
    with connect(server.address) as stub:
        stub.ListJobs(pb.ListJobsRequest(), timeout=SECONDS)
        for away, back in ((postgres.freeze, postgres.thaw), (postgres.stop, postgres.start)):
            away()
            asked = time.monotonic()
            answer = refused(stub.GetJob, pb.GetJobRequest(name="jobs/1"))
            assert time.monotonic() - asked < SOON
            assert (answer.code, answer.reason) == (grpc.StatusCode.UNAVAILABLE, "UNAVAILABLE")
            assert answer.retry_seconds > 0
            assert "process_resident_memory_bytes" in metrics(server)
            back()
            wait_for_answer(stub)
    log = server.log.read_text()
    assert "database.away" in log
    assert "database.back" in log
    assert PASSWORD not in log


def wait_for_answer(stub: Stub) -> None:
    """Repeat a call until it is answered, as the retries of a client do."""
    deadline = time.monotonic() + 30
    while True:
        try:
            stub.ListJobs(pb.ListJobsRequest(), timeout=SECONDS)
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.UNAVAILABLE or time.monotonic() > deadline:
                raise
            time.sleep(0.2)
        else:
            return


def metrics(server: ServerProcess) -> str:
    """What Prometheus reads."""
    with urllib.request.urlopen(f"http://{server.metrics_address}/metrics", timeout=SECONDS) as answer:
        text: str = answer.read().decode()
    return text


def test_a_running_job_outlives_restarts_of_the_database(
    postgres: PostgresServer, database: str, start_server: Callable[..., ServerProcess]
) -> None:
    """The database hangs and restarts while a job trains: it costs no attempt."""
    server = start_server(database_url=postgres.url(database))
    store = SqlJobStore(postgres.url(database), answer_seconds=60.0)
    with connect(server.address) as stub:
        training = pb.Training(epochs=60, batch_size=4)
        job = submit(stub, job_on(upload(stub, npz()), training=training))
    job_id = job.name.removeprefix("jobs/")
    wait_for_state(store, job_id, State.RUNNING)
    postgres.freeze()
    time.sleep(2.0)
    postgres.thaw()
    postgres.stop()
    time.sleep(1.0)
    postgres.start()
    recovered(store, job_id)
    wait_for_state(store, job_id, State.SUCCEEDED)
    (record,) = store.list_attempts(owner="local", job_id=job_id)
    assert record.outcome is Outcome.SUCCEEDED
    store.close()


def submit(stub: Stub, job: pb.Job) -> pb.Job:
    """CreateJob on a server that started just now, whose inspector is not warm yet."""
    return stub.CreateJob(pb.CreateJobRequest(job=job), timeout=120)


def wait_for_state(store: SqlJobStore, job_id: str, state: State) -> None:
    """Poll until the job is in a state."""
    deadline = time.monotonic() + 120
    while (job := store.get_job(owner="local", job_id=job_id)).state is not state:
        assert time.monotonic() < deadline, job
        assert not job.state.done, job
        time.sleep(0.1)


def test_a_server_waits_for_its_database(
    postgres: PostgresServer, database: str, tmp_path: Path, start_server: Callable[..., ServerProcess]
) -> None:
    """Started while PostgreSQL is away, it says so in the log and serves once PostgreSQL answers."""
    postgres.stop()
    with ThreadPoolExecutor(1) as pool:
        starting = pool.submit(start_server, database_url=postgres.url(database), workers="0")
        deadline = time.monotonic() + 60
        log = tmp_path / "server-0" / "server.log"
        while not log.exists() or "database.away" not in log.read_text():
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert not starting.done()
        postgres.start()
        server = starting.result(60)
    with connect(server.address) as stub:
        stub.ListJobs(pb.ListJobsRequest(), timeout=SECONDS)


def test_roles_share_the_work(
    postgres: PostgresServer,
    database: str,
    s3: S3Bucket,
    tmp_path: Path,
    start_server: Callable[..., ServerProcess],
) -> None:
    """An API replica queues and serves and runs nothing; a worker host runs jobs and serves metrics alone."""
    shared = {"database_url": postgres.url(database), **s3.environment()}
    data = tmp_path / "data.npz"
    data.write_bytes(npz())
    api = start_server(role="api", **shared)
    with Client(api.address, timeout=SECONDS) as client, connect(api.address) as stub:
        job = client.compress(
            Architecture("mlp", {"hidden": [16]}), dataset=data, budget=Budget(max_params=800)
        )
        assert job.snapshot.wait_reason == "no host that runs jobs is up"
        time.sleep(1.0)
        assert job.refresh().snapshot.attempt == 0
        worker = start_server(role="worker", **shared)
        assert worker.address == ""
        assert 'npn_jobs{state="QUEUED"}' in metrics(worker)
        assert 'npn_jobs{state="QUEUED"}' in metrics(api)
        *_, last = stub.WatchJob(pb.WatchJobRequest(name=job.name), timeout=120)
    assert last.job.state == pb.JOB_STATE_SUCCEEDED
    assert worker.stop() == 0
    assert api.stop() == 0


@pytest.mark.parametrize("revision", [None, "9999"])
def test_another_schema_is_refused(
    postgres: PostgresServer, database: str, tmp_path: Path, revision: str | None
) -> None:
    """Exit code 2 and what to do: migrate an older database, install a newer server for a newer one."""
    name = postgres.create_database() if revision is None else database
    if revision is not None:
        postgres.execute(f"UPDATE alembic_version SET version_num = '{revision}'", name)  # noqa: S608
    url = postgres.url(name, password=PASSWORD)
    ended = run(tmp_path, database_url=url, listen="127.0.0.1:0", metrics_listen="")
    assert ended.returncode == 2
    assert ("npn-server migrate" if revision is None else "newer") in ended.stderr
    assert PASSWORD not in ended.stderr + ended.stdout


def test_migrating_at_once_is_safe(postgres: PostgresServer, tmp_path: Path) -> None:
    """Three processes that migrate an empty database at the same time all end well."""
    url = postgres.url(postgres.create_database())
    with ThreadPoolExecutor(3) as pool:
        ends = list(pool.map(lambda _: run(tmp_path, "migrate", database_url=url), range(3)))
    assert [(ended.returncode, ended.stderr) for ended in ends] == [(0, "")] * 3


def test_migrate_says_why_it_cannot(postgres: PostgresServer, tmp_path: Path) -> None:
    """What the driver says, without the password."""
    url = f"postgresql://npn:{PASSWORD}@127.0.0.1:1/npn"
    ended = run(tmp_path, "migrate", database_url=url)
    assert ended.returncode == 2
    assert "refused" in ended.stderr
    assert PASSWORD not in ended.stderr + ended.stdout
