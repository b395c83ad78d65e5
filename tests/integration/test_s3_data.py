"""Datasets and models in a bucket, read by whole jobs and by their parts, on a real S3 server."""

import io
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from job_samples import SPEC
from s3_server import S3Bucket, S3Server, make_bucket
from server_process import ServerProcess
from wire import npz
from worker_lab import OWNER, TESTS, Lab, wait_until, worker_pids

from npn_client import Architecture, Budget, Client, InvalidArgument, JobFailed, Training
from npn_service.errors import InvalidRequest
from npn_service.jobs.inputs import DATASET
from npn_service.jobs.model import DatasetRef, Job, JobSpec, ModelRef, State
from npn_service.storage.s3_client import S3Client
from npn_service.storage.uris import EVERYTHING

MLP = Architecture("mlp", {"hidden": 8})
BUDGET, TRAINING = Budget(max_params=400), Training(epochs=1, batch_size=32)
SECONDS = 120


class Data:
    """A bucket of data, and what a test puts there."""

    def __init__(self, bucket: S3Bucket) -> None:
        self.bucket = bucket
        self._client = S3Client(bucket.settings)

    def put(self, key: str, data: bytes) -> str:
        """Store bytes; their URI."""
        bucket, minio = self.bucket.settings.bucket, self._client.minio
        self._client.call(lambda: minio.put_object(bucket, key, io.BytesIO(data), len(data)))
        return self.uri(key)

    def remove(self, key: str) -> None:
        """Remove a key."""
        self._client.call(self._client.minio.remove_object, self.bucket.settings.bucket, key)

    def uri(self, key: str) -> str:
        """The URI of a key."""
        return f"s3://{self.bucket.settings.bucket}/{key}"


@pytest.fixture
def data(s3: S3Bucket) -> Data:
    """An empty bucket."""
    return Data(s3)


