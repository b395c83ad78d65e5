"""Callers that watch and do not read: they cost the server no memory and nobody else any time."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import grpc
import psutil
from job_samples import create, lease, progress_at
from server_process import ServerProcess
from wire import SECONDS, connect

from npn.v1 import compression_pb2 as pb
from npn_service.jobs.migrations import migrate
from npn_service.jobs.model import Job, State
from npn_service.jobs.sql_store import SqlJobStore

WATCHERS = 200
EVENTS = 1300
WARM = 300
MIB = 1 << 20


@contextmanager
def running_job(folder: Path) -> Iterator[tuple[SqlJobStore, Job]]:
    """A job in its first attempt, in the data folder of a server that starts later."""
    folder.mkdir()
    url = f"sqlite:///{folder / 'npn.sqlite'}"
    migrate(url)
    store = SqlJobStore(url, progress_interval=0.0)
    create(store)
    yield store, lease(store, seconds=3600)
    store.close()


def report(store: SqlJobStore, job: Job, steps: range) -> None:
    """Events of progress as fast as the database takes them."""
    for step in steps:
        store.record_progress(job_id=job.id, attempt=1, progress=progress_at(step))


def memory(server: ServerProcess) -> int:
    """What the server's process holds, in bytes."""
    return psutil.Process(server.process.pid).memory_info().rss


def test_watchers_that_do_not_read_cost_nothing(
    start_server: Callable[..., ServerProcess], tmp_path: Path
) -> None:
    """While 200 of them stand still, a thousand events leave the server as large as it was, and a reader current."""
    with ExitStack() as stack:
        store, job = stack.enter_context(running_job(tmp_path / "data"))
        server = start_server(workers="0", data_dir=tmp_path / "data")
        stub = stack.enter_context(connect(server.address))
        slow = [
            stack.enter_context(connect(server.address)).WatchJob(
                pb.WatchJobRequest(name=job.name), timeout=10 * SECONDS
            )
            for _ in range(WATCHERS)
        ]
        for watch in slow:
            next(watch)  # each has begun, and reads no more
        report(store, job, range(WARM))
        time.sleep(1)
        before = memory(server)
        report(store, job, range(WARM, EVENTS))
        reader = stub.WatchJob(pb.WatchJobRequest(name=job.name), timeout=SECONDS)
        next(reader)
        store.cancel_job(owner="local", job_id=job.id)
        store.confirm_cancel(job_id=job.id, attempt=1)
        assert [message.job.state for message in reader if message.HasField("job")][-1] == (
            pb.JOB_STATE_CANCELLED
        )
        assert memory(server) - before < 24 * MIB
        assert store.get_job(owner="local", job_id=job.id).state is State.CANCELLED
        assert isinstance(slow[0], grpc.Call)
        for watch in slow:
            watch.cancel()
