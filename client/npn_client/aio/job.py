"""Handles of jobs and results for asyncio; they differ from the blocking ones in awaiting alone."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Protocol

from npn_client.job import JobView, ResultView
from npn_client.model import ArtifactFile, Event, JobLogs, JobSnapshot, Outcome


class AsyncJobCalls(Protocol):
    """What a handle asks of the transport; every method may raise ClientError."""

    async def get_job(self, name: str) -> JobSnapshot:
        """The job as it is now."""

    def watch_job(self, name: str, timeout: float | None) -> AsyncGenerator[Event, None]:
        """The current state, then events until the job is done.  Raises TimeoutError."""

    async def cancel_job(self, name: str) -> JobSnapshot:
        """Ask the job to stop."""

    async def job_logs(self, name: str, attempt: int | None) -> JobLogs:
        """What is kept of an attempt."""

    async def delete_job(self, name: str) -> None:
        """Remove the finished job."""

    async def download(self, file: ArtifactFile, folder: Path) -> Path:
        """Fetch one file into a folder."""


class AsyncResult(ResultView):
    """What a job that succeeded gave, and its artifact to download."""

    def __init__(self, outcome: Outcome, calls: AsyncJobCalls) -> None:
        super().__init__(outcome)
        self._calls = calls

    async def download(self, folder: str | Path) -> list[Path]:
        """Like `Result.download`."""
        return [await self._calls.download(file, Path(folder)) for file in self.files]


class AsyncJob(JobView):
    """A job on the server; the methods do what those of `Job` do."""

    def __init__(self, snapshot: JobSnapshot, calls: AsyncJobCalls) -> None:
        super().__init__(snapshot)
        self._calls = calls

    async def refresh(self) -> AsyncJob:
        """Ask the server for the job as it is now."""
        self._replace(await self._calls.get_job(self.name))
        return self

    async def watch(self, timeout: float | None = None) -> AsyncIterator[Event]:
        """The current state, then events until done; survives lost connections.  Raises TimeoutError."""
        async with aclosing(self._calls.watch_job(self.name, timeout)) as events:
            async for event in events:
                self._learn(event)
                yield event

    async def wait(self, timeout: float | None = None) -> AsyncJob:
        """Wait for any terminal state; raises TimeoutError, never for a failed job."""
        if not self.done:
            async for _ in self.watch(timeout):
                pass
        return self

    async def result(self, timeout: float | None = None) -> AsyncResult:
        """Wait for success.  Raises JobFailed, JobCancelled, or TimeoutError and leaves the job running."""
        await self.wait(timeout)
        return AsyncResult(self._outcome(), self._calls)

    async def cancel(self) -> AsyncJob:
        """Ask the job to stop."""
        self._replace(await self._calls.cancel_job(self.name))
        return self

    async def logs(self, attempt: int | None = None) -> JobLogs:
        """The last log lines and the curve of an attempt, of the newest one by default."""
        return await self._calls.job_logs(self.name, attempt)

    async def delete(self) -> None:
        """Remove the job, which must be done, and its artifact."""
        await self._calls.delete_job(self.name)
