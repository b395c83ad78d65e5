"""rpc/decode.py and rpc/encode.py: messages and dataclasses."""

from dataclasses import fields, replace
from datetime import UTC, datetime
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration
from job_samples import ERROR, PLAN, RESULT, SPEC, progress_at

from npn.v1 import compression_pb2 as pb
from npn_core.config import Budget, KSchedule, Preprocessing, Training
from npn_core.errors import InvalidInput
from npn_core.progress import Stage, Unpruned
from npn_service.errors import InvalidRequest
from npn_service.jobs.model import (
    ArchitectureModel,
    ArtifactFile,
    DatasetRef,
    Event,
    FileSpec,
    Job,
    JobSpec,
    ModelRef,
    State,
    Upload,
    UploadState,
)
from npn_service.rpc import decode, encode
from npn_service.storage.store import Incoming, Link

NOW = datetime(2026, 1, 31, tzinfo=UTC)
OBJECT = DatasetRef(uri="objects/1")


def decode_spec(message: pb.Job) -> JobSpec:
    """With the limits of these tests."""
    return decode.decode_spec(message, max_epochs=100, default_threads=3)


def a_job(**changes: Any) -> pb.Job:
    """The smallest job that is right, with changes; None clears a field."""
    message = pb.Job(
        compress=pb.CompressTask(),
        model=pb.Model(architecture=pb.Architecture(name="lenet5-caffe")),
        dataset=pb.Dataset(uri="objects/1"),
        budget=pb.Budget(max_params=10_000),
    )
    for name, value in changes.items():
        message.ClearField(name)  # type: ignore[arg-type]
        if value is not None:
            message.MergeFrom(pb.Job(**{name: value}))
    return message


def field_of(message: pb.Job) -> tuple[str, str]:
    """The field and the reason that a job is refused for."""
    with pytest.raises((InvalidRequest, InvalidInput)) as caught:
        decode_spec(message)
    error = caught.value
    if isinstance(error, InvalidInput):
        return f"job.{error.field}", error.reason
    return error.violations[0].field, error.reason


def test_every_default_is_filled_in() -> None:
    """A job that says only what it must gets the rest from the defaults, threads from the server."""
    spec = decode_spec(a_job())
    assert spec.training == Training(threads=3)
    assert spec.model == ArchitectureModel(name="lenet5-caffe", params={"widths": "20,50,500"})
    assert spec.budget == Budget(max_params=10_000)


@pytest.mark.parametrize(
    "spec",
    [
        replace(SPEC, dataset=OBJECT),
        replace(
            SPEC,
            dataset=replace(OBJECT, layout="NHWC"),
            budget=Budget(max_macs=5, max_bytes=6, max_accuracy_drop_points=0.5),
            training=Training(
                epochs=3,
                batch_size=7,
                lr=0.5,
                gate_lr=0.25,
                weight_decay=0.125,
                k=KSchedule(dense_fraction=0.5, plastic_fraction=0.25, start=1.0, end=8.0),
                estimator="arm",
                preprocessing=Preprocessing(mode="fixed", scale=0.5, mean=(1.0, 2.0), std=(3.0, 4.0)),
                seed=9,
                threads=2,
                distillation=0.0,
                thinnest_branch=0.25,
                mask="random",
                loss="mse",
                output="logits",
                augment="crop-flip",
                from_scratch=True,
                round_to=8,
                optimizer="sgd",
                units="weights",
                precision="bfloat16",
            ),
            labels={},
            priority=-3,
            max_duration=None,
        ),
        replace(SPEC, dataset=OBJECT, model=ModelRef(uri="objects/2")),
    ],
)
def test_a_spec_survives_the_wire(spec: JobSpec) -> None:
    """What a caller sets comes back, field by field."""
    assert decode_spec(encode.encode_spec(spec)) == spec


