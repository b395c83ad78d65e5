"""What a job is: frozen data, and the one table of its state changes.  Knows no transport and no database."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime
from enum import Enum
from types import MappingProxyType

from npn_core.config import Budget, Expansion, Training
from npn_core.progress import Cost, DatasetInfo, Metric, Plan, Progress
from npn_service.errors import WrongState


class State(Enum):
    """Where a job is in its life."""

    QUEUED = "queued"
    RUNNING = "running"
    CANCELLING = "cancelling"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def done(self) -> bool:
        """Whether no further change can come."""
        return not TRANSITIONS[self]


# Every other pair raises.  RUNNING -> QUEUED is a new attempt.
TRANSITIONS: Mapping[State, frozenset[State]] = MappingProxyType(
    {
        State.QUEUED: frozenset({State.RUNNING, State.CANCELLED, State.FAILED}),
        State.RUNNING: frozenset({State.SUCCEEDED, State.FAILED, State.CANCELLING, State.QUEUED}),
        State.CANCELLING: frozenset({State.CANCELLED, State.SUCCEEDED, State.FAILED}),
        State.SUCCEEDED: frozenset(),
        State.FAILED: frozenset(),
        State.CANCELLED: frozenset(),
    }
)


def check_transition(source: State, target: State) -> None:
    """Raises WrongState unless a job may go from `source` to `target`."""
    if target not in TRANSITIONS[source]:
        raise WrongState(f"a job that is {source.name} cannot become {target.name}")


@dataclass(frozen=True, kw_only=True, slots=True)
class ArchitectureModel:
    """A network of the catalogue."""

    name: str
    params: Mapping[str, str] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """What a log calls it."""
        return self.name


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelRef:
    """A network of the caller's own: where its archive is, as the caller gave it ("objects/{id}")."""

    uri: str

    @property
    def label(self) -> str:
        """What a log calls it."""
        return self.uri


@dataclass(frozen=True, kw_only=True, slots=True)
class DatasetRef:
    """Where the data are: `uri` as the caller gave it ("objects/{id}")."""

    uri: str
    layout: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Resources:
    """What a job asks of its host, or what a host has; 0 asks for nothing in particular.  Memory in bytes."""

    cpus: int = 0
    gpus: int = 0
    memory_bytes: int = 0

    def __post_init__(self) -> None:
        for counted in fields(self):
            if getattr(self, counted.name) < 0:
                raise ValueError(f"{counted.name} is {getattr(self, counted.name)}; it must not be negative")

    def fits(self, host: "Resources") -> bool:
        """Whether `host` has all of this."""
        return self.cpus <= host.cpus and self.gpus <= host.gpus and self.memory_bytes <= host.memory_bytes

    def without(self, taken: "Resources") -> "Resources":
        """What is left when `taken` is in use."""
        return Resources(
            cpus=max(0, self.cpus - taken.cpus),
            gpus=max(0, self.gpus - taken.gpus),
            memory_bytes=max(0, self.memory_bytes - taken.memory_bytes),
        )

    def __str__(self) -> str:
        asked = ((self.cpus, "CPUs"), (self.gpus, "GPUs"), (self.memory_bytes, "bytes of memory"))
        return ", ".join(f"{count} {what}" for count, what in asked if count) or "nothing"


@dataclass(frozen=True, kw_only=True, slots=True)
class JobSpec:
    """What the caller asked for, every default filled in; never changes.  Without an `expansion` it compresses."""

    model: ArchitectureModel | ModelRef
    dataset: DatasetRef
    budget: Budget
    training: Training
    expansion: Expansion | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    resources: Resources = Resources()
    priority: int = 0
    max_duration: float | None = None  # seconds, all attempts together

    @property
    def uris(self) -> Mapping[str, str]:
        """Where the job's inputs are, by the field that says so."""
        model = {"job.model.uri": self.model.uri} if isinstance(self.model, ModelRef) else {}
        return {"job.dataset.uri": self.dataset.uri, **model}

    @property
    def object_ids(self) -> frozenset[str]:
        """The uploaded objects that the job reads."""
        return frozenset(found for uri in self.uris.values() if (found := object_id_of(uri)) is not None)


@dataclass(frozen=True, kw_only=True, slots=True)
class JobPlan:
    """What the inspector found before the job was queued."""

    plan: Plan
    dataset: DatasetInfo


