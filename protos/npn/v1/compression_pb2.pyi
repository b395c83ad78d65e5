import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import empty_pb2 as _empty_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.rpc import status_pb2 as _status_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class JobState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    JOB_STATE_UNSPECIFIED: _ClassVar[JobState]
    JOB_STATE_QUEUED: _ClassVar[JobState]
    JOB_STATE_RUNNING: _ClassVar[JobState]
    JOB_STATE_CANCELLING: _ClassVar[JobState]
    JOB_STATE_SUCCEEDED: _ClassVar[JobState]
    JOB_STATE_FAILED: _ClassVar[JobState]
    JOB_STATE_CANCELLED: _ClassVar[JobState]

class Stage(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    STAGE_UNSPECIFIED: _ClassVar[Stage]
    STAGE_PREPARE: _ClassVar[Stage]
    STAGE_DENSE: _ClassVar[Stage]
    STAGE_PLASTIC: _ClassVar[Stage]
    STAGE_FINE_TUNE: _ClassVar[Stage]
    STAGE_EXPORT: _ClassVar[Stage]

class UploadState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    UPLOAD_STATE_UNSPECIFIED: _ClassVar[UploadState]
    UPLOAD_STATE_OPEN: _ClassVar[UploadState]
    UPLOAD_STATE_COMPLETE: _ClassVar[UploadState]
JOB_STATE_UNSPECIFIED: JobState
JOB_STATE_QUEUED: JobState
JOB_STATE_RUNNING: JobState
JOB_STATE_CANCELLING: JobState
JOB_STATE_SUCCEEDED: JobState
JOB_STATE_FAILED: JobState
JOB_STATE_CANCELLED: JobState
STAGE_UNSPECIFIED: Stage
STAGE_PREPARE: Stage
STAGE_DENSE: Stage
STAGE_PLASTIC: Stage
STAGE_FINE_TUNE: Stage
STAGE_EXPORT: Stage
UPLOAD_STATE_UNSPECIFIED: UploadState
UPLOAD_STATE_OPEN: UploadState
UPLOAD_STATE_COMPLETE: UploadState

class Job(_message.Message):
    __slots__ = ("name", "state", "done", "wait_reason", "compress", "expand", "model", "dataset", "budget", "training", "labels", "resources", "priority", "max_duration", "owner", "creator", "create_time", "start_time", "end_time", "sequence", "plan", "progress", "attempt", "error", "result")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    NAME_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    DONE_FIELD_NUMBER: _ClassVar[int]
    WAIT_REASON_FIELD_NUMBER: _ClassVar[int]
    COMPRESS_FIELD_NUMBER: _ClassVar[int]
    EXPAND_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    DATASET_FIELD_NUMBER: _ClassVar[int]
    BUDGET_FIELD_NUMBER: _ClassVar[int]
    TRAINING_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    RESOURCES_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    MAX_DURATION_FIELD_NUMBER: _ClassVar[int]
    OWNER_FIELD_NUMBER: _ClassVar[int]
    CREATOR_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    START_TIME_FIELD_NUMBER: _ClassVar[int]
    END_TIME_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    PLAN_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    name: str
    state: JobState
    done: bool
    wait_reason: str
    compress: CompressTask
    expand: ExpandTask
    model: Model
    dataset: Dataset
    budget: Budget
    training: Training
    labels: _containers.ScalarMap[str, str]
    resources: Resources
    priority: int
    max_duration: _duration_pb2.Duration
    owner: str
    creator: str
    create_time: _timestamp_pb2.Timestamp
    start_time: _timestamp_pb2.Timestamp
    end_time: _timestamp_pb2.Timestamp
    sequence: int
    plan: Plan
    progress: Progress
    attempt: int
    error: _status_pb2.Status
    result: Result
    def __init__(self, name: _Optional[str] = ..., state: _Optional[_Union[JobState, str]] = ..., done: bool = ..., wait_reason: _Optional[str] = ..., compress: _Optional[_Union[CompressTask, _Mapping]] = ..., expand: _Optional[_Union[ExpandTask, _Mapping]] = ..., model: _Optional[_Union[Model, _Mapping]] = ..., dataset: _Optional[_Union[Dataset, _Mapping]] = ..., budget: _Optional[_Union[Budget, _Mapping]] = ..., training: _Optional[_Union[Training, _Mapping]] = ..., labels: _Optional[_Mapping[str, str]] = ..., resources: _Optional[_Union[Resources, _Mapping]] = ..., priority: _Optional[int] = ..., max_duration: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., owner: _Optional[str] = ..., creator: _Optional[str] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., start_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., end_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., sequence: _Optional[int] = ..., plan: _Optional[_Union[Plan, _Mapping]] = ..., progress: _Optional[_Union[Progress, _Mapping]] = ..., attempt: _Optional[int] = ..., error: _Optional[_Union[_status_pb2.Status, _Mapping]] = ..., result: _Optional[_Union[Result, _Mapping]] = ...) -> None: ...

class CompressTask(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ExpandTask(_message.Message):
    __slots__ = ("awake",)
    class AwakeEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    AWAKE_FIELD_NUMBER: _ClassVar[int]
    awake: _containers.ScalarMap[str, int]
    def __init__(self, awake: _Optional[_Mapping[str, int]] = ...) -> None: ...

class Model(_message.Message):
    __slots__ = ("architecture", "uri")
    ARCHITECTURE_FIELD_NUMBER: _ClassVar[int]
    URI_FIELD_NUMBER: _ClassVar[int]
    architecture: Architecture
    uri: str
    def __init__(self, architecture: _Optional[_Union[Architecture, _Mapping]] = ..., uri: _Optional[str] = ...) -> None: ...

class Architecture(_message.Message):
    __slots__ = ("name", "params")
    class ParamsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    NAME_FIELD_NUMBER: _ClassVar[int]
    PARAMS_FIELD_NUMBER: _ClassVar[int]
    name: str
    params: _containers.ScalarMap[str, str]
    def __init__(self, name: _Optional[str] = ..., params: _Optional[_Mapping[str, str]] = ...) -> None: ...

class Dataset(_message.Message):
    __slots__ = ("uri", "layout")
    URI_FIELD_NUMBER: _ClassVar[int]
    LAYOUT_FIELD_NUMBER: _ClassVar[int]
    uri: str
    layout: str
    def __init__(self, uri: _Optional[str] = ..., layout: _Optional[str] = ...) -> None: ...

class Budget(_message.Message):
    __slots__ = ("max_params", "max_macs", "max_bytes", "max_accuracy_drop_points")
    MAX_PARAMS_FIELD_NUMBER: _ClassVar[int]
    MAX_MACS_FIELD_NUMBER: _ClassVar[int]
    MAX_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_ACCURACY_DROP_POINTS_FIELD_NUMBER: _ClassVar[int]
    max_params: int
    max_macs: int
    max_bytes: int
    max_accuracy_drop_points: float
    def __init__(self, max_params: _Optional[int] = ..., max_macs: _Optional[int] = ..., max_bytes: _Optional[int] = ..., max_accuracy_drop_points: _Optional[float] = ...) -> None: ...

class Training(_message.Message):
    __slots__ = ("epochs", "batch_size", "lr", "gate_lr", "weight_decay", "k", "estimator", "loss", "output", "augment", "preprocessing", "from_scratch", "seed", "threads", "distillation", "mask", "round_to", "optimizer", "units", "thinnest_branch", "precision")
    EPOCHS_FIELD_NUMBER: _ClassVar[int]
    BATCH_SIZE_FIELD_NUMBER: _ClassVar[int]
    LR_FIELD_NUMBER: _ClassVar[int]
    GATE_LR_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_DECAY_FIELD_NUMBER: _ClassVar[int]
    K_FIELD_NUMBER: _ClassVar[int]
    ESTIMATOR_FIELD_NUMBER: _ClassVar[int]
    LOSS_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_FIELD_NUMBER: _ClassVar[int]
    AUGMENT_FIELD_NUMBER: _ClassVar[int]
    PREPROCESSING_FIELD_NUMBER: _ClassVar[int]
    FROM_SCRATCH_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    THREADS_FIELD_NUMBER: _ClassVar[int]
    DISTILLATION_FIELD_NUMBER: _ClassVar[int]
    MASK_FIELD_NUMBER: _ClassVar[int]
    ROUND_TO_FIELD_NUMBER: _ClassVar[int]
    OPTIMIZER_FIELD_NUMBER: _ClassVar[int]
    UNITS_FIELD_NUMBER: _ClassVar[int]
    THINNEST_BRANCH_FIELD_NUMBER: _ClassVar[int]
    PRECISION_FIELD_NUMBER: _ClassVar[int]
    epochs: int
    batch_size: int
    lr: float
    gate_lr: float
    weight_decay: float
    k: KSchedule
    estimator: str
    loss: str
    output: str
    augment: str
    preprocessing: Preprocessing
    from_scratch: bool
    seed: int
    threads: int
    distillation: float
    mask: str
    round_to: int
    optimizer: str
    units: str
    thinnest_branch: float
    precision: str
    def __init__(self, epochs: _Optional[int] = ..., batch_size: _Optional[int] = ..., lr: _Optional[float] = ..., gate_lr: _Optional[float] = ..., weight_decay: _Optional[float] = ..., k: _Optional[_Union[KSchedule, _Mapping]] = ..., estimator: _Optional[str] = ..., loss: _Optional[str] = ..., output: _Optional[str] = ..., augment: _Optional[str] = ..., preprocessing: _Optional[_Union[Preprocessing, _Mapping]] = ..., from_scratch: bool = ..., seed: _Optional[int] = ..., threads: _Optional[int] = ..., distillation: _Optional[float] = ..., mask: _Optional[str] = ..., round_to: _Optional[int] = ..., optimizer: _Optional[str] = ..., units: _Optional[str] = ..., thinnest_branch: _Optional[float] = ..., precision: _Optional[str] = ...) -> None: ...

class KSchedule(_message.Message):
    __slots__ = ("dense_fraction", "plastic_fraction", "start", "end")
    DENSE_FRACTION_FIELD_NUMBER: _ClassVar[int]
    PLASTIC_FRACTION_FIELD_NUMBER: _ClassVar[int]
    START_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    dense_fraction: float
    plastic_fraction: float
    start: float
    end: float
    def __init__(self, dense_fraction: _Optional[float] = ..., plastic_fraction: _Optional[float] = ..., start: _Optional[float] = ..., end: _Optional[float] = ...) -> None: ...

class Preprocessing(_message.Message):
    __slots__ = ("mode", "scale", "mean", "std")
    MODE_FIELD_NUMBER: _ClassVar[int]
    SCALE_FIELD_NUMBER: _ClassVar[int]
    MEAN_FIELD_NUMBER: _ClassVar[int]
    STD_FIELD_NUMBER: _ClassVar[int]
    mode: str
    scale: float
    mean: _containers.RepeatedScalarFieldContainer[float]
    std: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, mode: _Optional[str] = ..., scale: _Optional[float] = ..., mean: _Optional[_Iterable[float]] = ..., std: _Optional[_Iterable[float]] = ...) -> None: ...

class Resources(_message.Message):
    __slots__ = ("cpus", "gpus", "memory_bytes")
    CPUS_FIELD_NUMBER: _ClassVar[int]
    GPUS_FIELD_NUMBER: _ClassVar[int]
    MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    cpus: int
    gpus: int
    memory_bytes: int
    def __init__(self, cpus: _Optional[int] = ..., gpus: _Optional[int] = ..., memory_bytes: _Optional[int] = ...) -> None: ...

class Cost(_message.Message):
    __slots__ = ("params", "macs", "bytes")
    PARAMS_FIELD_NUMBER: _ClassVar[int]
    MACS_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    params: int
    macs: int
    bytes: int
    def __init__(self, params: _Optional[int] = ..., macs: _Optional[int] = ..., bytes: _Optional[int] = ...) -> None: ...

class Plan(_message.Message):
    __slots__ = ("dense", "smallest", "groups", "dataset", "warnings", "unpruned", "prunable")
    DENSE_FIELD_NUMBER: _ClassVar[int]
    SMALLEST_FIELD_NUMBER: _ClassVar[int]
    GROUPS_FIELD_NUMBER: _ClassVar[int]
    DATASET_FIELD_NUMBER: _ClassVar[int]
    WARNINGS_FIELD_NUMBER: _ClassVar[int]
    UNPRUNED_FIELD_NUMBER: _ClassVar[int]
    PRUNABLE_FIELD_NUMBER: _ClassVar[int]
    dense: Cost
    smallest: Cost
    groups: _containers.RepeatedCompositeFieldContainer[GroupPlan]
    dataset: DatasetInfo
    warnings: _containers.RepeatedScalarFieldContainer[str]
    unpruned: _containers.RepeatedCompositeFieldContainer[Unpruned]
    prunable: float
    def __init__(self, dense: _Optional[_Union[Cost, _Mapping]] = ..., smallest: _Optional[_Union[Cost, _Mapping]] = ..., groups: _Optional[_Iterable[_Union[GroupPlan, _Mapping]]] = ..., dataset: _Optional[_Union[DatasetInfo, _Mapping]] = ..., warnings: _Optional[_Iterable[str]] = ..., unpruned: _Optional[_Iterable[_Union[Unpruned, _Mapping]]] = ..., prunable: _Optional[float] = ...) -> None: ...

class GroupPlan(_message.Message):
    __slots__ = ("name", "kind", "size")
    NAME_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    name: str
    kind: str
    size: int
    def __init__(self, name: _Optional[str] = ..., kind: _Optional[str] = ..., size: _Optional[int] = ...) -> None: ...

class Unpruned(_message.Message):
    __slots__ = ("name", "size", "reason")
    NAME_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    name: str
    size: int
    reason: str
    def __init__(self, name: _Optional[str] = ..., size: _Optional[int] = ..., reason: _Optional[str] = ...) -> None: ...

class DatasetInfo(_message.Message):
    __slots__ = ("train_samples", "validation_samples", "test_samples", "input_shape", "classes", "dtype", "inputs", "target", "target_shape")
    TRAIN_SAMPLES_FIELD_NUMBER: _ClassVar[int]
    VALIDATION_SAMPLES_FIELD_NUMBER: _ClassVar[int]
    TEST_SAMPLES_FIELD_NUMBER: _ClassVar[int]
    INPUT_SHAPE_FIELD_NUMBER: _ClassVar[int]
    CLASSES_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    INPUTS_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    TARGET_SHAPE_FIELD_NUMBER: _ClassVar[int]
    train_samples: int
    validation_samples: int
    test_samples: int
    input_shape: _containers.RepeatedScalarFieldContainer[int]
    classes: int
    dtype: str
    inputs: _containers.RepeatedCompositeFieldContainer[DatasetInput]
    target: str
    target_shape: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, train_samples: _Optional[int] = ..., validation_samples: _Optional[int] = ..., test_samples: _Optional[int] = ..., input_shape: _Optional[_Iterable[int]] = ..., classes: _Optional[int] = ..., dtype: _Optional[str] = ..., inputs: _Optional[_Iterable[_Union[DatasetInput, _Mapping]]] = ..., target: _Optional[str] = ..., target_shape: _Optional[_Iterable[int]] = ...) -> None: ...

