"""Jobs over the wire.  The server has no workers: the test changes the jobs in the server's own database."""

import asyncio
import hashlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest
from job_samples import ERROR, RESULT, create, lease, progress_at
from server_process import ServerProcess, launch_server
from wire import SECONDS, Stub, connect, refused

from npn.v1 import compression_pb2 as pb
from npn.v1 import compression_pb2_grpc
from npn_service.jobs.model import ArtifactFile, Job
from npn_service.jobs.sql_store import SqlJobStore
from npn_service.storage.local import LocalObjectStore

WATCHERS, CONNECTIONS, JOBS = 200, 20, 20


@pytest.fixture(scope="module")
def idle_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server that leases nothing."""
    folder = tmp_path_factory.mktemp("idle")
    launched = launch_server(folder / "data", folder, workers="0")
    launched.warm()
    yield launched
    launched.kill()


@pytest.fixture(scope="module")
def stub(idle_server: ServerProcess) -> Iterator[Stub]:
    """A connection to it."""
    with connect(idle_server.address) as connected:
        yield connected


def open_store(server: ServerProcess) -> SqlJobStore:
    """The server's own database; progress is not thinned."""
    return SqlJobStore(f"sqlite:///{server.data_dir / 'npn.sqlite'}", progress_interval=0.0, kept_events=50)


@pytest.fixture
def store(idle_server: ServerProcess) -> Iterator[SqlJobStore]:
    """The store of the idle server; no job is left in it."""
    opened = open_store(idle_server)
    yield opened
    while (job := opened.lease_job(host="cleaner", lease_seconds=60)) is not None:
        opened.fail_job(job_id=job.id, attempt=job.attempt, error=ERROR)
    opened.close()


def get(stub: Stub, job: Job) -> pb.Job:
    """The job as the server shows it."""
    return stub.GetJob(pb.GetJobRequest(name=job.name), timeout=SECONDS)


def run_to_the_end(store: SqlJobStore) -> Job:
    """The next job in line, SUCCEEDED."""
    running = lease(store)
    return store.finish_job(job_id=running.id, attempt=running.attempt, result=RESULT)


def test_a_job_shows_its_life(stub: Stub, store: SqlJobStore) -> None:
    """State, times, progress, error and result follow what workers write."""
    job = create(store)
    queued = get(stub, job)
    assert (queued.state, queued.done, queued.attempt) == (pb.JOB_STATE_QUEUED, False, 0)
    assert queued.wait_reason
    running = lease(store)
    store.record_progress(job_id=job.id, attempt=1, progress=progress_at(7))
    assert get(stub, job).progress.step == 7
    store.finish_job(job_id=job.id, attempt=running.attempt, result=RESULT)
    done = get(stub, job)
    assert (done.state, done.done, done.result.compact.params) == (pb.JOB_STATE_SUCCEEDED, True, 9000)
    assert (
        done.create_time.ToNanoseconds() <= done.start_time.ToNanoseconds() <= done.end_time.ToNanoseconds()
    )


def test_a_failed_job_says_why(stub: Stub, store: SqlJobStore) -> None:
    """The error carries code, reason and field like a refused request."""
    job = create(store)
    store.fail_job(job_id=job.id, attempt=lease(store).attempt, error=ERROR)
    failed = get(stub, job)
    assert (failed.state, failed.error.code) == (pb.JOB_STATE_FAILED, ERROR.code)
    assert b"job.dataset.uri" in failed.error.SerializeToString()


def test_lists_are_filtered_and_paged(stub: Stub, store: SqlJobStore) -> None:
    """Newest first, in pages that together are the whole, narrowed by state and labels."""
    label = f"t{time.time_ns()}"
    names = [create(store, labels={"test": label}).name for _ in range(5)]
    where = f'labels.test = "{label}"'
    token, listed = "", []
    while True:
        page = stub.ListJobs(pb.ListJobsRequest(page_size=2, page_token=token, filter=where), timeout=SECONDS)
        listed += [job.name for job in page.jobs]
        token = page.next_page_token
        if not token:
            break
    assert listed == names[::-1]
    store.cancel_job(owner="local", job_id=names[0].removeprefix("jobs/"))
    cancelled = stub.ListJobs(
        pb.ListJobsRequest(filter=f"state = CANCELLED AND {where}"), timeout=SECONDS
    ).jobs
    assert [job.name for job in cancelled] == [names[0]]


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (pb.ListJobsRequest(filter="state = DREAMING"), "filter"),
        (pb.ListJobsRequest(page_size=-1), "page_size"),
        (pb.ListJobsRequest(page_token="x"), "page_token"),
    ],
)
def test_wrong_lists_are_refused(stub: Stub, request_: pb.ListJobsRequest, field: str) -> None:
    """A list that cannot be understood is not a list of everything."""
    assert refused(stub.ListJobs, request_).fields == (field,)