def test_zero_is_not_absent() -> None:
    """Fields with presence keep a zero: epochs = 0 is refused, not replaced by the default."""
    assert field_of(a_job(training=pb.Training(epochs=0)))[0] == "job.training.epochs"


@pytest.mark.parametrize(
    ("message", "field", "reason"),
    [
        (a_job(compress=None), "job.compress", "INVALID_FIELD"),
        (a_job(compress=None, expand=pb.ExpandTask(awake={"fc1": 0})), "job.expand.awake", "INVALID_FIELD"),
        (a_job(model=None), "job.model.architecture.name", "INVALID_FIELD"),
        (a_job(model=pb.Model(uri="")), "job.model.uri", "INVALID_FIELD"),
        (
            a_job(model=pb.Model(architecture=pb.Architecture(name="vgg"))),
            "job.model.architecture.name",
            "ARCHITECTURE_UNKNOWN",
        ),
        (
            a_job(model=pb.Model(architecture=pb.Architecture(name="mlp", params={"depth": "3"}))),
            "job.model.architecture.params[depth]",
            "ARCHITECTURE_PARAM_UNKNOWN",
        ),
        (a_job(dataset=None), "job.dataset.uri", "INVALID_FIELD"),
        (
            a_job(dataset=pb.Dataset(uri="objects/1", layout="CHWN")),
            "job.dataset.layout",
            "INVALID_FIELD",
        ),
        (a_job(budget=None), "job.budget", "INVALID_FIELD"),
        (a_job(budget=pb.Budget(max_params=0)), "job.budget.max_params", "INVALID_FIELD"),
        (
            a_job(budget=pb.Budget(max_accuracy_drop_points=101)),
            "job.budget.max_accuracy_drop_points",
            "INVALID_FIELD",
        ),
        (a_job(training=pb.Training(epochs=101)), "job.training.epochs", "INVALID_FIELD"),
        (a_job(training=pb.Training(estimator="magic")), "job.training.estimator", "INVALID_FIELD"),
        (a_job(training=pb.Training(lr=float("nan"))), "job.training.lr", "INVALID_FIELD"),
        (a_job(training=pb.Training(loss="hinge")), "job.training.loss", "INVALID_FIELD"),
        (a_job(training=pb.Training(units="atoms")), "job.training.units", "INVALID_FIELD"),
        (a_job(training=pb.Training(augment="mixup")), "job.training.augment", "INVALID_FIELD"),
        (a_job(training=pb.Training(round_to=0)), "job.training.round_to", "INVALID_FIELD"),
        (a_job(training=pb.Training(thinnest_branch=-1.0)), "job.training.thinnest_branch", "INVALID_FIELD"),
        (a_job(training=pb.Training(distillation=1.5)), "job.training.distillation", "INVALID_FIELD"),
        (
            a_job(training=pb.Training(k=pb.KSchedule(start=0))),
            "job.training.k.start",
            "INVALID_FIELD",
        ),
        (
            a_job(training=pb.Training(preprocessing=pb.Preprocessing(mean=[1.0]))),
            "job.training.preprocessing",
            "INVALID_FIELD",
        ),
        (a_job(labels={"Team": "x"}), "job.labels", "INVALID_FIELD"),
        (a_job(labels={"team": "x" * 64}), "job.labels[team]", "INVALID_FIELD"),
        (a_job(labels={f"l{i}": "" for i in range(65)}), "job.labels", "INVALID_FIELD"),
        (a_job(resources=pb.Resources(gpus=-1)), "job.resources.gpus", "INVALID_FIELD"),
        (a_job(max_duration=Duration()), "job.max_duration", "INVALID_FIELD"),
        (a_job(max_duration=Duration(seconds=-1)), "job.max_duration", "INVALID_FIELD"),
    ],
)
def test_a_wrong_job_is_refused_by_field(message: pb.Job, field: str, reason: str) -> None:
    """Every field is checked, and what a later version will take is refused, not passed over."""
    assert field_of(message) == (field, reason)