@pytest.fixture
def lab(tmp_path: Path, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    """A lab whose server has an S3 service, with another bucket for its own objects."""
    monkeypatch.setenv("PYTHONPATH", str(TESTS))
    made = Lab(tmp_path, s3=make_bucket(s3_server).settings)
    yield made
    made.close()
    assert not worker_pids()


def parquet(folder: Path) -> dict[str, bytes]:
    """Small images of two classes in two training shards and a test shard, by name."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    from PIL import Image

    random = np.random.default_rng(0)

    def image(label: int) -> bytes:
        out = io.BytesIO()
        pixels = random.integers(0, 128, (4, 4), dtype=np.uint8) + 127 * label
        Image.fromarray(pixels.astype(np.uint8)).save(out, "PNG")
        return out.getvalue()

    shards = {}
    for name in ("train-0", "train-1", "test-0"):
        labels = [at % 2 for at in range(40)]
        rows = pa.table(
            {
                "image": pa.array([{"bytes": image(label), "path": None} for label in labels]),
                "label": pa.array(labels),
            }
        )
        pq.write_table(rows, folder / name)
        shards[f"{name}.parquet"] = (folder / name).read_bytes()
    return shards


def safetensors(arrays: dict[str, np.ndarray[Any, Any]]) -> bytes:
    """The arrays as a file."""
    from safetensors.numpy import save

    return save(arrays)


def spec_on(uri: str, *, model: str | None = None) -> JobSpec:
    """A job on these URIs."""
    spec = replace(SPEC, dataset=DatasetRef(uri=uri))
    return spec if model is None else replace(spec, model=ModelRef(uri=model))


def find(lab: Lab, spec: JobSpec, read_prefixes: tuple[str, ...] = EVERYTHING) -> dict[str, list[str]]:
    """URIs of what the job would read, by field."""
    found = lab.inputs.find(owner=OWNER, spec=spec, read_prefixes=read_prefixes)
    return {name: [source.uri for source in sources] for name, sources in found.items()}


def create(lab: Lab, uri: str, script: str = "succeed") -> Job:
    """A queued job on the data as they are now."""
    spec = replace(spec_on(uri), labels={"script": script})
    sources = lab.inputs.find(owner=OWNER, spec=spec, read_prefixes=EVERYTHING)
    return lab.store.create_job(
        owner=OWNER, creator=OWNER, spec=spec, plan=None, request_id="", request_hash="", sources=sources
    )


def test_whole_jobs(
    data: Data, s3_server: S3Server, start_server: Callable[..., ServerProcess], tmp_path: Path
) -> None:
    """npz, safetensors and a folder of Parquet train from their URIs, objects of the service in S3 as well."""
    server = start_server(**make_bucket(s3_server).environment())
    server.warm()
    random = np.random.default_rng(0)
    y = random.integers(0, 2, 100)
    x = (random.normal(size=(100, 6)) + y[:, None]).astype(np.float32)
    arrays = {"x_train": x[:80], "y_train": y[:80], "x_test": x[80:], "y_test": y[80:]}
    for name, content in {**parquet(tmp_path), "README.md": b"not read"}.items():
        data.put(f"images/{name}", content)
    uris = [
        data.put("clouds.npz", npz()),
        data.put("deep/down/clouds.safetensors", safetensors(arrays)),
        data.uri("images/"),
    ]
    with Client(server.address) as client:
        assert {"dataset.s3", "model.s3"} <= set(client.server_info().features)
        for uri in uris:
            job = client.compress(MLP, dataset=uri, budget=BUDGET, training=TRAINING)
            assert job.plan is not None, "a small dataset is checked when the job is created"
            result = job.result(timeout=SECONDS)
            assert result.compact.params <= BUDGET.max_params
    fetched = {path.name for path in (server.data_dir / "cache").glob("*/files/*")}
    assert fetched == {"clouds.npz", "clouds.safetensors", *parquet(tmp_path)}


def test_a_model_in_the_bucket(data: Data, lab: Lab, tmp_path: Path) -> None:
    """A model is one object; a folder, or what is gone, is none, and it may lie beside the data."""
    uri, model = data.put("net/data.npz", b"data"), data.put("net/net.pt2", b"model")
    assert find(lab, spec_on(uri, model=model)) == {DATASET: [uri], "job.model.uri": [model]}
    for wrong in (data.uri("net"), data.uri("net/"), data.uri("other.pt2")):
        with pytest.raises(InvalidRequest) as refused:
            find(lab, spec_on(uri, model=wrong))
        assert refused.value.violations[0].field == "job.model.uri"
    sources = lab.inputs.find(owner=OWNER, spec=spec_on(uri, model=model), read_prefixes=EVERYTHING)
    with lab.inputs.hold(
        owner=OWNER, spec=spec_on(uri, model=model), sources=sources, stop=threading.Event()
    ) as inputs:
        assert (inputs.dataset.name, inputs.dataset.read_bytes()) == ("data.npz", b"data")
        assert inputs.model is not None
        assert (inputs.model.name, inputs.model.read_bytes()) == ("net.pt2", b"model")


def test_what_a_folder_gives(data: Data, lab: Lab) -> None:
    """The Parquet files below it, or the one file there; hidden files and other things are left alone."""
    for key in ("p/train-0.parquet", "p/a/test-0.parquet", "p/notes.txt", "p/.hidden.parquet", "q/one.npz"):
        data.put(key, b"x")
    assert find(lab, spec_on(data.uri("p"))) == {
        DATASET: [data.uri("p/a/test-0.parquet"), data.uri("p/train-0.parquet")]
    }
    assert find(lab, spec_on(data.uri("q/"))) == {DATASET: [data.uri("q/one.npz")]}
    data.put("q/two.npz", b"x")
    with pytest.raises(InvalidRequest, match="2 files; it must be Parquet files, or one npz") as refused:
        find(lab, spec_on(data.uri("q/")))
    assert refused.value.violations[0].field == DATASET


def test_a_name_that_cannot_be_read_is_refused_at_once(data: Data, lab: Lab) -> None:
    """An escaped slash, as Hive writes it, would be another key wherever a URI is taken apart."""
    data.put("h/day=a%2Fb/train-0.parquet", b"x")
    with pytest.raises(InvalidRequest, match="%2F") as refused:
        find(lab, spec_on(data.uri("h")))
    assert refused.value.violations[0].field == DATASET


def test_what_may_not_be_read_does_not_exist(data: Data, lab: Lab, s3_server: S3Server) -> None:
    """No such key, no such bucket, not below the caller's prefixes, the service's own keys: one answer for all."""
    uri = data.put("team/a.npz", b"x")
    assert lab.s3 is not None
    inner = Data(S3Bucket(server=s3_server, settings=lab.s3))
    own = [inner.put(f"{folder}/ann/secret.npz", b"x") for folder in ("objects", "uploads", "jobs")]
    missing = data.uri("team/b.npz")
    asked = [(missing, EVERYTHING), ("s3://no-such-bucket/a", EVERYTHING), (uri, ()), (missing, ())]
    asked += [(uri, (data.uri("team/a"), "s3://other/")), *((one, EVERYTHING) for one in own)]
    for wrong, prefixes in asked:
        with pytest.raises(InvalidRequest) as refused:
            find(lab, spec_on(wrong), prefixes)
        violation = refused.value.violations[0]
        assert violation.field == DATASET
        assert violation.description == f"{wrong} does not exist, or is not yours to read"
    assert find(lab, spec_on(uri), (data.uri("team/"),)) == {DATASET: [uri]}
    with pytest.raises(InvalidRequest, match="percent sign"):
        find(lab, spec_on(data.uri("team/%2e%2e/a.npz")))


def test_a_server_without_s3(tmp_path: Path) -> None:
    """It says so, and what to do instead."""
    lab = Lab(tmp_path)
    with pytest.raises(InvalidRequest, match="no S3; upload the file") as refused:
        find(lab, spec_on("s3://data/a.npz"))
    assert refused.value.reason == "UNSUPPORTED"
    lab.close()


@pytest.mark.parametrize("how", ["overwritten", "removed"])
def test_changed_data_fail_the_job(data: Data, lab: Lab, how: str) -> None:
    """Data that are others when an attempt reads them end the job before training, with the key."""
    uri = data.put("a.npz", b"first")
    first = create(lab, uri)
    lab.dispatcher()
    lab.wait(first)
    assert lab.get(first).state is State.SUCCEEDED
    (source,) = lab.store.get_sources(job_id=first.id)[DATASET]
    assert source.sha256 == "a7937b64b8caa58f03721bb6bacf5c78cb235febe0e70b1b84cd99541461a08e"
    lab.dispatchers[0].drain()
    second = create(lab, uri)
    if how == "overwritten":
        data.put("a.npz", b"other")
    else:
        data.remove("a.npz")
    lab.dispatchers.clear()
    lab.dispatcher()
    ended = lab.wait(second)
    assert ended.state is State.FAILED
    assert ended.error is not None
    assert (ended.error.reason, ended.error.field) == ("DATASET_CHANGED", "dataset.uri")
    assert ended.error.message.startswith(f"{uri} has changed")
    assert ended.progress is None


def test_changed_while_it_is_read(data: Data, lab: Lab) -> None:
    """Every read demands the very object that was found, also one that goes on in the middle."""
    uri = data.put("a.npz", b"a" * 3_000_000)
    assert lab.sources is not None
    (source,) = lab.sources.find(uri, folder=True)
    reading = lab.sources.read(source, 0)
    next(reading)
    data.put("a.npz", b"b" * 3_000_000)
    reading.close()
    spec = spec_on(uri)
    with (
        pytest.raises(InvalidRequest) as refused,
        lab.inputs.hold(owner=OWNER, spec=spec, sources={DATASET: [source]}, stop=threading.Event()),
    ):
        pass
    assert refused.value.reason == "DATASET_CHANGED"
    wanted_again = lab.sources.read(source, 1_000_000)
    with pytest.raises(Exception, match="another by now"):
        next(wanted_again)


def test_an_outage_costs_no_attempt(data: Data, lab: Lab, s3_server: S3Server) -> None:
    """S3 goes away in the middle of a download and comes back: the first attempt reads on and succeeds."""
    content = np.random.default_rng(0).bytes(30 << 20).hex().encode()
    uri = data.put("large.npz", content)
    job = create(lab, uri)
    lab.dispatcher(lease_seconds=2.0)
    unfinished = lab.folder / "cache"
    wait_until(lambda: any(path.stat().st_size > 0 for path in unfinished.glob("*.part/files/*")))
    s3_server.stop_proxy()
    try:
        time.sleep(5.0)  # longer than the lease
        waiting = lab.get(job)
        assert (waiting.state, waiting.attempt) == (State.RUNNING, 1)
    finally:
        s3_server.start_proxy()
    ended = lab.wait(job)
    assert (ended.state, ended.attempt) == (State.SUCCEEDED, 1)
    assert lab.facts(ended)["dataset"].encode() == content


def test_a_cancel_ends_a_download_that_hangs(data: Data, lab: Lab, s3_server: S3Server) -> None:
    """A job whose data do not come is cancelled within seconds, and so is a server that stops."""
    uri = data.put("a.npz", b"data")
    job = create(lab, uri)
    s3_server.pause_proxy()
    try:
        lab.dispatcher()
        lab.wait(job, lambda job: job.state is State.RUNNING)
        asked = time.monotonic()
        lab.store.cancel_job(owner=OWNER, job_id=job.id)
        lab.wait(job)
        assert time.monotonic() - asked < 8.0
        assert lab.get(job).state is State.CANCELLED
    finally:
        s3_server.resume_proxy()


def test_an_outage_when_a_job_is_created(data: Data, lab: Lab, s3_server: S3Server) -> None:
    """Whoever creates a job hears within seconds that S3 is away."""
    uri = data.put("a.npz", b"data")
    s3_server.stop_proxy()
    try:
        asked = time.monotonic()
        with pytest.raises(Exception, match="object store does not answer"):
            find(lab, spec_on(uri))
        assert time.monotonic() - asked < 8.0
    finally:
        s3_server.start_proxy()


def test_over_the_wire(data: Data, s3_server: S3Server, start_server: Callable[..., ServerProcess]) -> None:
    """What is wrong with a URI names its field; data that changed while a job waited fail it with the reason."""
    environment = make_bucket(s3_server).environment()
    server = start_server(workers="0", **environment)
    uri = data.put("clouds.npz", npz())
    with Client(server.address) as client:
        for wrong in (data.uri("nothing"), "s3://data/../a", data.put("text.npz", b"no archive")):
            with pytest.raises(InvalidArgument) as refused:
                client.compress(MLP, dataset=wrong, budget=BUDGET)
            assert [violation.field for violation in refused.value.violations] == ["job.dataset.uri"]
        job = client.compress(MLP, dataset=uri, budget=BUDGET, training=TRAINING)
    assert server.stop() == 0
    data.put("clouds.npz", npz() + b"more")
    again = start_server(data_dir=server.data_dir, **environment)
    with (
        Client(again.address) as client,
        pytest.raises(JobFailed, match="has changed since the job") as failed,
    ):
        client.get_job(job.id).result(timeout=SECONDS)
    assert failed.value.reason == "DATASET_CHANGED"
