"""What is sent for what a caller asks."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from npn.v1 import compression_pb2 as pb
from npn_client import Architecture, Budget, Dataset, InvalidArgument, JobState, KSchedule, Training
from npn_client.encode import create_job_request, list_filter


def request(model: Any = "mlp", **more: Any) -> pb.CreateJobRequest:
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


@pytest.mark.parametrize("model", ["s3://models/net.pt2", "net.pt2", "objects/1", object()])
def test_models_of_later_versions(model: Any) -> None:
    """What this version does not take is refused by name before anything is sent."""
    with pytest.raises(InvalidArgument, match="this version takes the name") as raised:
        request(model)
    assert raised.value.violations[0].field == "job.model"


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