def test_cancel_and_delete_follow_the_state(stub: Stub, store: SqlJobStore) -> None:
    """A queued job is cancelled at once and again; a finished one is not; only a finished one is deleted."""
    job = create(store)
    delete = pb.DeleteJobRequest(name=job.name)
    cancel = pb.CancelJobRequest(name=job.name)
    assert refused(stub.DeleteJob, delete).code is grpc.StatusCode.FAILED_PRECONDITION
    assert stub.CancelJob(cancel, timeout=SECONDS).state == pb.JOB_STATE_CANCELLED
    assert stub.CancelJob(cancel, timeout=SECONDS).state == pb.JOB_STATE_CANCELLED
    stub.DeleteJob(delete, timeout=SECONDS)
    assert refused(stub.GetJob, pb.GetJobRequest(name=job.name)).code is grpc.StatusCode.NOT_FOUND

    create(store)
    done = run_to_the_end(store)
    answer = refused(stub.CancelJob, pb.CancelJobRequest(name=done.name))
    assert (answer.code, answer.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "WRONG_STATE")


def test_a_running_job_is_asked_to_stop(stub: Stub, store: SqlJobStore) -> None:
    """Cancel takes a running job to CANCELLING; the worker confirms."""
    job = create(store)
    running = lease(store)
    answer = stub.CancelJob(pb.CancelJobRequest(name=job.name), timeout=SECONDS)
    assert answer.state == pb.JOB_STATE_CANCELLING
    store.confirm_cancel(job_id=job.id, attempt=running.attempt)
    assert get(stub, job).state == pb.JOB_STATE_CANCELLED


@pytest.mark.parametrize("method", ["GetJob", "WatchJob", "CancelJob", "DeleteJob"])
@pytest.mark.parametrize(
    ("name", "code"),
    [("jobs/none", grpc.StatusCode.NOT_FOUND), ("dreams/1", grpc.StatusCode.INVALID_ARGUMENT)],
)
def test_a_job_that_does_not_exist(stub: Stub, method: str, name: str, code: grpc.StatusCode) -> None:
    """An unknown id is NOT_FOUND, a name of another kind INVALID_ARGUMENT."""
    request = getattr(pb, f"{method}Request")(name=name)
    assert refused(getattr(stub, method), request).code is code


def test_an_artifact_is_read_from_any_offset(
    stub: Stub, store: SqlJobStore, idle_server: ServerProcess, tmp_path: Path
) -> None:
    """GetDownload says how, ReadObject gives the bytes; before the end there is nothing to read."""
    data = bytes(range(256)) * 10_000
    job = create(store)
    name = f"{job.name}/artifact/model.pt2"
    early = refused(stub.GetDownload, pb.GetDownloadRequest(name=name))
    assert early.code is grpc.StatusCode.FAILED_PRECONDITION
    running = lease(store)
    (tmp_path / "model.pt2").write_bytes(data)
    objects = LocalObjectStore(idle_server.data_dir / "objects")
    objects.put_file(running.attempt_prefix + "model.pt2", tmp_path / "model.pt2")
    digest = hashlib.sha256(data).hexdigest()
    file = ArtifactFile(path="model.pt2", size=len(data), sha256=digest)
    result = type(RESULT)(
        dense=RESULT.dense, compact=RESULT.compact, metrics=(), files=(file,), train_time=1.0
    )
    store.finish_job(job_id=job.id, attempt=running.attempt, result=result)

    download = stub.GetDownload(pb.GetDownloadRequest(name=name), timeout=SECONDS)
    assert (download.read_object, download.size, download.sha256) == (name, len(data), digest)
    for offset in (0, 1_500_000, len(data)):
        parts = stub.ReadObject(pb.ReadObjectRequest(name=name, offset=offset), timeout=SECONDS)
        assert b"".join(part.data for part in parts) == data[offset:]
    beyond = pb.ReadObjectRequest(name=name, offset=len(data) + 1)
    assert refused(stub.ReadObject, beyond).fields == ("offset",)
    other = pb.ReadObjectRequest(name=f"{job.name}/artifact/../../x")
    assert refused(stub.ReadObject, other).code is grpc.StatusCode.NOT_FOUND


