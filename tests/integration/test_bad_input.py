"""Every kind of bad input, against the running server: refused with the field and what would be right."""

import io
import time
import uuid
import zipfile
from collections.abc import Iterator

import grpc
import numpy as np
import pytest
from server_process import ServerProcess
from wire import SECONDS, Refusal, Stub, connect, create, job_on, npz, refused, upload

from npn.v1 import compression_pb2 as pb

LABELS = np.arange(120) % 4
IMAGES = np.zeros((120, 8, 8), dtype=np.uint8)


@pytest.fixture(scope="module")
def stub(server: ServerProcess) -> Iterator[Stub]:
    """A connection to the shared server."""
    with connect(server.address) as connected:
        yield connected


@pytest.fixture(scope="module")
def uri(stub: Stub) -> str:
    """A dataset that is right."""
    return upload(stub, npz())


def jobs(stub: Stub) -> set[str]:
    """Names of all jobs."""
    page = stub.ListJobs(pb.ListJobsRequest(page_size=1000), timeout=SECONDS)
    return {job.name for job in page.jobs}


def architecture(name: str, **params: str) -> pb.Model:
    """A model of the catalogue."""
    return pb.Model(architecture=pb.Architecture(name=name, params=params))


BAD_FIELDS = {
    "unknown architecture": ({"model": architecture("resnet-1000")}, "job.model.architecture.name", "mlp"),
    "unknown parameter": (
        {"model": architecture("mlp", depth="3")},
        "job.model.architecture.params[depth]",
        "hidden",
    ),
    "wrong parameter": (
        {"model": architecture("mlp", hidden="many")},
        "job.model.architecture.params[hidden]",
        "separated by commas",
    ),
    "dataset missing": ({"dataset": pb.Dataset(uri="objects/none")}, "job.dataset.uri", "does not exist"),
    "dataset not named": ({"dataset": pb.Dataset()}, "job.dataset.uri", "objects/{id}"),
    "a path of the server": ({"dataset": pb.Dataset(uri="/etc/passwd")}, "job.dataset.uri", "objects/{id}"),
    "a traversal": ({"dataset": pb.Dataset(uri="objects/../../x")}, "job.dataset.uri", "does not exist"),
    "no budget": ({"budget": pb.Budget()}, "job.budget", "max_params"),
    "zero budget": ({"budget": pb.Budget(max_params=0)}, "job.budget.max_params", "at least 1"),
    "zero epochs": ({"training": pb.Training(epochs=0)}, "job.training.epochs", "at least 1"),
    "negative epochs": ({"training": pb.Training(epochs=-3)}, "job.training.epochs", "at least 1"),
    "unknown estimator": ({"training": pb.Training(estimator="guess")}, "job.training.estimator", "disarm"),
    "NaN learning rate": ({"training": pb.Training(lr=float("nan"))}, "job.training.lr", "positive"),
}


@pytest.mark.parametrize("case", BAD_FIELDS.values(), ids=BAD_FIELDS.keys())
def test_a_wrong_field_is_named_before_anything_is_queued(
    stub: Stub, uri: str, case: tuple[dict[str, object], str, str]
) -> None:
    """INVALID_ARGUMENT with the field, what would be right, and no job left behind."""
    changes, field, right = case
    before = jobs(stub)
    answer = refused(stub.CreateJob, pb.CreateJobRequest(job=job_on(uri, **changes)))
    assert (answer.code, answer.fields) == (grpc.StatusCode.INVALID_ARGUMENT, (field,))
    assert right in answer.message
    assert jobs(stub) == before


def truncated() -> bytes:
    """An archive that broke off."""
    return npz()[:-200]


