"""A server's limits, probes and housekeeping over the wire."""

import hashlib
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest
from job_samples import create
from server_process import ServerProcess
from test_rpc_command import run
from wire import SECONDS, connect, job_on, npz, refused, upload, write
from wire import create as submit

from npn.v1 import compression_pb2 as pb
from npn_client import Client, NotFound, Progressed
from npn_service.jobs.migrations import migrate
from npn_service.jobs.model import Job
from npn_service.jobs.sql_store import SqlJobStore

StartServer = Callable[..., ServerProcess]


def announce(size: int) -> pb.CreateUploadRequest:
    """An upload of one file."""
    file = pb.UploadFile(path="a", size=size, sha256=hashlib.sha256(bytes(size % 1000)).hexdigest())
    return pb.CreateUploadRequest(files=[file])


def probe(server: ServerProcess, path: str) -> tuple[int, str]:
    """Status and text of a probe."""
    try:
        with urllib.request.urlopen(f"http://{server.metrics_address}{path}", timeout=SECONDS) as answer:
            return answer.status, answer.read().decode().strip()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode().strip()


@contextmanager
def jobs_in(folder: Path, count: int = 1) -> Iterator[list[Job]]:
    """Queued jobs in the data folder of a server that starts within the block."""
    folder.mkdir()
    url = f"sqlite:///{folder / 'npn.sqlite'}"
    migrate(url)
    store = SqlJobStore(url)
    yield [create(store) for _ in range(count)]
    store.close()


def test_limits_are_told_and_kept(start_server: StartServer, tmp_path: Path) -> None:
    """GetServerInfo tells them; what is above gets RESOURCE_EXHAUSTED with the numbers and what to do."""
    with jobs_in(tmp_path / "data"):
        server = start_server(
            workers="0",
            data_dir=tmp_path / "data",
            max_queued_jobs_per_owner="1",
            max_bytes_per_owner="100000",
            max_job_duration="60",
            job_retention="0",
        )
    with connect(server.address) as stub:
        limits = stub.GetServerInfo(pb.GetServerInfoRequest(), timeout=SECONDS).limits
        assert (limits.max_queued_jobs, limits.max_stored_bytes, limits.max_running_jobs) == (1, 100_000, 64)
        assert limits.max_job_duration.seconds == 60
        assert not limits.HasField("job_retention")
        uri = upload(stub, npz())
        queue = refused(stub.CreateJob, pb.CreateJobRequest(job=job_on(uri)))
        assert (queue.code, queue.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "QUEUED_JOBS_LIMIT")
        assert (queue.numbers["limit"], queue.numbers["used"]) == ("1", "1")
        assert "cancel some" in queue.message
        stored = refused(stub.CreateUpload, announce(100_000))
        assert (stored.code, stored.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "STORED_BYTES_LIMIT")
        assert stored.numbers["asked"] == "100000"


def test_probes_follow_the_server(start_server: StartServer) -> None:
    """Ready while it serves; Prometheus is answered on the same port."""
    server = start_server(workers="0")
    assert probe(server, "/livez") == (200, "alive")
    assert probe(server, "/readyz") == (200, "ready")
    status, text = probe(server, "/metrics")
    assert status == 200
    assert 'npn_jobs{state="QUEUED"} 0.0' in text
    assert server.stop() == 0


def test_a_call_above_the_limit_is_refused_and_a_later_one_served(
    start_server: StartServer, tmp_path: Path
) -> None:
    """Watches beyond the limit hear UNAVAILABLE with a time to come back; other calls go on."""
    with jobs_in(tmp_path / "data") as (job,):
        server = start_server(workers="0", data_dir=tmp_path / "data", max_watches="2")
    with connect(server.address) as stub:
        request = pb.WatchJobRequest(name=job.name)
        watches = [stub.WatchJob(request, timeout=SECONDS) for _ in range(2)]
        assert all(next(watch).job.name == job.name for watch in watches)
        answer = refused(stub.WatchJob, request)
        assert (answer.code, answer.reason) == (grpc.StatusCode.UNAVAILABLE, "OVERLOADED")
        assert answer.retry_seconds > 0
        assert stub.GetJob(pb.GetJobRequest(name=job.name), timeout=SECONDS).state == pb.JOB_STATE_QUEUED
        stub.CancelJob(pb.CancelJobRequest(name=job.name), timeout=SECONDS)
        assert [list(watch)[-1].job.done for watch in watches] == [True, True]
        assert next(stub.WatchJob(request, timeout=SECONDS)).job.done


