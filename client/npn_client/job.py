"""Handles of jobs and results.  They know no transport: what they need of one is `JobCalls`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from .errors import ClientError, JobCancelled, JobFailed
from .model import (
    ArtifactFile,
    Cost,
    Event,
    JobError,
    JobLogs,
    JobSnapshot,
    JobState,
    Metric,
    Outcome,
    Plan,
    Progress,
    Progressed,
    StateChanged,
)


class JobCalls(Protocol):
    """What a handle asks of the transport; every method may raise ClientError."""

    def get_job(self, name: str) -> JobSnapshot:
        """The job as it is now."""

    def watch_job(self, name: str, timeout: float | None) -> Iterator[Event]:
        """The current state, then events until the job is done.  Raises TimeoutError."""

    def cancel_job(self, name: str) -> JobSnapshot:
        """Ask the job to stop."""

    def job_logs(self, name: str, attempt: int | None) -> JobLogs:
        """What is kept of an attempt."""

    def delete_job(self, name: str) -> None:
        """Remove the finished job."""

    def download(self, file: ArtifactFile, folder: Path) -> Path:
        """Fetch one file into a folder."""


class JobView:
    """What is known of a job.  `snapshot` is replaced as news comes in, never by older ones."""

    def __init__(self, snapshot: JobSnapshot) -> None:
        self.snapshot = snapshot

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name} {self.state.value}>"

    @property
    def name(self) -> str:
        """Resource name, "jobs/ID"."""
        return self.snapshot.name

    @property
    def id(self) -> str:
        """The ID alone."""
        return self.name.removeprefix("jobs/")

    @property
    def state(self) -> JobState:
        """Where the job is in its life."""
        return self.snapshot.state

    @property
    def done(self) -> bool:
        """Whether no further change can come."""
        return self.snapshot.done

    @property
    def plan(self) -> Plan | None:
        """What the job comes to."""
        return self.snapshot.plan

    @property
    def progress(self) -> Progress | None:
        """The newest report of the training loop."""
        return self.snapshot.progress

    @property
    def labels(self) -> Mapping[str, str]:
        """Free key-value pairs."""
        return self.snapshot.labels

    @property
    def error(self) -> JobError | None:
        """Why the job failed."""
        return self.snapshot.error

    def _learn(self, event: Event) -> None:
        match event:
            case StateChanged():
                self._replace(event.job)
            case Progressed():
                self._replace(replace(self.snapshot, sequence=event.sequence, progress=event.progress))

    def _replace(self, snapshot: JobSnapshot) -> None:
        if snapshot.sequence >= self.snapshot.sequence:
            self.snapshot = snapshot

    def _outcome(self) -> Outcome:
        """What the job, which is done, gave; raises what it failed with."""
        if self.snapshot.result is not None:
            return self.snapshot.result
        if self.state is JobState.CANCELLED:
            raise JobCancelled(self.name)
        if self.error is not None:
            raise JobFailed(self.name, self.error)
        raise ClientError(f"{self.name} ended in a state that this client does not know; update it")


class ResultView:
    """What a job that succeeded gave."""

    def __init__(self, outcome: Outcome) -> None:
        self._outcome = outcome

    @property
    def dense(self) -> Cost:
        """Cost of the network as received."""
        return self._outcome.dense

    @property
    def compact(self) -> Cost:
        """Cost of the compact network, recounted on it."""
        return self._outcome.compact

    @property
    def metrics(self) -> Mapping[str, Metric]:
        """By name, for example "compact_test_accuracy"."""
        return self._outcome.metrics

    @property
    def files(self) -> tuple[ArtifactFile, ...]:
        """The artifact."""
        return self._outcome.files

    @property
    def train_time(self) -> float:
        """Seconds."""
        return self._outcome.train_time


class Result(ResultView):
    """What a job that succeeded gave, and its artifact to download."""

    def __init__(self, outcome: Outcome, calls: JobCalls) -> None:
        super().__init__(outcome)
        self._calls = calls

    def download(self, folder: str | Path) -> list[Path]:
        """Fetch the artifact into a folder, made when absent; files that are there already stay.

        Resumes what an earlier run left, verifies size and SHA-256.  Raises TransferFailed, ClientError.
        """
        return [self._calls.download(file, Path(folder)) for file in self.files]


class Job(JobView):
    """A job on the server."""

    def __init__(self, snapshot: JobSnapshot, calls: JobCalls) -> None:
        super().__init__(snapshot)
        self._calls = calls

    def refresh(self) -> Job:
        """Ask the server for the job as it is now."""
        self._replace(self._calls.get_job(self.name))
        return self

    def watch(self, timeout: float | None = None) -> Iterator[Event]:
        """The current state, then every state change in order with progress between them, until done.

        Survives lost connections.  Raises TimeoutError after `timeout` seconds; the job goes on running.
        """
        for event in self._calls.watch_job(self.name, timeout):
            self._learn(event)
            yield event

    def wait(self, timeout: float | None = None) -> Job:
        """Wait for any terminal state, FAILED included; raises TimeoutError after `timeout` seconds."""
        if not self.done:
            for _ in self.watch(timeout):
                pass
        return self

    def result(self, timeout: float | None = None) -> Result:
        """Wait for success.  Raises JobFailed, JobCancelled, or TimeoutError and leaves the job running."""
        return Result(self.wait(timeout)._outcome(), self._calls)

    def cancel(self) -> Job:
        """Ask the job to stop: at once when queued, within seconds when running."""
        self._replace(self._calls.cancel_job(self.name))
        return self

    def logs(self, attempt: int | None = None) -> JobLogs:
        """The last log lines and the curve of an attempt (from 1), of the newest one by default.

        Raises NotFound for an attempt that was not made.
        """
        return self._calls.job_logs(self.name, attempt)

    def delete(self) -> None:
        """Remove the job, which must be done, and its artifact."""
        self._calls.delete_job(self.name)
