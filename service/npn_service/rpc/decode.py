"""Messages to dataclasses: every field of a request is checked, filled in or refused, none is passed over.

What a later version of the service will take is refused with the reason UNSUPPORTED and the field's name.
"""

import re
import uuid
from collections.abc import Iterable
from typing import Any

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message

from npn.v1 import compression_pb2 as pb
from npn_core.catalogue import resolve_params
from npn_core.config import Budget, Expansion, KSchedule, Preprocessing, Training
from npn_service.errors import InvalidRequest
from npn_service.jobs.model import ArchitectureModel, DatasetRef, FileSpec, JobSpec, ModelRef, Resources

LAYOUTS = ("", "NCHW", "NHWC")
MAX_LABELS = 64
MAX_LABEL_VALUE = 63
LABEL_KEY = re.compile(r"[a-z][a-z0-9_-]{0,62}")

_ID = r"[A-Za-z0-9_-]{1,64}"
_ARTIFACT_NAME = re.compile(rf"jobs/({_ID})/artifact/(.+)")


def decode_spec(
    job: pb.Job, *, max_epochs: int, default_threads: int, longest: float | None = None
) -> JobSpec:
    """What the caller asks for, every default filled in.  Output-only fields are not looked at.

    `longest` is the most seconds that a job may run, and the default of those that do not say.

    Raises InvalidRequest, and InvalidInput for what the method itself checks.
    """
    if job.WhichOneof("task") is None:
        raise InvalidRequest("job.compress", "no task is given; set job.compress or job.expand")
    return JobSpec(
        model=_decode_model(job.model),
        dataset=_decode_dataset(job.dataset),
        budget=Budget(**_present(job.budget)),
        training=_decode_training(job.training, max_epochs=max_epochs, default_threads=default_threads),
        expansion=Expansion(awake=dict(job.expand.awake)) if job.HasField("expand") else None,
        labels=_decode_labels(job),
        resources=_decode_resources(job.resources),
        priority=job.priority,
        max_duration=_decode_max_duration(job.max_duration, longest)
        if job.HasField("max_duration")
        else longest,
    )


def _decode_model(model: pb.Model) -> ArchitectureModel | ModelRef:
    if model.HasField("uri"):
        if not model.uri:
            raise InvalidRequest("job.model.uri", "no model is given; upload one and name it as objects/{id}")
        return ModelRef(uri=model.uri)
    if not model.architecture.name:
        raise InvalidRequest(
            "job.model.architecture.name",
            "no architecture is named; ListArchitectures tells the known ones",
        )
    name = model.architecture.name
    return ArchitectureModel(name=name, params=resolve_params(name, model.architecture.params))


def _decode_dataset(dataset: pb.Dataset) -> DatasetRef:
    if not dataset.uri:
        raise InvalidRequest("job.dataset.uri", "no dataset is given; upload one and name it as objects/{id}")
    if dataset.layout not in LAYOUTS:
        raise InvalidRequest("job.dataset.layout", f"unknown layout {dataset.layout!r}; write NCHW or NHWC")
    return DatasetRef(uri=dataset.uri, layout=dataset.layout)


def _decode_training(training: pb.Training, *, max_epochs: int, default_threads: int) -> Training:
    if training.epochs > max_epochs:
        raise InvalidRequest(
            "job.training.epochs", f"epochs is {training.epochs}; this server takes at most {max_epochs}"
        )
    given = _present(training)
    given.setdefault("threads", default_threads)
    if training.HasField("k"):
        given["k"] = KSchedule(**_present(training.k))
    if training.HasField("preprocessing"):
        lists = {"mean": tuple(training.preprocessing.mean), "std": tuple(training.preprocessing.std)}
        given["preprocessing"] = Preprocessing(**_present(training.preprocessing) | lists)
    return Training(**given)


def _decode_labels(job: pb.Job) -> dict[str, str]:
    if len(job.labels) > MAX_LABELS:
        raise InvalidRequest("job.labels", f"{len(job.labels)} labels; at most {MAX_LABELS} are taken")
    for key, value in job.labels.items():
        if not LABEL_KEY.fullmatch(key):
            raise InvalidRequest("job.labels", f"label key {key!r} does not match {LABEL_KEY.pattern}")
        if len(value) > MAX_LABEL_VALUE:
            raise InvalidRequest(
                f"job.labels[{key}]",
                f"{len(value)} characters; a value has at most {MAX_LABEL_VALUE}",
            )
        if not value.isprintable():
            raise InvalidRequest(f"job.labels[{key}]", "a value has no control characters")
    return dict(job.labels)


def _decode_resources(resources: pb.Resources) -> Resources:
    for field, value in (
        ("cpus", resources.cpus),
        ("gpus", resources.gpus),
        ("memory_bytes", resources.memory_bytes),
    ):
        if value < 0:
            raise InvalidRequest(f"job.resources.{field}", f"{field} is {value}; it must not be negative")
    return Resources(cpus=resources.cpus, gpus=resources.gpus, memory_bytes=resources.memory_bytes)


def _decode_max_duration(duration: Duration, longest: float | None) -> float:
    seconds: float = duration.seconds + duration.nanos / 1e9
    if seconds <= 0:
        raise InvalidRequest("job.max_duration", f"max_duration is {seconds} s; it must be above 0")
    if longest is not None and seconds > longest:
        raise InvalidRequest(
            "job.max_duration",
            f"max_duration is {seconds:g} s; this server runs a job for at most {longest:g} s",
        )
    return seconds


def decode_request_id(request_id: str) -> str:
    """The UUID in its canonical form, or empty when none is given."""
    if not request_id:
        return ""
    try:
        return str(uuid.UUID(request_id))
    except ValueError:
        raise InvalidRequest("request_id", f"{request_id!r} is no UUID") from None


def decode_page_size(page_size: int, *, default: int = 50, largest: int = 1000) -> int:
    """The page size to use: 0 means the default, more than the largest means the largest (AIP-158)."""
    if page_size < 0:
        raise InvalidRequest("page_size", f"page_size is {page_size}; it must not be negative")
    return min(page_size, largest) or default


def decode_name(name: str, collection: str, *, field: str = "name") -> str:
    """The id in "collection/{id}"."""
    match = re.fullmatch(rf"{collection}/({_ID})", name)
    if match is None:
        raise InvalidRequest(field, f"{name!r} is no resource name; write {collection}/{{id}}")
    return match[1]


def decode_artifact_name(name: str) -> tuple[str, str]:
    """Job id and path of "jobs/{id}/artifact/{path}"."""
    match = _ARTIFACT_NAME.fullmatch(name)
    if match is None:
        raise InvalidRequest("name", f"{name!r} names no file; write jobs/{{id}}/artifact/{{path}}")
    return match[1], match[2]


def decode_files(files: Iterable[pb.UploadFile]) -> tuple[FileSpec, ...]:
    """The files of an upload, as they were announced."""
    return tuple(FileSpec(path=file.path, size=file.size, sha256=file.sha256) for file in files)


def _present(message: Message) -> dict[str, Any]:
    """The scalar fields that are set, by name."""
    return {
        descriptor.name: value
        for descriptor, value in message.ListFields()
        if descriptor.message_type is None and not descriptor.is_repeated
    }
