"""Answers: npn.v1 messages -> dataclasses."""

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, TypeVar

import grpc

from ._pb import Duration, Message, Status, Timestamp, pb
from .model import (
    ArchitectureInfo,
    ArchitectureParam,
    ArtifactFile,
    Cost,
    CostProgress,
    DatasetInfo,
    DatasetInput,
    Event,
    GroupPlan,
    GroupProgress,
    JobError,
    JobLogs,
    JobSnapshot,
    JobState,
    Metric,
    Outcome,
    Plan,
    Progress,
    Progressed,
    ServerInfo,
    Stage,
    StateChanged,
    Trial,
    Unpruned,
)
from .spec import (
    Architecture,
    Budget,
    Dataset,
    Expansion,
    KSchedule,
    ModelArchive,
    Preprocessing,
    Resources,
    Training,
)
from .status import details_of

_STATES = {number: name.removeprefix("JOB_STATE_") for name, number in pb.JobState.items()}
_STAGES = {number: name.removeprefix("STAGE_") for name, number in pb.Stage.items()}
_Known = TypeVar("_Known", JobState, Stage)
_CODES = {code.value[0]: code.name for code in grpc.StatusCode}


def snapshot(job: pb.Job) -> JobSnapshot:
    """A job."""
    return JobSnapshot(
        name=job.name,
        state=_member(JobState, _STATES.get(job.state, "")),
        done=job.done,
        sequence=job.sequence,
        wait_reason=job.wait_reason,
        attempt=job.attempt,
        model=_model(job.model),
        dataset=Dataset(job.dataset.uri, layout=job.dataset.layout),
        budget=Budget(**_present(job.budget, "max_params max_macs max_bytes max_accuracy_drop_points")),
        training=_training(job.training),
        expansion=Expansion(awake=dict(job.expand.awake)) if job.HasField("expand") else None,
        labels=dict(job.labels),
        resources=Resources(
            cpus=job.resources.cpus, gpus=job.resources.gpus, memory_bytes=job.resources.memory_bytes
        ),
        priority=job.priority,
        max_duration=_seconds(job, "max_duration"),
        owner=job.owner,
        creator=job.creator,
        create_time=_time(job.create_time) if job.HasField("create_time") else None,
        start_time=_time(job.start_time) if job.HasField("start_time") else None,
        end_time=_time(job.end_time) if job.HasField("end_time") else None,
        plan=plan(job.plan) if job.HasField("plan") else None,
        progress=_progress(job.progress) if job.HasField("progress") else None,
        error=_job_error(job.error) if job.HasField("error") else None,
        result=_outcome(job.result) if job.HasField("result") else None,
    )


def _model(message: pb.Model) -> Architecture | ModelArchive:
    if message.WhichOneof("source") == "uri":
        return ModelArchive(message.uri)
    return Architecture(message.architecture.name, dict(message.architecture.params))


def event(response: pb.WatchJobResponse) -> Event | None:
    """An event of a watch; None for a heartbeat and for kinds that this client does not know."""
    time = _time(response.time) if response.HasField("time") else None
    match response.WhichOneof("event"):
        case "job":
            return StateChanged(sequence=response.sequence, time=time, job=snapshot(response.job))
        case "progress":
            return Progressed(sequence=response.sequence, time=time, progress=_progress(response.progress))
        case _:
            return None


def job_logs(message: pb.JobLogs) -> JobLogs:
    """What is kept of an attempt."""
    return JobLogs(
        attempt=message.attempt,
        start_time=_time(message.start_time) if message.HasField("start_time") else None,
        end_time=_time(message.end_time) if message.HasField("end_time") else None,
        cause=message.cause,
        lines=tuple(message.lines),
        curve=tuple(_progress(point) for point in message.curve),
    )


def plan(message: pb.Plan) -> Plan:
    """What a job comes to."""
    groups = (GroupPlan(name=group.name, kind=group.kind, size=group.size) for group in message.groups)
    info = message.dataset
    dataset = DatasetInfo(
        train_samples=info.train_samples,
        validation_samples=info.validation_samples,
        test_samples=info.test_samples,
        input_shape=tuple(info.input_shape),
        classes=info.classes,
        dtype=info.dtype,
        inputs=tuple(
            DatasetInput(name=item.name, shape=tuple(item.shape), dtype=item.dtype) for item in info.inputs
        ),
        target=info.target,
        target_shape=tuple(info.target_shape),
    )
    return Plan(
        dense=_cost(message.dense),
        smallest=_cost(message.smallest),
        groups=tuple(groups),
        dataset=dataset if message.HasField("dataset") else None,
        warnings=tuple(message.warnings),
        unpruned=tuple(
            Unpruned(name=left.name, size=left.size, reason=left.reason) for left in message.unpruned
        ),
        prunable=message.prunable,
    )


