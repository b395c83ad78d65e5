"""A server whose objects are in S3: uploads and downloads by URL, jobs, outages."""

import asyncio
import hashlib
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest
from relay import Relay
from s3_server import S3Bucket, S3Server, get_url, make_bucket, put_url
from server_process import ServerProcess, launch_server
from wire import SECONDS, Stub, connect, create, job_on, npz, refused

from npn.v1 import compression_pb2 as pb
from npn_client import Architecture, AsyncClient, Budget, Client, InvalidArgument, JobState, Training
from npn_service.storage.s3 import S3ObjectStore
from npn_service.storage.s3_client import S3Client
from npn_service.storage.s3_multipart import PART_BYTES, Multipart

MODEL = Architecture("mlp", {"hidden": [16]})
BUDGET = Budget(max_params=60)
TRAINING = Training(epochs=2, batch_size=16, seed=1)


@pytest.fixture(scope="module")
def bucket(s3_server: S3Server) -> S3Bucket:
    """The bucket of `server`."""
    return make_bucket(s3_server)


@pytest.fixture(scope="module")
def way(bucket: S3Bucket) -> Iterator[Relay]:
    """The way of clients to the bucket."""
    with Relay(bucket.settings.endpoint) as relay:
        yield relay


@pytest.fixture
def relay(way: Relay) -> Relay:
    """The same, with whole connections until a test breaks them."""
    way.cuts.clear()
    return way


