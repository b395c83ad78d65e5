"""What is sent for what a caller asks."""

import math
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from npn.v1 import compression_pb2 as pb
from npn_client import (
    Architecture,
    Budget,
    Dataset,
    InvalidArgument,
    JobState,
    KSchedule,
    ModelArchive,
    Training,
)
from npn_client.encode import create_job_request, list_filter
from npn_client.spec import named_model

MLP = Architecture("mlp")


def request(model: Any = MLP, **more: Any) -> pb.CreateJobRequest:
    """A small request."""
    return create_job_request(model, dataset=Dataset("objects/1"), budget=Budget(max_params=9), **more)


def test_only_what_was_said_is_sent() -> None:
    """Defaults are the server's: a field that the caller left out is absent."""
    job = request().job
    assert job.WhichOneof("task") == "compress"
    assert [field.name for field, _ in job.budget.ListFields()] == ["max_params"]
    assert job.training.ListFields() == []
    assert not job.HasField("max_duration")


def test_a_zero_is_sent() -> None:
    """Zero is a value: the server has to see it to refuse it."""
    training = request(training=Training(epochs=0, seed=0, k=KSchedule(start=0.0))).job.training
    assert training.HasField("epochs")
    assert training.HasField("seed")
    assert training.k.HasField("start")
    assert not training.k.HasField("end")


def test_request_id_is_made_when_absent() -> None:
    """Every submit can be retried: it has a UUID of its own unless the caller gave one."""
    first, second = request().request_id, request().request_id
    assert UUID(first) != UUID(second)
    assert request(request_id=first).request_id == first


def test_parameters_of_an_architecture() -> None:
    """Lists of numbers travel as text, as the command line writes them."""
    sent = request(Architecture("mlp", {"hidden": [300, 100], "activation": "relu", "depth": 3})).job.model
    assert dict(sent.architecture.params) == {"hidden": "300,100", "activation": "relu", "depth": "3"}


def test_a_model_of_the_callers_own() -> None:
    """An archive is sent by its URI alone."""
    model = request(ModelArchive("objects/1")).job.model
    assert (model.WhichOneof("source"), model.uri) == ("uri", "objects/1")


@pytest.mark.parametrize(
    ("model", "named"),
    [
        ("resnet20", Architecture("resnet20")),
        ("net.pt2", ModelArchive("net.pt2")),
        ("runs/net.pt2", ModelArchive("runs/net.pt2")),
        ("objects/17", ModelArchive("objects/17")),
        ("s3://bucket/net", ModelArchive("s3://bucket/net")),
        (Path("objects/17"), ModelArchive(Path("objects/17"))),
        (object(), None),
    ],
)
def test_what_a_model_is(model: object, named: object) -> None:
    """A URI with a scheme or objects/, a file by its suffix, else a name of the catalogue."""
    assert named_model(model) == named


def test_where_an_archive_is() -> None:
    """URIs have no local path; a file is called by its name, a URI as it is."""
    assert ModelArchive("s3://a/b.pt2").local_path is None
    assert ModelArchive("a/b.pt2").local_path == Path("a/b.pt2")
    assert [ModelArchive(source).name for source in ("s3://a/b.pt2", "a/b.pt2")] == ["s3://a/b.pt2", "b.pt2"]


def test_what_training_says_is_sent() -> None:
    """Loss, output, augmentation, rounding and a fresh start have fields of their own."""
    asked = Training(
        loss="mse", output="1", augment="crop-flip", round_to=8, units="weights", from_scratch=True
    )
    sent = request(training=asked).job.training
    assert {field.name: value for field, value in sent.ListFields()} == {
        "loss": "mse",
        "output": "1",
        "augment": "crop-flip",
        "round_to": 8,
        "from_scratch": True,
        "units": "weights",
    }


@pytest.mark.parametrize(
    ("training", "field"),
    [
        (Training(epochs="many"), "job.training.epochs"),  # type: ignore[arg-type]
        (Training(epochs=2**40), "job.training.epochs"),
        (Training(k=KSchedule(start="low")), "job.training.k.start"),  # type: ignore[arg-type]
    ],
)
def test_values_that_do_not_fit(training: Training, field: str) -> None:
    """A value of a wrong type or range names its field."""
    with pytest.raises(InvalidArgument, match="cannot be") as raised:
        request(training=training)
    assert raised.value.violations[0].field == field


@pytest.mark.parametrize("duration", [90, 90.0, timedelta(minutes=1.5)])
def test_max_duration(duration: float | timedelta) -> None:
    """Seconds or a timedelta."""
    assert request(max_duration=duration).job.max_duration.ToSeconds() == 90


@pytest.mark.parametrize("duration", [math.nan, math.inf, 1e15, -math.inf])
def test_what_is_no_duration(duration: float) -> None:
    """Refused by name, before anything is sent."""
    with pytest.raises(InvalidArgument, match=r"job\.max_duration cannot be") as raised:
        request(max_duration=duration)
    assert raised.value.violations[0].field == "job.max_duration"


def test_a_request_id_may_be_a_uuid() -> None:
    """It is sent as its text."""
    given = uuid.uuid4()
    assert request(request_id=given).request_id == str(given)


def test_filter_of_a_list() -> None:
    """Terms are joined by AND, quotes in values escaped, times in UTC offsets."""
    text = list_filter(
        state=JobState.RUNNING,
        labels={"team": 'a"b'},
        created_from=datetime(2026, 1, 31, tzinfo=UTC),
        created_to=None,
    )
    assert text.startswith('state = RUNNING AND labels.team = "a\\"b" AND create_time >= "2026-01-')
    assert list_filter(state="queued", labels=None, created_from=None, created_to=None) == "state = QUEUED"


@pytest.mark.parametrize(
    ("source", "local"),
    [
        ("s3://bucket/key.npz", None),
        ("objects/17", None),
        ("data/mnist.npz", Path("data/mnist.npz")),
        (Path("objects/17"), Path("objects/17")),
    ],
)
def test_where_a_dataset_is(source: str | Path, local: Path | None) -> None:
    """Text is a URI when it looks like one, a Path never is."""
    assert Dataset(source).local_path == local