def test_a_whole_job_is_encoded() -> None:
    """Whatever a job holds is set in its message."""
    job = Job(
        id="7",
        owner="local",
        creator="me",
        state=State.FAILED,
        spec=SPEC,
        plan=PLAN,
        create_time=NOW,
        start_time=NOW,
        end_time=NOW,
        sequence=5,
        attempt=2,
        wait_reason="because",
        progress=progress_at(3),
        error=ERROR,
        result=RESULT,
    )
    message = encode.encode_job(job)
    unset = {"expand", "priority"}
    assert {field.name for field in message.DESCRIPTOR.fields} - {
        field.name for field, _ in message.ListFields()
    } == unset
    assert (message.name, message.done, message.error.code) == ("jobs/7", True, 3)
    assert message.result.files[0].name == "jobs/7/artifact/model.pt2"
    assert message.progress.k == float("inf")
    assert message.create_time.ToDatetime(UTC) == NOW


@pytest.mark.parametrize(
    ("table", "enum", "message"),
    [
        (encode.STATES, State, pb.JobState),
        (encode.STAGES, Stage, pb.Stage),
        (encode.UPLOAD_STATES, UploadState, pb.UploadState),
    ],
)
def test_enums_are_mapped_one_to_one(table: Any, enum: Any, message: Any) -> None:
    """Every member has a number of its own, and no number but UNSPECIFIED is left over."""
    assert set(table) == set(enum)
    assert sorted(table.values()) == sorted(message.values())[1:]


def test_the_messages_training_has_no_field_that_is_passed_over() -> None:
    """A field added to the interface is either the method's or refused by name."""
    known = {field.name for field in fields(Training)}
    assert {field.name for field in pb.Training.DESCRIPTOR.fields} == known


def test_an_absent_share_is_the_methods_choice() -> None:
    """It stays absent in the stored job; the rest is filled in."""
    spec = decode_spec(a_job())
    assert spec.training.distillation is None
    assert spec.training.thinnest_branch is None
    sent = encode.encode_spec(spec).training
    assert not sent.HasField("distillation")
    assert not sent.HasField("thinnest_branch")
    assert sent.round_to == 1


def test_a_plan_is_encoded() -> None:
    """What stays whole, the prunable share, and the dataset's input are told."""
    left = Unpruned(name="head", size=10, reason="an output")
    plan = replace(PLAN, plan=replace(PLAN.plan, unpruned=(left,), prunable=0.75))
    message = encode.encode_plan(plan)
    assert (message.prunable, [*message.unpruned]) == (
        0.75,
        [pb.Unpruned(name="head", size=10, reason="an output")],
    )
    assert [[*item.shape] for item in message.dataset.inputs] == [[1, 28, 28]]


def test_a_job_may_have_no_plan() -> None:
    """Where the check took too long the field is absent, not empty."""
    job = Job(id="7", owner="local", creator="me", state=State.QUEUED, spec=SPEC, plan=None, create_time=NOW)
    assert not encode.encode_job(job).HasField("plan")


def test_an_event_is_either_a_job_or_progress() -> None:
    """Progress in a watch carries the event's time."""
    message = encode.encode_event(Event(sequence=4, time=NOW, progress=progress_at(1)))
    assert message.WhichOneof("event") == "progress"
    assert (message.sequence, message.progress.time) == (4, message.time)


UPLOAD = Upload(
    id="1",
    owner="local",
    state=UploadState.OPEN,
    files=(FileSpec(path="a.npz", size=9, sha256="0" * 64),),
    create_time=NOW,
    expire_time=NOW,
)


