"""Whole jobs over the wire, with real workers."""

import hashlib
import time
import urllib.request
from collections.abc import Callable, Iterator

import pytest
from server_process import ServerProcess
from wire import SECONDS, Stub, connect, create, job_on, npz, upload

from npn.v1 import compression_pb2 as pb

LONG = pb.Training(epochs=5000, batch_size=16)


@pytest.fixture(scope="module")
def stub(server: ServerProcess) -> Iterator[Stub]:
    """A connection to the shared server."""
    with connect(server.address) as connected:
        yield connected


def watch(stub: Stub, name: str) -> Iterator[pb.WatchJobResponse]:
    """A job's events from the first: a watch without a number would begin with the state of the moment."""
    return stub.WatchJob(pb.WatchJobRequest(name=name, after_sequence=0), timeout=120)


def until_running(stub: Stub, name: str) -> Iterator[pb.WatchJobResponse]:
    """The rest of a watch once a worker has reported."""
    events = watch(stub, name)
    for event in events:
        if event.HasField("progress"):
            return events
    raise AssertionError(f"{name} ended before it reported")


def test_a_job_is_compressed(stub: Stub, server: ServerProcess) -> None:
    """QUEUED, RUNNING, SUCCEEDED with progress between, and an artifact whose bytes are what it says."""
    job = create(stub, job_on(upload(stub, npz())))
    states, reports, numbers = [], [], []
    for event in watch(stub, job.name):
        numbers.append(event.sequence)
        if event.HasField("job"):
            states.append(event.job.state)
            last = event.job
        elif event.HasField("progress"):
            reports.append(event.progress)
    assert states == [pb.JOB_STATE_QUEUED, pb.JOB_STATE_RUNNING, pb.JOB_STATE_SUCCEEDED]
    assert numbers == sorted(numbers)
    assert reports
    assert last.result.compact.params <= 800 < last.result.dense.params
    assert {file.path for file in last.result.files} >= {"model.pt2", "model.safetensors", "report.json"}
    for file in last.result.files:
        parts = stub.ReadObject(pb.ReadObjectRequest(name=file.name), timeout=SECONDS)
        data = b"".join(part.data for part in parts)
        assert (len(data), hashlib.sha256(data).hexdigest()) == (file.size, file.sha256)
    with urllib.request.urlopen(f"http://{server.metrics_address}/metrics", timeout=SECONDS) as answer:
        text = answer.read().decode()
    assert 'npn_job_duration_seconds_count{outcome="succeeded"}' in text
    assert "npn_training_samples_per_second{" in text
    stub.DeleteJob(pb.DeleteJobRequest(name=job.name), timeout=SECONDS)
    assert not list(server.data_dir.glob(f"**/{job.name.removeprefix('jobs/')}/**/*"))


def test_cancel_stops_a_running_job(stub: Stub) -> None:
    """CANCELLED within two seconds of the call."""
    job = create(stub, job_on(upload(stub, npz()), training=LONG))
    events = until_running(stub, job.name)
    started = time.monotonic()
    stub.CancelJob(pb.CancelJobRequest(name=job.name), timeout=SECONDS)
    last = [event.job.state for event in events if event.HasField("job")][-1]
    assert last == pb.JOB_STATE_CANCELLED
    assert time.monotonic() - started < 2.5  # the watch looks every 0.2 s


def test_a_stopped_server_requeues_what_runs(start_server: Callable[..., ServerProcess]) -> None:
    """SIGTERM ends the worker too, and the next server runs the job again."""
    first = start_server()
    with connect(first.address) as stub:
        job = create(stub, job_on(upload(stub, npz()), training=LONG))
        until_running(stub, job.name)
        assert first.stop() == 0
    second = start_server(data_dir=first.data_dir)
    with connect(second.address) as stub:
        until_running(stub, job.name)
        again = stub.GetJob(pb.GetJobRequest(name=job.name), timeout=SECONDS)
        assert (again.state, again.attempt) == (pb.JOB_STATE_RUNNING, 2)
        stub.CancelJob(pb.CancelJobRequest(name=job.name), timeout=SECONDS)
