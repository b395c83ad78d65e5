"""Uploads and downloads over real gRPC, interrupted in every way."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from scripted_server import ScriptedServer, job

from npn.v1 import compression_pb2 as pb
from npn_client import Budget, Client, Dataset, InvalidArgument, TransferFailed
from npn_client.retry import ATTEMPTS, Resumption

DATA = bytes(range(256)) * 20  # 5,120 bytes: six chunks


@pytest.fixture
def scripted() -> Iterator[ScriptedServer]:
    """A server that does as it is told."""
    with ScriptedServer() as server:
        yield server


@pytest.fixture
def client(scripted: ScriptedServer) -> Iterator[Client]:
    """A client of it."""
    with Client(scripted.address, timeout=10) as client:
        yield client


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """A local file."""
    path = tmp_path / "digits.npz"
    path.write_bytes(DATA)
    return path


def submit(client: Client, dataset: Path) -> None:
    """Compress something on a local dataset."""
    client.compress("mlp", dataset=Dataset(dataset, layout="NHWC"), budget=Budget(max_params=10))


def with_artifact(scripted: ScriptedServer, files: dict[str, bytes], path: str | None = None) -> None:
    """Let the scripted job have succeeded with these files (under another path, if given)."""
    result = pb.Result()
    for name, data in files.items():
        resource = f"jobs/1/artifact/{name}"
        digest = hashlib.sha256(data).hexdigest()
        result.files.add(name=resource, path=path or name, size=len(data), sha256=digest)
        scripted.files[resource] = data
    scripted.job = job(pb.JOB_STATE_SUCCEEDED, 5, result=result)


def test_a_local_dataset_is_uploaded(scripted: ScriptedServer, client: Client, dataset: Path) -> None:
    """The job refers to the object that the file became; the layout stays."""
    submit(client, dataset)
    assert scripted.stored["uploads/1"] == DATA
    sent = scripted.requests["CreateJob"][0].job.dataset
    assert (sent.uri, sent.layout) == ("objects/1", "NHWC")


def test_an_interrupted_upload_resumes(scripted: ScriptedServer, client: Client, dataset: Path) -> None:
    """What is committed is not sent again."""
    scripted.cuts.extend([2000, 0, 1000])
    submit(client, dataset)
    assert scripted.stored["uploads/1"] == DATA
    assert [request.offset for request in scripted.requests["WriteObject"]] == [0, 2000, 2000, 3000]


def test_an_upload_outlives_a_server_that_is_away(
    scripted: ScriptedServer, client: Client, dataset: Path
) -> None:
    """That nobody says for a while how much arrived is no end either."""
    scripted.cuts.append(2000)
    scripted.faults["GetUpload"].extend([grpc.StatusCode.UNAVAILABLE] * ATTEMPTS)
    submit(client, dataset)
    assert scripted.stored["uploads/1"] == DATA
    assert [request.offset for request in scripted.requests["WriteObject"]] == [0, 2000]


@pytest.mark.parametrize("change", ["shorter", "gone"])
def test_a_file_that_changes_on_the_way(
    scripted: ScriptedServer, client: Client, dataset: Path, change: str
) -> None:
    """It is said of the file, and not of the server or the request."""

    def changed(*_: object) -> float:
        if change == "gone":
            dataset.unlink()
        else:
            dataset.write_bytes(DATA[:2000])
        return 0.0

    scripted.cuts.append(2000)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Resumption, "after", changed)
        with pytest.raises(TransferFailed, match=r"digits\.npz changed while it was sent"):
            submit(client, dataset)


def test_an_upload_of_an_earlier_run_is_continued(
    scripted: ScriptedServer, client: Client, dataset: Path
) -> None:
    """A client that died left an open upload; the next one goes on with it."""
    scripted.uploads["uploads/9"] = pb.Upload(
        name="uploads/9",
        state=pb.UPLOAD_STATE_OPEN,
        files=[
            pb.UploadFile(
                path="digits.npz",
                size=len(DATA),
                sha256=hashlib.sha256(DATA).hexdigest(),
                write_object=pb.WriteObjectTransfer(max_chunk_bytes=1000),
            )
        ],
    )
    scripted.stored["uploads/9"] = DATA[:3000]
    submit(client, dataset)
    assert scripted.stored["uploads/9"] == DATA
    assert [request.offset for request in scripted.requests["WriteObject"]] == [3000]
    assert not scripted.requests["CreateUpload"]


def test_a_folder_is_one_object(scripted: ScriptedServer, client: Client, tmp_path: Path) -> None:
    """Every file of it is sent under its relative path, each resumed by itself."""
    (tmp_path / "data/train").mkdir(parents=True)
    (tmp_path / "data/train/0.parquet").write_bytes(DATA)
    (tmp_path / "data/test.parquet").write_bytes(DATA[::-1])
    scripted.cuts.extend([1000, 2000, 0])
    submit(client, tmp_path / "data")
    assert scripted.stored["uploads/1/train/0.parquet"] == DATA
    assert scripted.stored["uploads/1/test.parquet"] == DATA[::-1]
    assert scripted.requests["CreateJob"][0].job.dataset.uri == "objects/1"


def test_a_model_file_is_uploaded_beside_the_dataset(
    scripted: ScriptedServer, client: Client, dataset: Path, tmp_path: Path
) -> None:
    """A .pt2 and the dataset become an object each; URIs of either are sent as they are."""
    (tmp_path / "net.pt2").write_bytes(b"weights")
    budget = Budget(max_params=10)
    client.compress(str(tmp_path / "net.pt2"), dataset=dataset, budget=budget)
    client.compress("s3://models/net.pt2", dataset="objects/7", budget=budget)
    first, second = (request.job for request in scripted.requests["CreateJob"])
    assert (first.model.uri, first.dataset.uri) == ("objects/1", "objects/2")
    assert (scripted.stored["uploads/1"], scripted.stored["uploads/2"]) == (b"weights", DATA)
    assert (second.model.uri, second.dataset.uri) == ("s3://models/net.pt2", "objects/7")


def test_a_model_that_is_no_file_is_refused_here(scripted: ScriptedServer, client: Client) -> None:
    """A missing archive names its field before anything is sent."""
    with pytest.raises(InvalidArgument, match=r"absent\.pt2") as raised:
        client.compress("absent.pt2", dataset="objects/7", budget=Budget(max_params=10))
    assert raised.value.violations[0].field == "job.model.uri"
    assert not scripted.requests


def test_known_bytes_are_not_sent(scripted: ScriptedServer, client: Client, dataset: Path) -> None:
    """A file that the server has already is not uploaded a second time."""
    submit(client, dataset)
    submit(client, dataset)
    assert len(scripted.requests["WriteObject"]) == 1
    assert [request.job.dataset.uri for request in scripted.requests["CreateJob"]] == ["objects/1"] * 2


def test_download(scripted: ScriptedServer, client: Client, tmp_path: Path) -> None:
    """Every file arrives under its path; a second download fetches nothing."""
    with_artifact(scripted, {"model.pt2": DATA, "sub/report.json": b"{}"})
    result = client.get_job("1").result()
    paths = result.download(tmp_path / "out")
    assert [path.relative_to(tmp_path / "out").as_posix() for path in paths] == [
        "model.pt2",
        "sub/report.json",
    ]
    assert paths[0].read_bytes() == DATA
    result.download(tmp_path / "out")
    assert len(scripted.requests["ReadObject"]) == 2


def test_an_interrupted_download_resumes(scripted: ScriptedServer, client: Client, tmp_path: Path) -> None:
    """Bytes that arrived are not fetched again."""
    with_artifact(scripted, {"model.pt2": DATA})
    scripted.cuts.extend([1050, 0, 3000])
    (path,) = client.get_job("1").result().download(tmp_path)
    assert path.read_bytes() == DATA
    assert [request.offset for request in scripted.requests["ReadObject"]] == [0, 1050, 1050, 4050]
    assert [item.name for item in tmp_path.iterdir()] == ["model.pt2"]


def test_a_damaged_download(scripted: ScriptedServer, client: Client, tmp_path: Path) -> None:
    """Bytes that do not match their hash never become a file."""
    with_artifact(scripted, {"model.pt2": DATA})
    scripted.files["jobs/1/artifact/model.pt2"] = DATA[:-1] + b"!"
    with pytest.raises(TransferFailed, match="damaged"):
        client.get_job("1").result().download(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_an_unsafe_path(scripted: ScriptedServer, client: Client, tmp_path: Path) -> None:
    """A server cannot make the client write outside the folder."""
    with_artifact(scripted, {"model.pt2": DATA}, path="../model.pt2")
    with pytest.raises(TransferFailed, match="unsafe path"):
        client.get_job("1").result().download(tmp_path / "out")
    assert not (tmp_path / "model.pt2").exists()