class DatasetInput(_message.Message):
    __slots__ = ("name", "shape", "dtype")
    NAME_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    name: str
    shape: _containers.RepeatedScalarFieldContainer[int]
    dtype: str
    def __init__(self, name: _Optional[str] = ..., shape: _Optional[_Iterable[int]] = ..., dtype: _Optional[str] = ...) -> None: ...

class Metric(_message.Message):
    __slots__ = ("name", "value", "higher_is_better", "low", "high")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    HIGHER_IS_BETTER_FIELD_NUMBER: _ClassVar[int]
    LOW_FIELD_NUMBER: _ClassVar[int]
    HIGH_FIELD_NUMBER: _ClassVar[int]
    name: str
    value: float
    higher_is_better: bool
    low: float
    high: float
    def __init__(self, name: _Optional[str] = ..., value: _Optional[float] = ..., higher_is_better: bool = ..., low: _Optional[float] = ..., high: _Optional[float] = ...) -> None: ...

class Progress(_message.Message):
    __slots__ = ("step", "steps", "epoch", "epochs", "stage", "k", "loss", "metrics", "costs", "groups", "samples_per_second", "time_left", "time", "warning", "trials")
    STEP_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    EPOCHS_FIELD_NUMBER: _ClassVar[int]
    STAGE_FIELD_NUMBER: _ClassVar[int]
    K_FIELD_NUMBER: _ClassVar[int]
    LOSS_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    COSTS_FIELD_NUMBER: _ClassVar[int]
    GROUPS_FIELD_NUMBER: _ClassVar[int]
    SAMPLES_PER_SECOND_FIELD_NUMBER: _ClassVar[int]
    TIME_LEFT_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    WARNING_FIELD_NUMBER: _ClassVar[int]
    TRIALS_FIELD_NUMBER: _ClassVar[int]
    step: int
    steps: int
    epoch: int
    epochs: int
    stage: Stage
    k: float
    loss: float
    metrics: _containers.RepeatedCompositeFieldContainer[Metric]
    costs: _containers.RepeatedCompositeFieldContainer[CostProgress]
    groups: _containers.RepeatedCompositeFieldContainer[GroupProgress]
    samples_per_second: float
    time_left: _duration_pb2.Duration
    time: _timestamp_pb2.Timestamp
    warning: str
    trials: _containers.RepeatedCompositeFieldContainer[Trial]
    def __init__(self, step: _Optional[int] = ..., steps: _Optional[int] = ..., epoch: _Optional[int] = ..., epochs: _Optional[int] = ..., stage: _Optional[_Union[Stage, str]] = ..., k: _Optional[float] = ..., loss: _Optional[float] = ..., metrics: _Optional[_Iterable[_Union[Metric, _Mapping]]] = ..., costs: _Optional[_Iterable[_Union[CostProgress, _Mapping]]] = ..., groups: _Optional[_Iterable[_Union[GroupProgress, _Mapping]]] = ..., samples_per_second: _Optional[float] = ..., time_left: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., warning: _Optional[str] = ..., trials: _Optional[_Iterable[_Union[Trial, _Mapping]]] = ...) -> None: ...