def architecture(message: pb.ArchitectureInfo) -> ArchitectureInfo:
    """A network of the catalogue."""
    params = (
        ArchitectureParam(name=param.name, description=param.description, default_value=param.default_value)
        for param in message.params
    )
    return ArchitectureInfo(
        name=message.name,
        description=message.description,
        params=tuple(params),
        dense=_cost(message.dense),
        example_input_shape=tuple(message.example_input_shape),
        example_classes=message.example_classes,
    )


def server_info(message: pb.ServerInfo) -> ServerInfo:
    """Version, limits and features."""
    return ServerInfo(
        version=message.version,
        max_message_bytes=message.limits.max_message_bytes,
        max_upload_bytes=message.limits.max_upload_bytes,
        max_files_per_upload=message.limits.max_files_per_upload,
        max_epochs=message.limits.max_epochs,
        max_running_jobs=message.limits.max_running_jobs,
        max_queued_jobs=message.limits.max_queued_jobs,
        max_stored_bytes=message.limits.max_stored_bytes,
        max_job_duration=_seconds(message.limits, "max_job_duration"),
        job_retention=_seconds(message.limits, "job_retention"),
        features=tuple(message.features),
        estimators=tuple(message.estimators),
    )


def _progress(message: pb.Progress) -> Progress:
    costs = (
        CostProgress(
            kind=cost.kind,
            expected=cost.expected,
            hard=cost.hard,
            budget=cost.budget,
            multiplier=cost.multiplier,
        )
        for cost in message.costs
    )
    groups = (
        GroupProgress(
            name=group.name,
            size=group.size,
            active=group.active,
            entropy=group.entropy,
            variance=group.variance,
        )
        for group in message.groups
    )
    return Progress(
        step=message.step,
        steps=message.steps,
        epoch=message.epoch,
        epochs=message.epochs,
        stage=_member(Stage, _STAGES.get(message.stage, "")),
        k=message.k,
        loss=message.loss,
        metrics=_metrics(message.metrics),
        costs=tuple(costs),
        groups=tuple(groups),
        samples_per_second=message.samples_per_second,
        time_left=_seconds(message, "time_left"),
        time=_time(message.time) if message.HasField("time") else None,
        warning=message.warning,
        trials=tuple(
            Trial(
                kind=one.kind,
                limit=one.limit,
                cost=one.cost,
                accuracy=one.accuracy,
                low=one.low,
                high=one.high,
                passed=one.passed,
            )
            for one in message.trials
        ),
    )


def _outcome(message: pb.Result) -> Outcome:
    files = (
        ArtifactFile(name=file.name, path=file.path, size=file.size, sha256=file.sha256)
        for file in message.files
    )
    return Outcome(
        dense=_cost(message.dense),
        compact=_cost(message.compact),
        metrics=_metrics(message.metrics),
        files=tuple(files),
        train_time=message.train_time.ToTimedelta().total_seconds(),
    )


def _training(message: pb.Training) -> Training:
    numbers = "epochs batch_size lr gate_lr weight_decay seed threads distillation round_to thinnest_branch"
    return Training(
        **_present(message, numbers),
        k=KSchedule(**_present(message.k, "dense_fraction plastic_fraction start end")),
        optimizer=message.optimizer,
        estimator=message.estimator,
        loss=message.loss,
        output=message.output,
        augment=message.augment,
        preprocessing=Preprocessing(
            mode=message.preprocessing.mode,
            **_present(message.preprocessing, "scale"),
            mean=tuple(message.preprocessing.mean),
            std=tuple(message.preprocessing.std),
        ),
        from_scratch=message.from_scratch,
        mask=message.mask,
        units=message.units,
        precision=message.precision,
    )


def _job_error(status: Status) -> JobError:
    reason, violations = details_of(status)
    code = _CODES.get(status.code, "UNKNOWN")
    return JobError(code=code, message=status.message, reason=reason, violations=violations)


def _cost(message: pb.Cost) -> Cost:
    return Cost(params=message.params, macs=message.macs, bytes=message.bytes)


def _metrics(messages: Iterable[pb.Metric]) -> dict[str, Metric]:
    return {
        metric.name: Metric(
            name=metric.name,
            value=metric.value,
            higher_is_better=metric.higher_is_better,
            **_present(metric, "low high"),
        )
        for metric in messages
    }


def _present(message: Message, names: str) -> dict[str, Any]:
    return {name: getattr(message, name) for name in names.split() if message.HasField(name)}


def _seconds(message: Message, name: str) -> float | None:
    if not message.HasField(name):
        return None
    length: Duration = getattr(message, name)
    return length.ToTimedelta().total_seconds()


def _member(enum: type[_Known], name: str) -> _Known:
    return enum[name] if name in enum.__members__ else enum.UNKNOWN


def _time(timestamp: Timestamp) -> datetime:
    return timestamp.ToDatetime(tzinfo=UTC)