def npz_with_text() -> bytes:
    """An archive whose member is no array."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name in ("x_train", "y_train", "x_test", "y_test"):
            archive.writestr(f"{name}.npy", "not an array")
    return file.getvalue()


BAD_DATASETS = {
    "not an npz": ("DATASET_NOT_NPZ", b"PK but no archive" * 10, "npz"),
    "empty file": ("DATASET_NOT_NPZ", b"", "npz"),
    "truncated": ("DATASET_NOT_NPZ", truncated(), "intact"),
    "members are no arrays": ("DATASET_NOT_NPZ", npz_with_text(), "no npy array"),
    "pickled arrays": ("DATASET_PICKLED", npz(y_train=np.array([{}] * 120, dtype=object)), "y_train"),
    "missing names": ("DATASET_NAMES", npz(y_test=None), "y_test"),
    "flat images": ("DATASET_SHAPES", npz(x_train=np.zeros(120, dtype=np.uint8)), "x_train"),
    "test images of another shape": (
        "DATASET_SHAPES",
        npz(x_test=np.zeros((40, 9, 9), dtype=np.uint8)),
        "x_test",
    ),
    "as many labels as images": ("DATASET_SHAPES", npz(y_train=LABELS[:100]), "y_train"),
    "labels with two axes": ("DATASET_SHAPES", npz(y_train=LABELS[:, None]), "y_train"),
    "complex images": ("DATASET_DTYPE", npz(x_train=IMAGES.astype(np.complex64)), "x_train"),
    "text labels": ("DATASET_DTYPE", npz(y_train=LABELS.astype("U1")), "y_train"),
    "fractional labels": ("DATASET_DTYPE", npz(y_train=LABELS + 0.5), "y_train"),
    "negative labels": ("DATASET_LABELS", npz(y_train=LABELS - 1), "y_train"),
    "test labels out of range": ("DATASET_LABELS", npz(y_test=np.full(40, 9)), "y_test"),
    "empty training split": ("DATASET_EMPTY", npz(x_train=IMAGES[:0], y_train=LABELS[:0]), "x_train"),
    "empty test split": ("DATASET_EMPTY", npz(x_test=IMAGES[:0], y_test=LABELS[:0]), "x_test"),
}


@pytest.mark.parametrize("case", BAD_DATASETS.values(), ids=BAD_DATASETS.keys())
def test_a_wrong_dataset_is_refused(stub: Stub, case: tuple[str, bytes, str]) -> None:
    """What headers and labels tell is told at once, about the array that is wrong, and no job is left."""
    reason, data, named = case
    before = jobs(stub)
    answer = refused(stub.CreateJob, pb.CreateJobRequest(job=job_on(upload(stub, data))))
    assert (answer.code, answer.fields) == (grpc.StatusCode.INVALID_ARGUMENT, ("job.dataset.uri",))
    assert answer.reason == reason
    assert named in answer.message
    assert "/" not in answer.message  # no path of the server
    assert jobs(stub) == before


def refused_model(stub: Stub, dataset: str, model: str) -> Refusal:
    """How a job on a network of the caller's own is refused; such a job says what its images are."""
    training = pb.Training(epochs=2, preprocessing=pb.Preprocessing(mode="none"))
    job = job_on(dataset, model=pb.Model(uri=model), training=training)
    return refused(stub.CreateJob, pb.CreateJobRequest(job=job))


BAD_MODELS = {
    "a text file": b"not an archive, whatever its name says",
    "an empty file": b"",
    "a zip without a network": npz(),
    "half an archive": npz()[:-200],
}


@pytest.mark.parametrize("data", BAD_MODELS.values(), ids=BAD_MODELS.keys())
def test_a_wrong_model_is_refused(server: ServerProcess, stub: Stub, uri: str, data: bytes) -> None:
    """A file that is no archive of torch.export names model.uri, no path of the server, and leaves no job."""
    before = jobs(stub)
    answer = refused_model(stub, uri, upload(stub, data, "net.pt2"))
    assert (answer.code, answer.fields) == (grpc.StatusCode.INVALID_ARGUMENT, ("job.model.uri",))
    assert str(server.data_dir) not in answer.message
    assert jobs(stub) == before


@pytest.mark.parametrize(
    ("own", "right"),
    [
        ("", "objects/{id}"),
        ("objects/none", "does not exist"),
        ("objects/../../x", "does not exist"),
        ("/etc/passwd", "objects/{id}"),
        ("file:///etc/passwd", "objects/{id}"),
        ("s3://bucket/net.pt2", "upload the file"),
    ],
)
def test_a_model_elsewhere_is_refused(stub: Stub, uri: str, own: str, right: str) -> None:
    """What names no object of the caller names model.uri and what would be right."""
    answer = refused_model(stub, uri, own)
    assert (answer.code, answer.fields) == (grpc.StatusCode.INVALID_ARGUMENT, ("job.model.uri",))
    assert right in answer.message


def test_a_dataset_given_as_a_model_is_refused(stub: Stub, uri: str) -> None:
    """And a model given as a dataset names the dataset."""
    assert refused_model(stub, uri, uri).fields == ("job.model.uri",)
    model = upload(stub, b"a model", "net.pt2")
    assert refused_model(stub, model, model).fields == ("job.dataset.uri",)