class Trial(_message.Message):
    __slots__ = ("kind", "limit", "cost", "accuracy", "low", "high", "passed")
    KIND_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    COST_FIELD_NUMBER: _ClassVar[int]
    ACCURACY_FIELD_NUMBER: _ClassVar[int]
    LOW_FIELD_NUMBER: _ClassVar[int]
    HIGH_FIELD_NUMBER: _ClassVar[int]
    PASSED_FIELD_NUMBER: _ClassVar[int]
    kind: str
    limit: int
    cost: int
    accuracy: float
    low: float
    high: float
    passed: bool
    def __init__(self, kind: _Optional[str] = ..., limit: _Optional[int] = ..., cost: _Optional[int] = ..., accuracy: _Optional[float] = ..., low: _Optional[float] = ..., high: _Optional[float] = ..., passed: bool = ...) -> None: ...

class CostProgress(_message.Message):
    __slots__ = ("kind", "expected", "hard", "budget", "multiplier")
    KIND_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_FIELD_NUMBER: _ClassVar[int]
    HARD_FIELD_NUMBER: _ClassVar[int]
    BUDGET_FIELD_NUMBER: _ClassVar[int]
    MULTIPLIER_FIELD_NUMBER: _ClassVar[int]
    kind: str
    expected: float
    hard: int
    budget: int
    multiplier: float
    def __init__(self, kind: _Optional[str] = ..., expected: _Optional[float] = ..., hard: _Optional[int] = ..., budget: _Optional[int] = ..., multiplier: _Optional[float] = ...) -> None: ...

