"""What the server tells, as frozen data."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum

from .errors import Violation
from .spec import Architecture, Budget, Dataset, Expansion, ModelArchive, Resources, Training


class JobState(Enum):
    """Where a job is in its life.  UNKNOWN is a state that this client is too old for: not terminal."""

    UNKNOWN = "UNKNOWN"
    QUEUED = "QUEUED"
    RUNNING = "RUNNING"
    CANCELLING = "CANCELLING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"


class Stage(Enum):
    """What part of the method is running."""

    UNKNOWN = "UNKNOWN"
    PREPARE = "PREPARE"
    DENSE = "DENSE"
    PLASTIC = "PLASTIC"
    FINE_TUNE = "FINE_TUNE"
    EXPORT = "EXPORT"


@dataclass(frozen=True, kw_only=True, slots=True)
class Cost:
    """What a network costs: parameters, multiply-adds of one sample, bytes of tensors."""

    params: int
    macs: int
    bytes: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Metric:
    """A measured value with its 95 % interval, where there is one."""

    name: str
    value: float
    higher_is_better: bool
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class CostProgress:
    """How one budgeted cost stands: in expectation, and for the mask that hardening now would give."""

    kind: str
    expected: float
    hard: int
    budget: int
    multiplier: float


@dataclass(frozen=True, kw_only=True, slots=True)
class GroupProgress:
    """One group now: units whose gate is open at hardening, mean gate entropy in bits.

    `variance` is that of the gates' gradient estimates as a share of their mean square: 1 is noise alone.
    """

    name: str
    size: int
    active: int
    entropy: float
    variance: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Trial:
    """A size that was tried: the `cost` of a `kind` that was made under a `limit`, and its validation accuracy.

    `low` and `high` are the 95 % interval; `passed`: it lost no more than the job allows.
    """

    kind: str
    limit: int
    cost: int
    accuracy: float
    low: float
    high: float
    passed: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    """The newest report of the training loop.

    `k` is infinite in stages 1 and 3; `time_left` is in seconds, None before it can be told; `metrics` by
    name, empty before the first validation.  `trials` have ended, where the smallest network is looked for that keeps
    the accuracy; step, epoch and time left are those of the present one.
    """

    step: int
    steps: int
    epoch: int
    epochs: int
    stage: Stage
    k: float
    loss: float
    metrics: Mapping[str, Metric]
    costs: tuple[CostProgress, ...]
    groups: tuple[GroupProgress, ...]
    samples_per_second: float
    time_left: float | None
    time: datetime | None
    warning: str
    trials: tuple[Trial, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class GroupPlan:
    """A group of units that can be removed one by one.

    `kind` is "channel", "neuron", "feature", "head" or "embedding".
    """

    name: str
    kind: str
    size: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Unpruned:
    """An axis of the network that is left whole, and why."""

    name: str
    size: int
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class DatasetInput:
    """One input: `shape` is that of one sample; the only input may have no name."""

    name: str
    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True, kw_only=True, slots=True)
class DatasetInfo:
    """What headers and labels tell of a dataset.

    `input_shape` and `dtype` are those of the first of `inputs`; `target` says what y is ("classes", of which
    there are `classes`, "values" of `target_shape`, or "none").
    """

    train_samples: int
    validation_samples: int
    test_samples: int
    input_shape: tuple[int, ...]
    classes: int
    dtype: str
    inputs: tuple[DatasetInput, ...] = ()
    target: str = ""
    target_shape: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What a job comes to: the cost of the dense network and of the smallest that the method can return.

    `prunable` is the share of the dense network's parameters that belong to a group; `unpruned` is left whole.
    """

    dense: Cost
    smallest: Cost
    groups: tuple[GroupPlan, ...]
    dataset: DatasetInfo | None
    warnings: tuple[str, ...]
    unpruned: tuple[Unpruned, ...] = ()
    prunable: float = 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class ArtifactFile:
    """One file of the artifact: resource name, relative path, size in bytes, SHA-256 in lower-case hex."""

    name: str
    path: str
    size: int
    sha256: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What a job that succeeded gives.  `metrics` by name; `train_time` in seconds."""

    dense: Cost
    compact: Cost
    metrics: Mapping[str, Metric]
    files: tuple[ArtifactFile, ...]
    train_time: float


@dataclass(frozen=True, kw_only=True, slots=True)
class JobError:
    """Why a job failed.  `code` is a google.rpc.Code name, for example "INVALID_ARGUMENT"."""

    code: str
    message: str
    reason: str
    violations: tuple[Violation, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class JobSnapshot:
    """A job at one moment; `sequence` numbers its newest event.  Decide by `done`, not by `state`."""

    name: str
    state: JobState
    done: bool
    sequence: int
    wait_reason: str
    attempt: int
    model: Architecture | ModelArchive
    dataset: Dataset
    budget: Budget
    training: Training
    expansion: Expansion | None
    labels: Mapping[str, str]
    resources: Resources
    priority: int
    max_duration: float | None
    owner: str
    creator: str
    create_time: datetime | None
    start_time: datetime | None
    end_time: datetime | None
    plan: Plan | None = None
    progress: Progress | None = None
    error: JobError | None = None
    result: Outcome | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class JobLogs:
    """What is kept of how an attempt went.

    `cause` and `lines`, its last log lines, are there where it did not succeed; `curve` is its progress, thinned,
    until the job SUCCEEDED (then metrics.jsonl of the artifact has it).  `attempt` is 0 before the first one.
    """

    attempt: int
    start_time: datetime | None
    end_time: datetime | None
    cause: str
    lines: tuple[str, ...]
    curve: tuple[Progress, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class StateChanged:
    """The first event of a watch, and one for every change of state: the whole job."""

    sequence: int
    time: datetime | None
    job: JobSnapshot


@dataclass(frozen=True, kw_only=True, slots=True)
class Progressed:
    """The training loop reported."""

    sequence: int
    time: datetime | None
    progress: Progress


Event = StateChanged | Progressed


@dataclass(frozen=True, kw_only=True, slots=True)
class ArchitectureParam:
    """A parameter of a catalogue network."""

    name: str
    description: str
    default_value: str


@dataclass(frozen=True, kw_only=True, slots=True)
class ArchitectureInfo:
    """A network of the catalogue; `dense` is its cost for the example input and classes."""

    name: str
    description: str
    params: tuple[ArchitectureParam, ...]
    dense: Cost
    example_input_shape: tuple[int, ...]
    example_classes: int


@dataclass(frozen=True, kw_only=True, slots=True)
class ServerInfo:
    """Version, limits and features of a server.

    `max_running_jobs`, `max_queued_jobs` and `max_stored_bytes` (objects, open uploads, artifacts) are of each
    owner, 0 where there is no limit; `max_job_duration` and `job_retention` are in seconds, None likewise.
    """

    version: str
    max_message_bytes: int
    max_upload_bytes: int
    max_files_per_upload: int
    max_epochs: int
    max_running_jobs: int = 0
    max_queued_jobs: int = 0
    max_stored_bytes: int = 0
    max_job_duration: float | None = None
    job_retention: float | None = None
    features: tuple[str, ...] = field(default=())
    estimators: tuple[str, ...] = field(default=())
