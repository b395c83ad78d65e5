"""The event loop stays free: whatever waits for the database or the disk runs in the bounded threads."""

import asyncio
import gc
import hashlib
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from job_samples import RESULT, create

from npn.v1 import compression_pb2 as pb
from npn.v1 import compression_pb2_grpc
from npn_service.jobs.migrations import migrate
from npn_service.jobs.sql_store import SqlJobStore
from npn_service.server import serve
from npn_service.settings import Settings

LIMIT = 0.1
JOBS = 300


class Stopwatch:
    """Times every callback of an event loop; `slow` holds those over the limit, with their seconds."""

    def __init__(self) -> None:
        self.slow: list[tuple[float, str]] = []

    def wrap(self, run: Any) -> Any:
        """A replacement of `asyncio.Handle._run`."""

        def timed(handle: asyncio.Handle) -> None:
            started = time.perf_counter()
            run(handle)
            seconds = time.perf_counter() - started
            if seconds > LIMIT:
                self.slow.append((seconds, repr(handle)))

        return timed


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """A data folder with many jobs in it."""
    folder = tmp_path / "data"
    folder.mkdir()
    url = f"sqlite:///{folder / 'npn.sqlite'}"
    migrate(url)
    store = SqlJobStore(url)
    for _ in range(JOBS):
        create(store, labels={"many": "yes"})
    store.close()
    return folder


@pytest.fixture
def settings(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """A server without workers on free ports."""
    return Settings(
        listen="127.0.0.1:0", metrics_listen="", data_dir=data_dir, workers=0, max_message_bytes=16 << 20
    )


async def use(address: str, data_dir: Path) -> None:
    """Uploads, long lists, many watchers and job changes at once."""
    async with grpc.aio.insecure_channel(address) as channel:
        stub = compression_pb2_grpc.CompressionServiceStub(channel)
        names = [job.name for job in (await stub.ListJobs(pb.ListJobsRequest(page_size=50))).jobs]
        watches = [stub.WatchJob(pb.WatchJobRequest(name=names[n % 50])) for n in range(200)]
        await asyncio.gather(*(watch.read() for watch in watches))
        store = SqlJobStore(f"sqlite:///{data_dir / 'npn.sqlite'}")
        await asyncio.gather(
            upload(stub),
            asyncio.to_thread(finish_jobs, store, 10),
            *(stub.ListJobs(pb.ListJobsRequest(page_size=1000)) for _ in range(5)),
            *(stub.GetJob(pb.GetJobRequest(name=name)) for name in names),
            *(stub.CancelJob(pb.CancelJobRequest(name=name)) for name in names[:10]),
        )
        await asyncio.gather(*(watch.read() for watch in watches[:10]))
        store.close()


async def upload(stub: compression_pb2_grpc.CompressionServiceStub) -> None:
    """Sixteen megabytes through WriteObject, hashed at the end."""
    data = os.urandom(1 << 20) * 16  # new bytes each time: known ones are complete at once
    file = pb.UploadFile(path="x", size=len(data), sha256=hashlib.sha256(data).hexdigest())
    opened = await stub.CreateUpload(pb.CreateUploadRequest(files=[file]))

    def messages() -> Iterator[pb.WriteObjectRequest]:
        yield pb.WriteObjectRequest(upload=opened.name, path="x")
        for start in range(0, len(data), 1 << 19):
            yield pb.WriteObjectRequest(data=data[start : start + (1 << 19)])

    await stub.WriteObject(messages())
    await stub.CompleteUpload(pb.CompleteUploadRequest(name=opened.name))


def finish_jobs(store: SqlJobStore, count: int) -> None:
    """What workers would do."""
    for _ in range(count):
        job = store.lease_job(host="test", lease_seconds=60)
        assert job is not None
        store.finish_job(job_id=job.id, attempt=job.attempt, result=RESULT)


def test_no_callback_takes_long(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """No callback takes 100 ms while the server is used.

    Anything may stall once on a busy machine; a call that blocks the loop stalls it every time.
    """
    stopwatch = Stopwatch()
    gc.collect()
    gc.freeze()  # what thousands of tests left in this process is not the server's to walk through

    async def scenario() -> None:
        async with serve(settings) as server:
            with monkeypatch.context() as patch:
                patch.setattr(asyncio.Handle, "_run", stopwatch.wrap(asyncio.Handle._run))
                await use(server.address, settings.data_dir)

    for _ in range(3):
        stopwatch.slow.clear()
        asyncio.run(scenario())
        if not stopwatch.slow:
            return
    pytest.fail(f"these callbacks blocked the event loop: {stopwatch.slow}")