@pytest.mark.parametrize("kind", ["max_params", "max_macs", "max_bytes"])
def test_a_budget_that_nothing_meets_names_the_range(stub: Stub, uri: str, kind: str) -> None:
    """The refusal says what the smallest and the dense network cost."""
    plan = create(stub, job_on(uri), validate_only=True).plan
    cost = kind.removeprefix("max_")
    smallest, dense = getattr(plan.smallest, cost), getattr(plan.dense, cost)
    job = job_on(uri, budget=pb.Budget(**{kind: smallest - 1}))
    answer = refused(stub.CreateJob, pb.CreateJobRequest(job=job))
    assert (answer.code, answer.fields) == (grpc.StatusCode.INVALID_ARGUMENT, (f"job.budget.{kind}",))
    assert answer.reason == "BUDGET_INFEASIBLE"
    plain = answer.message.replace(",", "")
    assert str(smallest) in plain
    assert str(dense) in plain


def test_a_job_without_content_is_refused(stub: Stub) -> None:
    """An empty request names the job."""
    assert refused(stub.CreateJob, pb.CreateJobRequest()).fields == ("job",)


def test_a_request_id_is_a_uuid(stub: Stub, uri: str) -> None:
    """Anything else is refused."""
    request = pb.CreateJobRequest(job=job_on(uri), request_id="today")
    assert refused(stub.CreateJob, request).fields == ("request_id",)


def test_a_request_id_belongs_to_one_request(stub: Stub, uri: str) -> None:
    """The same request gives the same job, another one ALREADY_EXISTS; a refused one takes no id."""
    request_id = str(uuid.uuid4())
    wrong = job_on(uri, training=pb.Training(epochs=0))
    refused(stub.CreateJob, pb.CreateJobRequest(job=wrong, request_id=request_id))
    checked = create(stub, job_on(uri), request_id=request_id, validate_only=True)
    assert checked.state == pb.JOB_STATE_UNSPECIFIED
    first = create(stub, job_on(uri), request_id=request_id)
    assert create(stub, job_on(uri), request_id=request_id).name == first.name
    other = pb.CreateJobRequest(job=job_on(uri, priority=1), request_id=request_id)
    answer = refused(stub.CreateJob, other)
    assert (answer.code, answer.reason) == (grpc.StatusCode.ALREADY_EXISTS, "REQUEST_ID_REUSED")
    stub.CancelJob(pb.CancelJobRequest(name=first.name), timeout=SECONDS)


def test_validate_only_plans_and_stores_nothing(stub: Stub, uri: str) -> None:
    """The answer has every default and the plan, but no name and no state, and no job is made."""
    before = jobs(stub)
    checked = create(stub, job_on(uri), validate_only=True)
    assert (checked.name, checked.state) == ("", pb.JOB_STATE_UNSPECIFIED)
    assert checked.training.estimator == "straight-through"
    assert checked.plan.dense.params > checked.plan.smallest.params > 0
    assert checked.plan.dataset.classes == 4
    assert [group.size for group in checked.plan.groups]
    assert jobs(stub) == before


def finished(stub: Stub, job: pb.Job) -> pb.Job:
    """The job in its terminal state."""
    deadline = time.monotonic() + 60
    while not job.done:
        assert time.monotonic() < deadline, f"{job.name} is still {pb.JobState.Name(job.state)}"
        time.sleep(0.1)
        job = stub.GetJob(pb.GetJobRequest(name=job.name), timeout=SECONDS)
    return job


def test_what_only_the_whole_data_tell_fails_the_job(stub: Stub) -> None:
    """NaN in the images ends the job FAILED before training, with the field that was wrong."""
    images = np.zeros((120, 8, 8), dtype=np.float32)
    images[-1, -1, -1] = np.nan
    data = npz(x_train=images, x_test=np.zeros((40, 8, 8), dtype=np.float32))
    job = finished(stub, create(stub, job_on(upload(stub, data))))
    assert (job.state, job.error.code) == (pb.JOB_STATE_FAILED, grpc.StatusCode.INVALID_ARGUMENT.value[0])
    assert b"job.dataset.uri" in job.error.SerializeToString()
    assert job.progress.step == 0


def test_a_loss_that_is_not_a_number_fails_the_job(stub: Stub, uri: str) -> None:
    """The error says at which step, and what to change."""
    training = pb.Training(epochs=5, batch_size=16, lr=1e30)
    job = finished(stub, create(stub, job_on(uri, training=training)))
    assert job.state == pb.JOB_STATE_FAILED
    assert "step" in job.error.message
    assert "lr" in job.error.message