def test_a_watch_resumes_after_what_it_saw(stub: Stub, store: SqlJobStore) -> None:
    """Events come by number; one that is no longer kept, or not yet there, is OUT_OF_RANGE."""
    job = create(store)
    running = lease(store)
    for step in range(1, 60):
        store.record_progress(job_id=job.id, attempt=running.attempt, progress=progress_at(step))
    store.finish_job(job_id=job.id, attempt=running.attempt, result=RESULT)
    newest = get(stub, job).sequence
    resumed = list(
        stub.WatchJob(pb.WatchJobRequest(name=job.name, after_sequence=newest - 2), timeout=SECONDS)
    )
    assert [event.sequence for event in resumed] == [newest]
    assert resumed[-1].job.done
    ahead = refused(stub.WatchJob, pb.WatchJobRequest(name=job.name, after_sequence=newest + 1))
    assert (ahead.code, ahead.reason) == (grpc.StatusCode.OUT_OF_RANGE, "EVENTS_EXPIRED")
    negative = refused(stub.WatchJob, pb.WatchJobRequest(name=job.name, after_sequence=-1))
    assert negative.fields == ("after_sequence",)


def test_a_watch_has_a_deadline(stub: Stub, store: SqlJobStore) -> None:
    """A watch of a job that waits ends when its caller's time is up."""
    job = create(store)
    watch = stub.WatchJob(pb.WatchJobRequest(name=job.name), timeout=0.5)
    assert next(watch).job.state == pb.JOB_STATE_QUEUED
    with pytest.raises(grpc.RpcError) as caught:
        next(watch)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED


async def states_seen(stub: Stub, name: str) -> list[int]:
    """The state changes that one watcher sees until the stream ends well."""
    seen = []
    async for event in stub.WatchJob(pb.WatchJobRequest(name=name), timeout=60):
        if event.HasField("job"):
            seen.append(event.job.state)
    return seen


def test_two_hundred_watchers_see_every_change(idle_server: ServerProcess, store: SqlJobStore) -> None:
    """20 jobs, 20 connections: all see all changes in order and the end."""
    jobs = [create(store) for _ in range(JOBS)]

    async def scenario() -> list[list[int]]:
        options = [("grpc.use_local_subchannel_pool", 1)]
        channels = [
            grpc.aio.insecure_channel(idle_server.address, options=options) for _ in range(CONNECTIONS)
        ]
        stubs = [compression_pb2_grpc.CompressionServiceStub(channel) for channel in channels]
        watchers = [
            asyncio.create_task(states_seen(stubs[number % CONNECTIONS], jobs[number % JOBS].name))
            for number in range(WATCHERS)
        ]
        await asyncio.sleep(1.5)  # all have seen the first state
        for _ in jobs:
            running = await asyncio.to_thread(lease, store)
            await asyncio.to_thread(
                store.record_progress, job_id=running.id, attempt=1, progress=progress_at(1)
            )
            await asyncio.to_thread(store.finish_job, job_id=running.id, attempt=1, result=RESULT)
        seen = await asyncio.gather(*watchers)
        for channel in channels:
            await channel.close()
        return seen

    for seen in asyncio.run(scenario()):
        assert seen == [pb.JOB_STATE_QUEUED, pb.JOB_STATE_RUNNING, pb.JOB_STATE_SUCCEEDED]


def test_a_draining_server_ends_watches_and_exits(start_server: Callable[..., ServerProcess]) -> None:
    """SIGTERM: the watch ends with UNAVAILABLE, the exit code is 0, nothing stays behind, no job is lost."""
    server = start_server(workers="0")
    store = open_store(server)
    job = create(store)
    store.close()
    with connect(server.address) as stub:
        watch = stub.WatchJob(pb.WatchJobRequest(name=job.name), timeout=SECONDS)
        assert next(watch).job.state == pb.JOB_STATE_QUEUED
        started = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - started < 10
        with pytest.raises(grpc.RpcError) as caught:
            next(watch)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert {"listening", "draining", "stopped"} <= {line["event"] for line in server.log_lines()}
    again = start_server(data_dir=server.data_dir, workers="0")
    with connect(again.address) as stub:
        assert get(stub, job).state == pb.JOB_STATE_QUEUED


def test_one_data_folder_takes_one_server(
    idle_server: ServerProcess, start_server: Callable[..., ServerProcess]
) -> None:
    """A second server on the same folder says which process holds it and ends."""
    with pytest.raises(RuntimeError, match=f"in use by the server with process id {idle_server.process.pid}"):
        start_server(data_dir=idle_server.data_dir)