@dataclass(frozen=True, kw_only=True, slots=True)
class JobError:
    """Why a job failed.  `code` is a google.rpc.Code number; `field` is set for bad input."""

    code: int
    reason: str
    message: str
    field: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class ArtifactFile:
    """One file of the artifact.  The bytes lie at the attempt's prefix + `path`."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True, kw_only=True, slots=True)
class JobResult:
    """What a job that succeeded gives.  `train_time` in seconds."""

    dense: Cost
    compact: Cost
    metrics: tuple[Metric, ...]
    files: tuple[ArtifactFile, ...]
    train_time: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Checkpoint:
    """The state of a job's training after `step` steps, as attempt number `attempt` stored it."""

    attempt: int
    step: int
    files: tuple[ArtifactFile, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """A job at one moment.  `sequence` numbers its newest event, from 1.

    `plan` is None where the inspector did not answer in time, until the worker has made the same checks.
    """

    id: str
    owner: str
    creator: str
    state: State
    spec: JobSpec
    plan: JobPlan | None
    create_time: datetime
    start_time: datetime | None = None
    end_time: datetime | None = None
    sequence: int = 1
    attempt: int = 0
    wait_reason: str = ""
    progress: Progress | None = None
    error: JobError | None = None
    result: JobResult | None = None
    checkpoint: Checkpoint | None = None

    @property
    def name(self) -> str:
        """Resource name."""
        return f"jobs/{self.id}"

    @property
    def prefix(self) -> str:
        """Object-key prefix of everything that the job wrote."""
        return f"jobs/{self.id}/"

    @property
    def artifact_keys(self) -> frozenset[str]:
        """Object keys of what a job that succeeded published."""
        files = () if self.result is None else self.result.files
        return frozenset(self.attempt_prefix + file.path for file in files)

    @property
    def attempt_prefix(self) -> str:
        """Object-key prefix of the current attempt's output."""
        return self.prefix_of(self.attempt)

    @property
    def attempts_kept(self) -> frozenset[int]:
        """The attempts with bytes that the job points at: its artifact's, and its checkpoint's."""
        artifact = {self.attempt} if self.state is State.SUCCEEDED else set()
        return frozenset(artifact | ({self.checkpoint.attempt} if self.checkpoint else set()))

    def prefix_of(self, attempt: int) -> str:
        """Object-key prefix of everything that an attempt wrote."""
        return f"{self.prefix}attempts/{attempt}/"

    def checkpoint_prefix(self, checkpoint: Checkpoint) -> str:
        """Object-key prefix of a checkpoint's files."""
        return f"{self.prefix_of(checkpoint.attempt)}checkpoints/{checkpoint.step}/"


class Outcome(Enum):
    """How an attempt ended."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    RELEASED = "released"  # through no fault of the job, which went back to the queue


@dataclass(frozen=True, kw_only=True, slots=True)
class AttemptRecord:
    """One row of the book of attempts.  `outcome` is None while it runs; `cause` says why it did not succeed.

    One that was not heard of any more ended with its lease.
    """

    number: int
    host: str
    start_time: datetime
    end_time: datetime | None
    outcome: Outcome | None
    cause: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Event:
    """One numbered thing that happened to a job.  Exactly one of `job` and `progress` is set."""

    sequence: int
    time: datetime
    job: Job | None = None
    progress: Progress | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class CurvePoint:
    """The progress that an attempt had reported at `time`."""

    time: datetime
    progress: Progress


@dataclass(frozen=True, kw_only=True, slots=True)
class AttemptLog:
    """What is kept of one attempt.

    `cause` says how it ended where that was not with success, `lines` are its last log lines in that case,
    and `curve` is its training as far as it went, until the job SUCCEEDED.  Before the first attempt all is
    empty and `attempt` is 0.
    """

    attempt: int
    start_time: datetime | None = None
    end_time: datetime | None = None
    cause: str = ""
    lines: tuple[str, ...] = ()
    curve: tuple[CurvePoint, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Removal:
    """Bytes that go, by their key or, ending in "/", the prefix of their keys; and why."""

    prefix: str
    reason: str


class UploadState(Enum):
    """Whether an upload still takes bytes."""

    OPEN = "open"
    COMPLETE = "complete"


@dataclass(frozen=True, kw_only=True, slots=True)
class FileSpec:
    """One file of an upload: relative path, size in bytes, SHA-256 in lower-case hex."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Upload:
    """An upload, or, once complete, the object it became (`object_id`)."""

    id: str
    owner: str
    state: UploadState
    files: tuple[FileSpec, ...]
    create_time: datetime
    expire_time: datetime
    object_id: str | None = None

    @property
    def name(self) -> str:
        """Resource name."""
        return f"uploads/{self.id}"

    @property
    def prefix(self) -> str:
        """Object-key prefix of the growing files: that of the object they become."""
        return object_prefix(self.owner, self.id)


def object_id_of(uri: str) -> str | None:
    """The uploaded object that a URI names; None where the bytes lie elsewhere."""
    kind, _, object_id = uri.partition("/")
    return object_id if kind == "objects" and object_id and object_id.isprintable() else None


def object_prefix(owner: str, object_id: str) -> str:
    """Object-key prefix of an uploaded object's files."""
    return f"objects/{owner}/{object_id}/"