def test_an_old_connection_ends_without_harm(start_server: StartServer, tmp_path: Path) -> None:
    """Calls go on over a new connection, and the SDK's watch resumes; nobody sees an error."""
    with jobs_in(tmp_path / "data") as (job,):
        server = start_server(workers="0", data_dir=tmp_path / "data", max_connection_age="1")
    with connect(server.address) as stub, Client(server.address) as client:
        watch = client.get_job(job.name).watch(timeout=SECONDS)
        next(watch)
        with pytest.raises(grpc.RpcError) as cut:
            list(stub.WatchJob(pb.WatchJobRequest(name=job.name), timeout=SECONDS))
        assert cut.value.code() is grpc.StatusCode.UNAVAILABLE  # so this one was older than its time
        stub.CancelJob(pb.CancelJobRequest(name=job.name), timeout=SECONDS, wait_for_ready=True)
        assert [event.job.state.value for event in watch] == ["CANCELLED"]


def test_logs_of_a_job_over_the_wire(start_server: StartServer) -> None:
    """A job that fails tells how it went; attempts that were not made are not found."""
    data = npz()
    server = start_server()
    with connect(server.address) as stub, Client(server.address) as client:
        uri = upload(stub, data)
        job = submit(stub, job_on(uri, training=pb.Training(epochs=10_000, batch_size=32)))
        handle = client.get_job(job.name)
        for event in handle.watch(timeout=120):
            if isinstance(event, Progressed) and event.progress.step:
                handle.cancel()
        kept = handle.logs()
        assert (kept.attempt, kept.cause) == (1, "cancelled")
        assert any("cancel was asked for" in line for line in kept.lines)
        assert kept.curve
        assert kept.curve[0].step > 0
        assert str(server.data_dir) not in "\n".join(kept.lines)
        with pytest.raises(NotFound):
            handle.logs(attempt=2)
        bad = refused(stub.GetJobLogs, pb.GetJobLogsRequest(name=job.name, attempt=-1))
        assert bad.fields == ("attempt",)


def test_gc_runs_beside_the_server(start_server: StartServer, tmp_path: Path) -> None:
    """The dry run tells what goes and why and changes nothing; the run removes it; the server serves on."""
    with jobs_in(tmp_path / "data", 2) as (over, waiting):
        server = start_server(workers="0", data_dir=tmp_path / "data")
    settings = {"data_dir": str(server.data_dir), "job_retention": "0.001"}
    with connect(server.address) as stub:
        open_one = stub.CreateUpload(announce(4000), timeout=SECONDS)
        write(stub, open_one.name, "a", bytes(10))
        stub.CancelJob(pb.CancelJobRequest(name=over.name), timeout=SECONDS)
        for dry in (["--dry-run"], []):
            assert stub.GetJob(pb.GetJobRequest(name=over.name), timeout=SECONDS).done
            ended = run(tmp_path, "gc", *dry, **settings)
            assert ended.returncode == 0, ended.stderr
            assert ended.stdout.startswith(f"{over.name}/\tjob that ended CANCELLED at ")
            assert len(ended.stdout.splitlines()) == 1
        assert refused(stub.GetJob, pb.GetJobRequest(name=over.name)).code is grpc.StatusCode.NOT_FOUND
        assert stub.GetJob(pb.GetJobRequest(name=waiting.name), timeout=SECONDS).state == pb.JOB_STATE_QUEUED
        assert (
            stub.GetUpload(pb.GetUploadRequest(name=open_one.name), timeout=SECONDS).files[0].committed == 10
        )


def test_gc_leaves_an_unknown_database_alone(tmp_path: Path) -> None:
    """A schema that is not this version's is refused in one message."""
    migrate(f"sqlite:///{tmp_path / 'other.sqlite'}")
    for url in (f"sqlite:///{tmp_path / 'empty.sqlite'}", "sqlite:////nonexistent/npn.sqlite"):
        ended = run(tmp_path, "gc", database_url=url, data_dir=str(tmp_path / "data"))
        assert ended.returncode == 2
        assert "Traceback" not in ended.stderr
    assert run(tmp_path, "gc", database_url=f"sqlite:///{tmp_path / 'other.sqlite'}").returncode == 0
