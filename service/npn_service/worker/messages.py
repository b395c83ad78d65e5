"""What a worker process, and the inspector, are asked and what they answer.

Typed, sent over a `multiprocessing` pipe between processes of this service alone (never from the network).
"""

from dataclasses import dataclass
from pathlib import Path

from npn_core.config import CatalogueModel, Model, ModelFile
from npn_core.progress import Cost, Metric, Progress
from npn_service.jobs.model import ArchitectureModel, ArtifactFile, JobError, JobPlan, JobSpec


@dataclass(frozen=True, kw_only=True, slots=True)
class Ready:
    """The first message of every process: it has imported what its work needs."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Inputs:
    """What a job asks for, and where it lies on this host.

    `dataset` is a file or a folder; `model` the archive that the spec's model names, None for a network of the
    catalogue.
    """

    spec: JobSpec
    dataset: Path
    model: Path | None = None

    @property
    def core_model(self) -> Model:
        """The model as the method takes it."""
        match self.spec.model, self.model:
            case ArchitectureModel(name=name, params=params), None:
                return CatalogueModel(name=name, params=params)
            case _, Path() as path:
                return ModelFile(path=path)
        raise ValueError("an uploaded model has a file, a network of the catalogue has none")


@dataclass(frozen=True, kw_only=True, slots=True)
class DatasetRoom:
    """Bytes that a decoded dataset may take: up to `memory` in memory, more up to `disk` in a file."""

    memory: int = 2 << 30
    disk: int = 64 << 30


@dataclass(frozen=True, kw_only=True, slots=True)
class Assignment(Inputs):
    """One attempt to run: write the artifact into `output` (an empty local folder).

    Where the job is not `planned` its plan is said first.
    A checkpoint is written every `checkpoint_seconds` to `checkpoints`, in a folder named after its step.
    `resume` is the folder of the one to go on from.
    """

    job: str
    attempt: int
    planned: bool
    output: Path
    checkpoints: Path
    checkpoint_seconds: float = 60.0
    resume: Path | None = None
    room: DatasetRoom = DatasetRoom()


@dataclass(frozen=True, kw_only=True, slots=True)
class Cancel:
    """Stop at the next chance; the process is killed when it does not."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Suspend:
    """Write a checkpoint at the next chance, then stop and say Cancelled."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Checkpointed:
    """A checkpoint of the state after `step` steps is complete: these files lie in its folder."""

    step: int
    files: tuple[ArtifactFile, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckpointFailed:
    """A checkpoint could not be written; the work goes on."""

    step: int
    cause: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Planned:
    """What the job comes to; nobody had found the time to say so before."""

    plan: JobPlan


@dataclass(frozen=True, kw_only=True, slots=True)
class Reported:
    """The loop's newest progress."""

    progress: Progress


@dataclass(frozen=True, kw_only=True, slots=True)
class Finished:
    """The artifact is complete in the output folder.  `train_time` is in seconds."""

    dense: Cost
    compact: Cost
    metrics: tuple[Metric, ...]
    files: tuple[ArtifactFile, ...]
    train_time: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Failed:
    """The attempt failed through the job's own fault, or by a defect; it is not retried."""

    error: JobError


@dataclass(frozen=True, kw_only=True, slots=True)
class Cancelled:
    """The worker stopped because it was asked to."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Inspection(Inputs):
    """Check the spec against what headers, labels and the model's graph tell, and plan it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Reading:
    """What the inspector reads from now on, by the job's field: at fault if that is the last that it says."""

    field: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Inspected:
    """The plan, or what was wrong."""

    plan: JobPlan | None
    error: JobError | None


WorkerMessage = Planned | Reported | Checkpointed | CheckpointFailed | Finished | Failed | Cancelled
