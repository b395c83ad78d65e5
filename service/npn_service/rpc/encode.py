"""Dataclasses to messages.  Total: what the service knows of a resource, its caller sees."""

import math
from collections.abc import Mapping
from datetime import datetime
from types import MappingProxyType

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc import status_pb2

from npn.v1 import compression_pb2 as pb
from npn_core import config, progress
from npn_core.catalogue import ArchitectureInfo
from npn_service.errors import FieldViolation
from npn_service.jobs import model
from npn_service.storage.store import Incoming, Link

from .status import job_field, make_status

STATES: Mapping[model.State, pb.JobState] = MappingProxyType(
    {
        model.State.QUEUED: pb.JOB_STATE_QUEUED,
        model.State.RUNNING: pb.JOB_STATE_RUNNING,
        model.State.CANCELLING: pb.JOB_STATE_CANCELLING,
        model.State.SUCCEEDED: pb.JOB_STATE_SUCCEEDED,
        model.State.FAILED: pb.JOB_STATE_FAILED,
        model.State.CANCELLED: pb.JOB_STATE_CANCELLED,
    }
)

STAGES: Mapping[progress.Stage, pb.Stage] = MappingProxyType(
    {
        progress.Stage.PREPARE: pb.STAGE_PREPARE,
        progress.Stage.DENSE: pb.STAGE_DENSE,
        progress.Stage.PLASTIC: pb.STAGE_PLASTIC,
        progress.Stage.FINE_TUNE: pb.STAGE_FINE_TUNE,
        progress.Stage.EXPORT: pb.STAGE_EXPORT,
    }
)

UPLOAD_STATES: Mapping[model.UploadState, pb.UploadState] = MappingProxyType(
    {
        model.UploadState.OPEN: pb.UPLOAD_STATE_OPEN,
        model.UploadState.COMPLETE: pb.UPLOAD_STATE_COMPLETE,
    }
)


def encode_job(job: model.Job) -> pb.Job:
    """The whole job."""
    message = encode_spec(job.spec)
    message.MergeFrom(
        pb.Job(
            name=job.name,
            state=STATES[job.state],
            done=job.state.done,
            wait_reason=job.wait_reason,
            owner=job.owner,
            creator=job.creator,
            create_time=encode_time(job.create_time),
            start_time=encode_time(job.start_time),
            end_time=encode_time(job.end_time),
            sequence=job.sequence,
            plan=None if job.plan is None else encode_plan(job.plan),
            progress=None if job.progress is None else encode_progress(job.progress),
            attempt=job.attempt,
            error=None if job.error is None else encode_error(job.error),
            result=None if job.result is None else _encode_result(job, job.result),
        )
    )
    return message


def encode_spec(spec: model.JobSpec) -> pb.Job:
    """A job with the fields that a caller may set, every default filled in."""
    grown = spec.expansion
    return pb.Job(
        compress=pb.CompressTask() if grown is None else None,
        expand=None if grown is None else pb.ExpandTask(awake=grown.awake),
        model=_encode_model(spec.model),
        dataset=pb.Dataset(uri=spec.dataset.uri, layout=spec.dataset.layout),
        budget=pb.Budget(
            max_params=spec.budget.max_params,
            max_macs=spec.budget.max_macs,
            max_bytes=spec.budget.max_bytes,
            max_accuracy_drop_points=spec.budget.max_accuracy_drop_points,
        ),
        training=_encode_training(spec.training),
        labels=dict(spec.labels),
        resources=pb.Resources(
            cpus=spec.resources.cpus, gpus=spec.resources.gpus, memory_bytes=spec.resources.memory_bytes
        ),
        priority=spec.priority,
        max_duration=encode_seconds(spec.max_duration),
    )


def _encode_model(asked: model.ArchitectureModel | model.ModelRef) -> pb.Model:
    if isinstance(asked, model.ModelRef):
        return pb.Model(uri=asked.uri)
    return pb.Model(architecture=pb.Architecture(name=asked.name, params=dict(asked.params)))