@pytest.fixture(scope="module")
def server(bucket: S3Bucket, way: Relay, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server that speaks to S3 itself and signs URLs for the relay."""
    folder = tmp_path_factory.mktemp("s3-jobs")
    shared = launch_server(folder / "data", folder, s3_public_endpoint=way.endpoint, **bucket.environment())
    shared.warm()
    yield shared
    assert shared.stop() == 0, shared.log.read_text()


@pytest.fixture
def stub(server: ServerProcess, relay: Relay) -> Iterator[Stub]:
    """A stub of it."""
    with connect(server.address) as stub:
        yield stub


@pytest.fixture
def large_dataset(tmp_path: Path) -> Path:
    """Images that go in three parts."""
    random = np.random.default_rng(3)
    path = tmp_path / "large.npz"
    images = random.integers(0, 256, (2600, 3, 64, 64), dtype=np.uint8)
    labels = np.arange(2600) % 4
    np.savez(path, x_train=images[:2500], y_train=labels[:2500], x_test=images[2500:], y_test=labels[2500:])
    return path


def open_parts(bucket: S3Bucket, upload: pb.Upload) -> int:
    """Multipart uploads of an upload that were neither joined nor dropped."""
    found = Multipart(S3Client(bucket.settings), bucket.settings.bucket).find_under("objects/")
    return sum(upload.name.removeprefix("uploads/") in key for key, _ in found)


def keys(bucket: S3Bucket, upload: pb.Upload) -> list[str]:
    """What the bucket has of an upload."""
    stored = S3ObjectStore(bucket.settings).list("objects/")
    return [item.key for item in stored if upload.name.removeprefix("uploads/") in item.key]


def begin(stub: Stub, data: bytes, path: str = "data.npz") -> pb.Upload:
    """An open upload of one file."""
    file = pb.UploadFile(path=path, size=len(data), sha256=hashlib.sha256(data).hexdigest())
    return stub.CreateUpload(
        pb.CreateUploadRequest(files=[file], request_id=str(uuid.uuid4())), timeout=SECONDS
    )


def store(stub: Stub, data: bytes) -> str:
    """The URI of a new object."""
    upload = begin(stub, data)
    if upload.state == pb.UPLOAD_STATE_COMPLETE:  # an earlier test sent the same
        return upload.object
    for part in upload.files[0].parts.urls:
        assert put_url(part.url, data) == 200
    return stub.CompleteUpload(pb.CompleteUploadRequest(name=upload.name), timeout=SECONDS).object


def test_from_a_local_file_to_an_artifact_in_s3(
    bucket: S3Bucket, server: ServerProcess, relay: Relay, dataset: Path, tmp_path: Path
) -> None:
    """The whole way of a user; files travel between client and bucket, and a deleted job leaves nothing there."""
    with Client(server.address, timeout=120) as client:
        job = client.compress(MODEL, dataset=dataset, budget=BUDGET, training=TRAINING)
        assert job.wait(timeout=120).state is JobState.SUCCEEDED, job.error
        before = relay.passed
        paths = job.result().download(tmp_path / "out")
        assert relay.passed - before > sum(path.stat().st_size for path in paths)
        kept = S3ObjectStore(bucket.settings).list(f"jobs/{job.id}/")
        assert {stored.key.split("/attempts/1/")[1] for stored in kept} == {
            path.relative_to(tmp_path / "out").as_posix() for path in paths
        }
        job.delete()
    assert S3ObjectStore(bucket.settings).list(f"jobs/{job.id}/") == []
    assert not (server.data_dir / "objects" / "keys").exists()


def test_a_broken_upload_resumes_with_the_parts_that_are_missing(
    bucket: S3Bucket, server: ServerProcess, relay: Relay, large_dataset: Path
) -> None:
    """Connections that break in the middle of parts cost those parts; the object is whole."""
    size = large_dataset.stat().st_size
    assert 1 < size / PART_BYTES < 3
    relay.cuts.extend([PART_BYTES // 2, 1000])
    with Client(server.address, timeout=120) as client:
        plan = client.plan(MODEL, dataset=large_dataset, budget=Budget(max_params=1_000_000))
    assert plan.dense.params > 0
    assert not relay.cuts
    (stored,) = [item for item in S3ObjectStore(bucket.settings).list("objects/") if item.size == size]
    digest = hashlib.sha256(b"".join(S3ObjectStore(bucket.settings).read(stored.key))).hexdigest()
    assert digest == hashlib.sha256(large_dataset.read_bytes()).hexdigest()


def test_asyncio_client(server: ServerProcess, relay: Relay, dataset: Path, tmp_path: Path) -> None:
    """Transfers by URL, broken too, beside a loop that goes on turning."""

    async def scenario() -> tuple[list[Path], int]:
        turns = 0

        async def turn() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0.01)

        turning = asyncio.create_task(turn())
        async with AsyncClient(server.address, timeout=120) as client:
            relay.cuts.append(1000)
            job = await client.compress(MODEL, dataset=dataset, budget=BUDGET, training=TRAINING)
            assert (await job.wait(timeout=120)).state is JobState.SUCCEEDED
            relay.cuts.extend([1500, 0])
            paths = await (await job.result()).download(tmp_path / "out")
        turning.cancel()
        return paths, turns

    paths, turns = asyncio.run(scenario())
    assert {path.name for path in paths} >= {"model.pt2", "report.json"}
    assert turns > 20
    assert not relay.cuts


def test_wrong_bytes_do_not_become_an_object(bucket: S3Bucket, stub: Stub) -> None:
    """They are dropped, and the file can be sent again; an upload that is given up leaves no parts."""
    data = b"bytes of this test alone"
    upload = begin(stub, data)
    (part,) = upload.files[0].parts.urls
    assert put_url(part.url, data[:-1] + b"!") == 200
    complete = pb.CompleteUploadRequest(name=upload.name)
    assert refused(stub.CompleteUpload, complete).reason == "HASH_MISMATCH"
    assert keys(bucket, upload) == []
    again = stub.GetUpload(pb.GetUploadRequest(name=upload.name), timeout=SECONDS).files[0]
    assert (again.committed, len(again.parts.urls)) == (0, 1)
    assert put_url(again.parts.urls[0].url, data + b"excess") == 200
    assert refused(stub.CompleteUpload, complete).reason == "UPLOAD_INCOMPLETE"
    assert put_url(again.parts.urls[0].url, data) == 200
    assert stub.CompleteUpload(complete, timeout=SECONDS).state == pb.UPLOAD_STATE_COMPLETE
    left = begin(stub, data[::-1])
    assert open_parts(bucket, left) == 1
    stub.DeleteUpload(pb.DeleteUploadRequest(name=left.name), timeout=SECONDS)
    assert open_parts(bucket, left) == open_parts(bucket, upload) == 0


def test_bytes_of_an_upload_do_not_go_through_the_server(stub: Stub) -> None:
    """WriteObject says where they go; what goes through the interface all the same is ReadObject."""
    upload = begin(stub, b"one")
    write = pb.WriteObjectRequest(upload=upload.name, path="data.npz", data=b"one")
    answer = refused(stub.WriteObject, iter([write]))
    assert (answer.code, answer.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "USE_PART_URLS")
    job = create(stub, job_on(store(stub, npz())))
    for _ in stub.WatchJob(pb.WatchJobRequest(name=job.name), timeout=120):
        pass
    file = stub.GetJob(pb.GetJobRequest(name=job.name), timeout=SECONDS).result.files[0]
    link = stub.GetDownload(pb.GetDownloadRequest(name=file.name), timeout=SECONDS)
    assert link.HasField("expire_time")
    status, data = get_url(link.url)
    assert (status, hashlib.sha256(data).hexdigest()) == (200, file.sha256)
    parts = stub.ReadObject(pb.ReadObjectRequest(name=file.name, offset=5), timeout=SECONDS)
    assert b"".join(part.data for part in parts) == data[5:]


def test_a_list_of_uploads_hands_out_no_urls(stub: Stub) -> None:
    """They come from CreateUpload and GetUpload alone."""
    upload = begin(stub, b"listed")
    listed = stub.ListUploads(pb.ListUploadsRequest(), timeout=SECONDS).uploads[0]
    assert listed.name == upload.name
    assert listed.files[0].WhichOneof("transfer") is None


@pytest.mark.parametrize("trouble", ["refused", "hung"])
def test_the_interface_while_s3_is_away(
    stub: Stub, bucket: S3Bucket, s3_server: S3Server, trouble: str
) -> None:
    """What needs no object works; what does is UNAVAILABLE and tells nothing of the bucket; then all is well."""
    job = create(stub, job_on(store(stub, npz())))
    s3_server.stop_proxy() if trouble == "refused" else s3_server.pause_proxy()
    try:
        assert stub.GetJob(pb.GetJobRequest(name=job.name), timeout=SECONDS).name == job.name
        assert stub.ListJobs(pb.ListJobsRequest(), timeout=SECONDS).jobs[0].name == job.name
        stub.CancelJob(pb.CancelJobRequest(name=job.name), timeout=SECONDS)
        data = f"while {trouble}".encode()
        file = pb.UploadFile(path="x", size=len(data), sha256=hashlib.sha256(data).hexdigest())
        answer = refused(stub.CreateUpload, pb.CreateUploadRequest(files=[file]))
        assert (answer.code, answer.reason) == (grpc.StatusCode.UNAVAILABLE, "STORAGE_UNAVAILABLE")
        assert bucket.settings.bucket not in answer.message
    finally:
        s3_server.start_proxy() if trouble == "refused" else s3_server.resume_proxy()
    assert len(begin(stub, b"after " + data).files[0].parts.urls) == 1


@pytest.mark.parametrize("setting", [{"s3_bucket": "no-such-bucket"}, {"s3_secret_key": "wrong"}])
def test_a_server_whose_bucket_refuses_it_does_not_start(
    s3: S3Bucket, tmp_path: Path, setting: dict[str, str]
) -> None:
    """One message for the operator, exit code 2, and no secret in it."""
    settings = {"data_dir": str(tmp_path), "listen": "127.0.0.1:0", **s3.environment(), **setting}
    run = subprocess.run(
        [sys.executable, "-m", "npn_service.main"],
        env={f"NPN_{name.upper()}": value for name, value in settings.items()},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert run.returncode == 2
    assert "NPN_S3_" in run.stderr
    assert s3.settings.secret_key not in run.stdout + run.stderr


def test_a_server_starts_while_s3_is_away(start_server: Callable[..., ServerProcess], s3: S3Bucket) -> None:
    """It waits for its bucket as it would later, and says so."""
    server = start_server(**s3.environment() | {"s3_endpoint": "http://127.0.0.1:1"})
    assert any(line["event"] == "s3.away" for line in server.log_lines())
    with Client(server.address, timeout=120) as client, pytest.raises(InvalidArgument):
        client.compress(MODEL, dataset="objects/none", budget=BUDGET)
