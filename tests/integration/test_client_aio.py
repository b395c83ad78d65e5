"""The asyncio client over real gRPC: the same promises."""

import asyncio
import hashlib
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from scripted_server import SILENCE, ScriptedServer, changed, job, progressed

from npn.v1 import compression_pb2 as pb
from npn_client import AsyncClient, Budget, Cancelled, JobState, NotFound

DATA = bytes(range(256)) * 20


@pytest.fixture
def scripted() -> Iterator[ScriptedServer]:
    """A server that does as it is told."""
    with ScriptedServer() as server:
        yield server


def test_from_submit_to_download(scripted: ScriptedServer, tmp_path: Path) -> None:
    """Upload, watch and download survive interruptions."""
    source = tmp_path / "digits.npz"
    source.write_bytes(DATA)
    file = pb.ArtifactFile(
        name="m", path="model.pt2", size=len(DATA), sha256=hashlib.sha256(DATA).hexdigest()
    )
    scripted.files["m"] = DATA
    scripted.cuts.extend([2000, 6000, 1050])
    scripted.faults["CreateJob"].append(grpc.StatusCode.UNAVAILABLE)
    scripted.streams.extend(
        [
            [changed(pb.JOB_STATE_RUNNING, 2), progressed(3), grpc.StatusCode.UNAVAILABLE],
            [],
            [grpc.StatusCode.CANCELLED],
            [grpc.StatusCode.OUT_OF_RANGE],
            [changed(pb.JOB_STATE_SUCCEEDED, 9, result=pb.Result(files=[file]))],
        ]
    )

    async def run() -> None:
        async with AsyncClient(scripted.address) as client:
            handle = await client.compress("mlp", dataset=source, budget=Budget(max_params=10))
            assert [event.sequence async for event in handle.watch()] == [2, 3, 9]
            (path,) = await (await handle.result()).download(tmp_path / "out")
            assert path.read_bytes() == DATA

    asyncio.run(run())
    assert scripted.stored["uploads/1"] == DATA
    assert [request.offset for request in scripted.requests["ReadObject"]] == [0, 1050]


def test_reading_calls(scripted: ScriptedServer) -> None:
    """Jobs, plans and the server's description."""
    scripted.job = job(pb.JOB_STATE_QUEUED, 1, plan=pb.Plan(dense=pb.Cost(params=100)))

    async def run() -> None:
        async with AsyncClient(scripted.address) as client:
            assert (await client.server_info()).version == "scripted"
            assert [item.id async for item in client.list_jobs()] == ["1", "2", "3"]
            assert (
                await client.plan("mlp", dataset="objects/1", budget=Budget(max_params=1))
            ).dense.params == 100
            handle = await (await client.get_job("1")).cancel()
            assert handle.state is JobState.CANCELLING
            await (await handle.refresh()).delete()

    asyncio.run(run())


def test_a_timeout_and_silence(scripted: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A silent stream is left, and waiting has an end."""
    monkeypatch.setattr("npn_client.aio.calls.SILENCE", 0.2)
    scripted.streams.extend([[changed(pb.JOB_STATE_RUNNING, 2), SILENCE]] * 20)

    async def run() -> None:
        async with AsyncClient(scripted.address) as client:
            handle = await client.get_job("1")
            with pytest.raises(TimeoutError, match="not done yet"):
                await handle.wait(timeout=1)

    asyncio.run(run())
    assert len(scripted.requests["WatchJob"]) > 1


def test_errors(scripted: ScriptedServer) -> None:
    """A call that the server cancels is an error; a task that its owner cancels stays cancelled."""
    scripted.faults["GetServerInfo"].append(grpc.StatusCode.CANCELLED)
    scripted.faults["GetJob"].extend([grpc.StatusCode.NOT_FOUND])
    scripted.streams.append([changed(pb.JOB_STATE_RUNNING, 2), SILENCE])

    async def run() -> None:
        async with AsyncClient(scripted.address) as client:
            with pytest.raises(Cancelled):
                await client.server_info()
            with pytest.raises(NotFound):
                await client.get_job("1")
            waiting = asyncio.create_task((await client.get_job("1")).wait())
            await asyncio.sleep(0.2)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting

    asyncio.run(run())


def test_logs(scripted: ScriptedServer) -> None:
    """What is kept of an attempt, of the newest by default."""
    scripted.logs = pb.JobLogs(attempt=1, lines=["one"], curve=[pb.Progress(step=3)])

    async def run() -> None:
        async with AsyncClient(scripted.address) as client:
            kept = await (await client.get_job("1")).logs()
            assert (kept.attempt, kept.lines, kept.curve[0].step) == (1, ("one",), 3)

    asyncio.run(run())
    assert scripted.requests["GetJobLogs"][0].attempt == 0