def _encode_training(training: config.Training) -> pb.Training:
    return pb.Training(
        epochs=training.epochs,
        batch_size=training.batch_size,
        lr=training.lr,
        gate_lr=training.gate_lr,
        weight_decay=training.weight_decay,
        k=pb.KSchedule(
            dense_fraction=training.k.dense_fraction,
            plastic_fraction=training.k.plastic_fraction,
            start=training.k.start,
            end=training.k.end,
        ),
        estimator=training.estimator,
        loss=training.loss,
        augment=training.augment,
        preprocessing=pb.Preprocessing(
            mode=training.preprocessing.mode,
            scale=training.preprocessing.scale,
            mean=training.preprocessing.mean,
            std=training.preprocessing.std,
        ),
        seed=training.seed,
        threads=training.threads,
        distillation=training.distillation,
        thinnest_branch=training.thinnest_branch,
        output=training.output,
        from_scratch=training.from_scratch,
        mask=training.mask,
        units=training.units,
        precision=training.precision,
        round_to=training.round_to,
        optimizer=training.optimizer,
    )


def encode_plan(plan: model.JobPlan) -> pb.Plan:
    """What the job comes to."""
    data = plan.dataset
    return pb.Plan(
        dense=encode_cost(plan.plan.dense),
        smallest=encode_cost(plan.plan.smallest),
        groups=[
            pb.GroupPlan(name=group.name, kind=group.kind, size=group.size) for group in plan.plan.groups
        ],
        dataset=pb.DatasetInfo(
            train_samples=data.train_samples,
            validation_samples=data.validation_samples,
            test_samples=data.test_samples,
            input_shape=data.input_shape,
            classes=data.classes,
            dtype=data.dtype,
            inputs=[pb.DatasetInput(name=x.name, shape=x.shape, dtype=x.dtype) for x in data.inputs],
            target=data.target,
            target_shape=data.target_shape,
        ),
        warnings=[*plan.plan.warnings, *data.notes],
        unpruned=[
            pb.Unpruned(name=left.name, size=left.size, reason=left.reason) for left in plan.plan.unpruned
        ],
        prunable=plan.plan.prunable,
    )


def encode_progress(now: progress.Progress) -> pb.Progress:
    """One report of the training loop; `time` is left to the event that carries it."""
    return pb.Progress(
        step=now.step,
        steps=now.steps,
        epoch=now.epoch,
        epochs=now.epochs,
        stage=STAGES[now.stage],
        k=now.k,
        loss=now.loss,
        metrics=[_encode_metric(metric) for metric in now.metrics],
        costs=[
            pb.CostProgress(
                kind=cost.kind,
                expected=cost.expected,
                hard=cost.hard,
                budget=cost.budget,
                multiplier=cost.multiplier,
            )
            for cost in now.costs
        ],
        groups=[
            pb.GroupProgress(
                name=group.name,
                size=group.size,
                active=group.active,
                entropy=group.entropy,
                variance=group.variance,
            )
            for group in now.groups
        ],
        samples_per_second=now.samples_per_second,
        # before the first step the loop has no estimate
        time_left=encode_seconds(now.time_left if math.isfinite(now.time_left) else None),
        warning=now.warning,
        trials=[
            pb.Trial(
                kind=one.kind,
                limit=one.limit,
                cost=one.cost,
                accuracy=one.accuracy,
                low=one.low,
                high=one.high,
                passed=one.passed,
            )
            for one in now.trials
        ],
    )


def encode_error(error: model.JobError) -> status_pb2.Status:
    """Why a job failed, with the same details that a refused request carries."""
    violations = (
        [FieldViolation(field=job_field(error.field), description=error.message)] if error.field else []
    )
    return make_status(error.code, error.reason, error.message, violations)


def _encode_result(job: model.Job, result: model.JobResult) -> pb.Result:
    return pb.Result(
        dense=encode_cost(result.dense),
        compact=encode_cost(result.compact),
        metrics=[_encode_metric(metric) for metric in result.metrics],
        files=[
            pb.ArtifactFile(
                name=f"{job.name}/artifact/{file.path}", path=file.path, size=file.size, sha256=file.sha256
            )
            for file in result.files
        ],
        train_time=encode_seconds(result.train_time),
    )


