"""What a worker process, and the inspector, are asked and what they answer.

Typed, sent over a `multiprocessing` pipe between processes of this service alone (never from the network).
"""

from dataclasses import dataclass
from pathlib import Path

from npn_core.progress import Cost, Metric, Progress
from npn_service.jobs.model import ArtifactFile, JobError, JobPlan, JobSpec


@dataclass(frozen=True, kw_only=True, slots=True)
class Ready:
    """The first message of every process: it has imported what its work needs."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Assignment:
    """One attempt to run: read `dataset`, write the artifact into `output` (an empty local folder)."""

    job: str
    attempt: int
    spec: JobSpec
    dataset: Path
    output: Path


@dataclass(frozen=True, kw_only=True, slots=True)
class Cancel:
    """Stop at the next chance; the process is killed when it does not."""


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
class Inspection:
    """Check this spec against the headers and labels of `dataset`, and plan it."""

    spec: JobSpec
    dataset: Path


@dataclass(frozen=True, kw_only=True, slots=True)
class Inspected:
    """The plan, or what was wrong."""

    plan: JobPlan | None
    error: JobError | None


WorkerMessage = Reported | Finished | Failed | Cancelled
