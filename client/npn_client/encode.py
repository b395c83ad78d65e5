"""Requests: dataclasses -> npn.v1 messages."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import fields
from datetime import datetime, timedelta
from typing import Any

from ._pb import Duration, Message, pb
from .errors import InvalidArgument
from .model import JobState
from .spec import Architecture, Budget, Dataset, Expansion, ModelArchive, Resources, Training


def create_job_request(
    model: Architecture | ModelArchive,
    *,
    dataset: Dataset,
    budget: Budget,
    training: Training | None = None,
    expansion: Expansion | None = None,
    labels: Mapping[str, str] | None = None,
    resources: Resources | None = None,
    priority: int = 0,
    max_duration: float | timedelta | None = None,
    request_id: str | None = None,
    validate_only: bool = False,
) -> pb.CreateJobRequest:
    """A CreateJob for compression, or with `expansion` for that; makes a request_id when there is none.

    The sources of `dataset` and of a model archive are URIs.

    Raises InvalidArgument where a value does not fit its field.
    """
    job = pb.Job()
    if expansion is None:
        job.compress.SetInParent()
    else:
        job.expand.SetInParent()
        _fill(job.expand, {"awake": dict(expansion.awake)}, "job.expand")
    if isinstance(model, ModelArchive):
        _fill(job.model, {"uri": str(model.source)}, "job.model")
    else:
        job.model.architecture.CopyFrom(_architecture(model))
    _fill(job.dataset, {"uri": str(dataset.source), "layout": dataset.layout}, "job.dataset")
    _fill(job.budget, _given(budget), "job.budget")
    _fill_training(job.training, training or Training())
    _fill(job.resources, _given(resources or Resources()), "job.resources")
    _fill(job, {"labels": dict(labels or {}), "priority": priority}, "job")
    if max_duration is not None:
        job.max_duration.CopyFrom(_duration(max_duration))
    return pb.CreateJobRequest(
        job=job, request_id=str(request_id or uuid.uuid4()), validate_only=validate_only
    )


def list_filter(
    *,
    state: JobState | str | None,
    labels: Mapping[str, str] | None,
    created_from: datetime | None,
    created_to: datetime | None,
) -> str:
    """The filter of ListJobs: terms joined by AND.  Times without a zone are local ones."""
    terms = []
    if state is not None:
        terms.append(f"state = {state.value if isinstance(state, JobState) else state.upper()}")
    for key, value in (labels or {}).items():
        quoted = value.replace("\\", "\\\\").replace('"', '\\"')
        terms.append(f'labels.{key} = "{quoted}"')
    for operator, time in ((">=", created_from), ("<=", created_to)):
        if time is not None:
            terms.append(f'create_time {operator} "{time.astimezone().isoformat()}"')
    return " AND ".join(terms)


def job_name(job: str) -> str:
    """The resource name of a job given by its name or its ID."""
    return job if job.startswith("jobs/") else f"jobs/{job}"


def _architecture(model: Architecture) -> pb.Architecture:
    params = {
        key: ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
        for key, value in model.params.items()
    }
    return pb.Architecture(name=model.name, params=params)


def _fill_training(message: pb.Training, training: Training) -> None:
    values = _given(training)
    k, preprocessing = values.pop("k", None), values.pop("preprocessing", None)
    _fill(message, values, "job.training")
    if k is not None:
        message.k.SetInParent()
        _fill(message.k, _given(k), "job.training.k")
    if preprocessing is not None:
        message.preprocessing.SetInParent()
        _fill(message.preprocessing, _given(preprocessing), "job.training.preprocessing")


def _given(record: Any) -> dict[str, Any]:
    values = {field.name: getattr(record, field.name) for field in fields(record)}
    return {name: value for name, value in values.items() if value is not None and value != ""}


def _fill(message: Message, values: Mapping[str, Any], at: str) -> None:
    for name, value in values.items():
        path = f"{at}.{name}"
        try:
            message.MergeFrom(type(message)(**{name: value}))
        except (TypeError, ValueError) as error:
            raise InvalidArgument.of(path, f"{path} cannot be {value!r}: {error}") from None


def _duration(value: float | timedelta) -> Duration:
    duration, at = Duration(), "job.max_duration"
    try:
        duration.FromTimedelta(value if isinstance(value, timedelta) else timedelta(seconds=value))
    except (OverflowError, TypeError, ValueError) as error:
        raise InvalidArgument.of(at, f"{at} cannot be {value!r}: {error}") from None
    return duration