def encode_cost(cost: progress.Cost) -> pb.Cost:
    """Parameters, multiply-adds, bytes."""
    return pb.Cost(params=cost.params, macs=cost.macs, bytes=cost.bytes)


def _encode_metric(metric: progress.Metric) -> pb.Metric:
    return pb.Metric(
        name=metric.name,
        value=metric.value,
        higher_is_better=metric.higher_is_better,
        low=metric.low,
        high=metric.high,
    )


def encode_event(event: model.Event) -> pb.WatchJobResponse:
    """One message of a watch."""
    message = pb.WatchJobResponse(sequence=event.sequence, time=encode_time(event.time))
    if event.job is not None:
        message.job.CopyFrom(encode_job(event.job))
    if event.progress is not None:
        message.progress.CopyFrom(encode_progress(event.progress))
        message.progress.time.CopyFrom(message.time)
    return message


def encode_log(log: model.AttemptLog) -> pb.JobLogs:
    """What is kept of an attempt."""
    message = pb.JobLogs(
        attempt=log.attempt,
        start_time=encode_time(log.start_time),
        end_time=encode_time(log.end_time),
        cause=log.cause,
        lines=log.lines,
    )
    for point in log.curve:
        told = message.curve.add()
        told.CopyFrom(encode_progress(point.progress))
        told.time.FromDatetime(point.time)
    return message


def encode_upload(
    upload: model.Upload, incoming: Mapping[str, Incoming], *, max_chunk_bytes: int
) -> pb.Upload:
    """An upload; `incoming` says by path what has arrived; a list of uploads leaves it empty."""
    return pb.Upload(
        name=upload.name,
        state=UPLOAD_STATES[upload.state],
        files=[_encode_file(upload, file, incoming.get(file.path), max_chunk_bytes) for file in upload.files],
        object=f"objects/{upload.object_id}" if upload.object_id else "",
        create_time=encode_time(upload.create_time),
        expire_time=encode_time(upload.expire_time),
    )


def _encode_file(
    upload: model.Upload, file: model.FileSpec, incoming: Incoming | None, max_chunk_bytes: int
) -> pb.UploadFile:
    message = pb.UploadFile(path=file.path, size=file.size, sha256=file.sha256)
    if incoming is None:
        return message
    message.committed = incoming.committed
    if upload.state is not model.UploadState.OPEN:
        return message
    if incoming.part_bytes:
        urls = [pb.PartUrl(number=number, url=url) for number, url in incoming.urls.items()]
        message.parts.CopyFrom(pb.PartTransfer(part_bytes=incoming.part_bytes, urls=urls))
    else:
        message.write_object.max_chunk_bytes = max_chunk_bytes
    return message


def encode_download(file: model.ArtifactFile, link: Link | None, *, read_object: str) -> pb.Download:
    """How a file is fetched: from the link, or with ReadObject under the name `read_object`."""
    message = pb.Download(size=file.size, sha256=file.sha256)
    if link is None:
        message.read_object = read_object
    else:
        message.url = link.url
        message.expire_time.FromDatetime(link.expire_time)
    return message


def encode_time(time: datetime | None) -> Timestamp | None:
    """A time with its zone."""
    if time is None:
        return None
    message = Timestamp()
    message.FromDatetime(time)
    return message


def encode_seconds(seconds: float | None) -> Duration | None:
    """A length of time."""
    if seconds is None:
        return None
    message = Duration()
    message.FromNanoseconds(round(seconds * 1e9))
    return message


def encode_architecture(info: ArchitectureInfo) -> pb.ArchitectureInfo:
    """An architecture of the catalogue."""
    return pb.ArchitectureInfo(
        name=info.name,
        description=info.description,
        params=[
            pb.ArchitectureParam(
                name=param.name, description=param.description, default_value=param.default_value
            )
            for param in info.params
        ],
        dense=encode_cost(info.dense),
        example_input_shape=info.example_input_shape,
        example_classes=info.example_classes,
    )