def test_an_upload_says_how_bytes_travel_while_it_is_open() -> None:
    """Open files take WriteObject in chunks of the given size; complete ones take nothing."""
    message = encode.encode_upload(UPLOAD, {"a.npz": Incoming(committed=4)}, max_chunk_bytes=100)
    assert (message.files[0].committed, message.files[0].write_object.max_chunk_bytes) == (4, 100)
    done = replace(UPLOAD, state=UploadState.COMPLETE, object_id="1")
    message = encode.encode_upload(done, {"a.npz": Incoming(committed=9)}, max_chunk_bytes=100)
    assert message.object == "objects/1"
    assert message.files[0].WhichOneof("transfer") is None


def test_an_upload_in_parts_gives_the_urls_that_are_missing() -> None:
    """By number, with the size of a part; in a list nothing is said of them."""
    arrived = Incoming(committed=4, part_bytes=4, urls={2: "https://s3/2", 3: "https://s3/3"})
    (file,) = encode.encode_upload(UPLOAD, {"a.npz": arrived}, max_chunk_bytes=100).files
    assert (file.committed, file.parts.part_bytes) == (4, 4)
    assert {part.number: part.url for part in file.parts.urls} == arrived.urls
    (listed,) = encode.encode_upload(UPLOAD, {}, max_chunk_bytes=0).files
    assert (listed.path, listed.WhichOneof("transfer")) == ("a.npz", None)


def test_a_download_is_a_link_or_a_name() -> None:
    """A link has its end; a store without links says what to read."""
    file = ArtifactFile(path="model.pt2", size=9, sha256="0" * 64)
    message = encode.encode_download(file, Link(url="https://s3/x", expire_time=NOW), read_object="jobs/1")
    assert (message.url, message.size, message.expire_time.ToDatetime(NOW.tzinfo)) == ("https://s3/x", 9, NOW)
    assert encode.encode_download(file, None, read_object="jobs/1").read_object == "jobs/1"


def test_names_are_taken_apart() -> None:
    """Resource names give their ids."""
    assert decode.decode_name("jobs/ab-1", "jobs") == "ab-1"
    assert decode.decode_artifact_name("jobs/1/artifact/a/b.json") == ("1", "a/b.json")


@pytest.mark.parametrize("name", ["", "jobs/", "job/1", "jobs/1/2", "jobs/1\n", "uploads/1", "jobs/../x"])
def test_wrong_names_are_refused(name: str) -> None:
    """A name of another collection, or with more in it, is no name."""
    with pytest.raises(InvalidRequest):
        decode.decode_name(name, "jobs")


@pytest.mark.parametrize(("asked", "given"), [(0, 50), (7, 7), (1000, 1000), (5000, 1000)])
def test_page_sizes_follow_aip_158(asked: int, given: int) -> None:
    """0 is the default, too many are as many as there may be."""
    assert decode.decode_page_size(asked) == given


def test_negative_page_sizes_are_refused() -> None:
    """A negative page size is a mistake."""
    with pytest.raises(InvalidRequest):
        decode.decode_page_size(-1)


def test_request_ids_are_uuids() -> None:
    """A request id is a UUID in any spelling, or absent."""
    canonical = "0f8fad5b-d9cb-469f-a165-70867728950e"
    assert decode.decode_request_id(canonical.upper()) == canonical
    assert decode.decode_request_id("") == ""
    with pytest.raises(InvalidRequest):
        decode.decode_request_id("again")


def test_no_job_runs_longer_than_the_server_allows() -> None:
    """A job that does not say gets the limit as its own; one that asks for more is refused by its field."""
    longest = {"max_epochs": 100, "default_threads": 1, "longest": 60.0}
    assert decode.decode_spec(a_job(), **longest).max_duration == 60.0  # type: ignore[arg-type]
    short = a_job(max_duration=Duration(seconds=59))
    assert decode.decode_spec(short, **longest).max_duration == 59.0  # type: ignore[arg-type]
    with pytest.raises(InvalidRequest, match="at most 60 s") as refused:
        decode.decode_spec(a_job(max_duration=Duration(seconds=61)), **longest)  # type: ignore[arg-type]
    assert refused.value.violations[0].field == "job.max_duration"