class GroupProgress(_message.Message):
    __slots__ = ("name", "size", "active", "entropy", "variance")
    NAME_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    ACTIVE_FIELD_NUMBER: _ClassVar[int]
    ENTROPY_FIELD_NUMBER: _ClassVar[int]
    VARIANCE_FIELD_NUMBER: _ClassVar[int]
    name: str
    size: int
    active: int
    entropy: float
    variance: float
    def __init__(self, name: _Optional[str] = ..., size: _Optional[int] = ..., active: _Optional[int] = ..., entropy: _Optional[float] = ..., variance: _Optional[float] = ...) -> None: ...

class Result(_message.Message):
    __slots__ = ("dense", "compact", "metrics", "files", "train_time")
    DENSE_FIELD_NUMBER: _ClassVar[int]
    COMPACT_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    FILES_FIELD_NUMBER: _ClassVar[int]
    TRAIN_TIME_FIELD_NUMBER: _ClassVar[int]
    dense: Cost
    compact: Cost
    metrics: _containers.RepeatedCompositeFieldContainer[Metric]
    files: _containers.RepeatedCompositeFieldContainer[ArtifactFile]
    train_time: _duration_pb2.Duration
    def __init__(self, dense: _Optional[_Union[Cost, _Mapping]] = ..., compact: _Optional[_Union[Cost, _Mapping]] = ..., metrics: _Optional[_Iterable[_Union[Metric, _Mapping]]] = ..., files: _Optional[_Iterable[_Union[ArtifactFile, _Mapping]]] = ..., train_time: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class ArtifactFile(_message.Message):
    __slots__ = ("name", "path", "size", "sha256")
    NAME_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    name: str
    path: str
    size: int
    sha256: str
    def __init__(self, name: _Optional[str] = ..., path: _Optional[str] = ..., size: _Optional[int] = ..., sha256: _Optional[str] = ...) -> None: ...

class CreateJobRequest(_message.Message):
    __slots__ = ("job", "request_id", "validate_only")
    JOB_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    VALIDATE_ONLY_FIELD_NUMBER: _ClassVar[int]
    job: Job
    request_id: str
    validate_only: bool
    def __init__(self, job: _Optional[_Union[Job, _Mapping]] = ..., request_id: _Optional[str] = ..., validate_only: bool = ...) -> None: ...

class GetJobRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class ListJobsRequest(_message.Message):
    __slots__ = ("page_size", "page_token", "filter")
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    FILTER_FIELD_NUMBER: _ClassVar[int]
    page_size: int
    page_token: str
    filter: str
    def __init__(self, page_size: _Optional[int] = ..., page_token: _Optional[str] = ..., filter: _Optional[str] = ...) -> None: ...

class ListJobsResponse(_message.Message):
    __slots__ = ("jobs", "next_page_token")
    JOBS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    jobs: _containers.RepeatedCompositeFieldContainer[Job]
    next_page_token: str
    def __init__(self, jobs: _Optional[_Iterable[_Union[Job, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class WatchJobRequest(_message.Message):
    __slots__ = ("name", "after_sequence")
    NAME_FIELD_NUMBER: _ClassVar[int]
    AFTER_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    name: str
    after_sequence: int
    def __init__(self, name: _Optional[str] = ..., after_sequence: _Optional[int] = ...) -> None: ...

class WatchJobResponse(_message.Message):
    __slots__ = ("sequence", "time", "job", "progress", "heartbeat")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    JOB_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    time: _timestamp_pb2.Timestamp
    job: Job
    progress: Progress
    heartbeat: Heartbeat
    def __init__(self, sequence: _Optional[int] = ..., time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., job: _Optional[_Union[Job, _Mapping]] = ..., progress: _Optional[_Union[Progress, _Mapping]] = ..., heartbeat: _Optional[_Union[Heartbeat, _Mapping]] = ...) -> None: ...

class Heartbeat(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class CancelJobRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class DeleteJobRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class GetJobLogsRequest(_message.Message):
    __slots__ = ("name", "attempt")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    name: str
    attempt: int
    def __init__(self, name: _Optional[str] = ..., attempt: _Optional[int] = ...) -> None: ...

class JobLogs(_message.Message):
    __slots__ = ("attempt", "start_time", "end_time", "cause", "lines", "curve")
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    START_TIME_FIELD_NUMBER: _ClassVar[int]
    END_TIME_FIELD_NUMBER: _ClassVar[int]
    CAUSE_FIELD_NUMBER: _ClassVar[int]
    LINES_FIELD_NUMBER: _ClassVar[int]
    CURVE_FIELD_NUMBER: _ClassVar[int]
    attempt: int
    start_time: _timestamp_pb2.Timestamp
    end_time: _timestamp_pb2.Timestamp
    cause: str
    lines: _containers.RepeatedScalarFieldContainer[str]
    curve: _containers.RepeatedCompositeFieldContainer[Progress]
    def __init__(self, attempt: _Optional[int] = ..., start_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., end_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., cause: _Optional[str] = ..., lines: _Optional[_Iterable[str]] = ..., curve: _Optional[_Iterable[_Union[Progress, _Mapping]]] = ...) -> None: ...

class ListArchitecturesRequest(_message.Message):
    __slots__ = ("page_size", "page_token")
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    page_size: int
    page_token: str
    def __init__(self, page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListArchitecturesResponse(_message.Message):
    __slots__ = ("architectures", "next_page_token")
    ARCHITECTURES_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    architectures: _containers.RepeatedCompositeFieldContainer[ArchitectureInfo]
    next_page_token: str
    def __init__(self, architectures: _Optional[_Iterable[_Union[ArchitectureInfo, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class ArchitectureInfo(_message.Message):
    __slots__ = ("name", "description", "params", "dense", "example_input_shape", "example_classes")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    PARAMS_FIELD_NUMBER: _ClassVar[int]
    DENSE_FIELD_NUMBER: _ClassVar[int]
    EXAMPLE_INPUT_SHAPE_FIELD_NUMBER: _ClassVar[int]
    EXAMPLE_CLASSES_FIELD_NUMBER: _ClassVar[int]
    name: str
    description: str
    params: _containers.RepeatedCompositeFieldContainer[ArchitectureParam]
    dense: Cost
    example_input_shape: _containers.RepeatedScalarFieldContainer[int]
    example_classes: int
    def __init__(self, name: _Optional[str] = ..., description: _Optional[str] = ..., params: _Optional[_Iterable[_Union[ArchitectureParam, _Mapping]]] = ..., dense: _Optional[_Union[Cost, _Mapping]] = ..., example_input_shape: _Optional[_Iterable[int]] = ..., example_classes: _Optional[int] = ...) -> None: ...

class ArchitectureParam(_message.Message):
    __slots__ = ("name", "description", "default_value")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    DEFAULT_VALUE_FIELD_NUMBER: _ClassVar[int]
    name: str
    description: str
    default_value: str
    def __init__(self, name: _Optional[str] = ..., description: _Optional[str] = ..., default_value: _Optional[str] = ...) -> None: ...

class GetServerInfoRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ServerInfo(_message.Message):
    __slots__ = ("version", "limits", "features", "estimators")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    FEATURES_FIELD_NUMBER: _ClassVar[int]
    ESTIMATORS_FIELD_NUMBER: _ClassVar[int]
    version: str
    limits: Limits
    features: _containers.RepeatedScalarFieldContainer[str]
    estimators: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, version: _Optional[str] = ..., limits: _Optional[_Union[Limits, _Mapping]] = ..., features: _Optional[_Iterable[str]] = ..., estimators: _Optional[_Iterable[str]] = ...) -> None: ...

class Limits(_message.Message):
    __slots__ = ("max_message_bytes", "max_upload_bytes", "max_files_per_upload", "max_epochs", "max_running_jobs", "max_queued_jobs", "max_stored_bytes", "max_job_duration", "job_retention")
    MAX_MESSAGE_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_UPLOAD_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_FILES_PER_UPLOAD_FIELD_NUMBER: _ClassVar[int]
    MAX_EPOCHS_FIELD_NUMBER: _ClassVar[int]
    MAX_RUNNING_JOBS_FIELD_NUMBER: _ClassVar[int]
    MAX_QUEUED_JOBS_FIELD_NUMBER: _ClassVar[int]
    MAX_STORED_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_JOB_DURATION_FIELD_NUMBER: _ClassVar[int]
    JOB_RETENTION_FIELD_NUMBER: _ClassVar[int]
    max_message_bytes: int
    max_upload_bytes: int
    max_files_per_upload: int
    max_epochs: int
    max_running_jobs: int
    max_queued_jobs: int
    max_stored_bytes: int
    max_job_duration: _duration_pb2.Duration
    job_retention: _duration_pb2.Duration
    def __init__(self, max_message_bytes: _Optional[int] = ..., max_upload_bytes: _Optional[int] = ..., max_files_per_upload: _Optional[int] = ..., max_epochs: _Optional[int] = ..., max_running_jobs: _Optional[int] = ..., max_queued_jobs: _Optional[int] = ..., max_stored_bytes: _Optional[int] = ..., max_job_duration: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., job_retention: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class Upload(_message.Message):
    __slots__ = ("name", "state", "files", "object", "create_time", "expire_time")
    NAME_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    FILES_FIELD_NUMBER: _ClassVar[int]
    OBJECT_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    EXPIRE_TIME_FIELD_NUMBER: _ClassVar[int]
    name: str
    state: UploadState
    files: _containers.RepeatedCompositeFieldContainer[UploadFile]
    object: str
    create_time: _timestamp_pb2.Timestamp
    expire_time: _timestamp_pb2.Timestamp
    def __init__(self, name: _Optional[str] = ..., state: _Optional[_Union[UploadState, str]] = ..., files: _Optional[_Iterable[_Union[UploadFile, _Mapping]]] = ..., object: _Optional[str] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., expire_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class UploadFile(_message.Message):
    __slots__ = ("path", "size", "sha256", "committed", "write_object", "parts")
    PATH_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    COMMITTED_FIELD_NUMBER: _ClassVar[int]
    WRITE_OBJECT_FIELD_NUMBER: _ClassVar[int]
    PARTS_FIELD_NUMBER: _ClassVar[int]
    path: str
    size: int
    sha256: str
    committed: int
    write_object: WriteObjectTransfer
    parts: PartTransfer
    def __init__(self, path: _Optional[str] = ..., size: _Optional[int] = ..., sha256: _Optional[str] = ..., committed: _Optional[int] = ..., write_object: _Optional[_Union[WriteObjectTransfer, _Mapping]] = ..., parts: _Optional[_Union[PartTransfer, _Mapping]] = ...) -> None: ...

class WriteObjectTransfer(_message.Message):
    __slots__ = ("max_chunk_bytes",)
    MAX_CHUNK_BYTES_FIELD_NUMBER: _ClassVar[int]
    max_chunk_bytes: int
    def __init__(self, max_chunk_bytes: _Optional[int] = ...) -> None: ...

class PartTransfer(_message.Message):
    __slots__ = ("part_bytes", "urls")
    PART_BYTES_FIELD_NUMBER: _ClassVar[int]
    URLS_FIELD_NUMBER: _ClassVar[int]
    part_bytes: int
    urls: _containers.RepeatedCompositeFieldContainer[PartUrl]
    def __init__(self, part_bytes: _Optional[int] = ..., urls: _Optional[_Iterable[_Union[PartUrl, _Mapping]]] = ...) -> None: ...

class PartUrl(_message.Message):
    __slots__ = ("number", "url")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    URL_FIELD_NUMBER: _ClassVar[int]
    number: int
    url: str
    def __init__(self, number: _Optional[int] = ..., url: _Optional[str] = ...) -> None: ...

class CreateUploadRequest(_message.Message):
    __slots__ = ("files", "request_id")
    FILES_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    files: _containers.RepeatedCompositeFieldContainer[UploadFile]
    request_id: str
    def __init__(self, files: _Optional[_Iterable[_Union[UploadFile, _Mapping]]] = ..., request_id: _Optional[str] = ...) -> None: ...

class GetUploadRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class CompleteUploadRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class ListUploadsRequest(_message.Message):
    __slots__ = ("page_size", "page_token")
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    page_size: int
    page_token: str
    def __init__(self, page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListUploadsResponse(_message.Message):
    __slots__ = ("uploads", "next_page_token")
    UPLOADS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    uploads: _containers.RepeatedCompositeFieldContainer[Upload]
    next_page_token: str
    def __init__(self, uploads: _Optional[_Iterable[_Union[Upload, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class DeleteUploadRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class GetDownloadRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class Download(_message.Message):
    __slots__ = ("url", "read_object", "size", "sha256", "expire_time")
    URL_FIELD_NUMBER: _ClassVar[int]
    READ_OBJECT_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    EXPIRE_TIME_FIELD_NUMBER: _ClassVar[int]
    url: str
    read_object: str
    size: int
    sha256: str
    expire_time: _timestamp_pb2.Timestamp
    def __init__(self, url: _Optional[str] = ..., read_object: _Optional[str] = ..., size: _Optional[int] = ..., sha256: _Optional[str] = ..., expire_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class ReadObjectRequest(_message.Message):
    __slots__ = ("name", "offset")
    NAME_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    name: str
    offset: int
    def __init__(self, name: _Optional[str] = ..., offset: _Optional[int] = ...) -> None: ...

class ReadObjectResponse(_message.Message):
    __slots__ = ("data",)
    DATA_FIELD_NUMBER: _ClassVar[int]
    data: bytes
    def __init__(self, data: _Optional[bytes] = ...) -> None: ...

class WriteObjectRequest(_message.Message):
    __slots__ = ("upload", "path", "offset", "data")
    UPLOAD_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    upload: str
    path: str
    offset: int
    data: bytes
    def __init__(self, upload: _Optional[str] = ..., path: _Optional[str] = ..., offset: _Optional[int] = ..., data: _Optional[bytes] = ...) -> None: ...

class WriteObjectResponse(_message.Message):
    __slots__ = ("committed",)
    COMMITTED_FIELD_NUMBER: _ClassVar[int]
    committed: int
    def __init__(self, committed: _Optional[int] = ...) -> None: ...
