"""Inside a worker process: when a checkpoint is due, and telling the server of each."""

import hashlib
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

from npn_service.jobs.model import ArtifactFile

from .messages import Assignment, Checkpointed, CheckpointFailed


class Checkpoints:
    """The checkpoints of one assignment: every so many seconds, and a last one before the worker stops.

    `send` takes messages for the server.  `suspend` may be called from any thread, everything else is for the
    one that works.
    """

    def __init__(self, assignment: Assignment, send: Callable[[object], None]) -> None:
        self._folder = assignment.checkpoints
        self._seconds = assignment.checkpoint_seconds
        self._send = send
        self._since = time.monotonic()
        self._step = -1
        self._suspending = threading.Event()
        self.suspended = False

    def suspend(self) -> None:
        """Make one at the next chance; then `suspended` is true, and the work is to stop."""
        self._suspending.set()

    def due(self) -> bool:
        """Whether to make one now."""
        return self._suspending.is_set() or time.monotonic() - self._since >= self._seconds

    def keep(self, step: int, write: Callable[[Path], None]) -> None:
        """Have `write` make a new folder with the state after `step` steps, and tell the server.

        Where that fails the work goes on: the next one may succeed.
        """
        suspending = self._suspending.is_set()
        if step != self._step:
            try:
                self._send(Checkpointed(step=step, files=self._write(step, write)))
                self._step = step
            except OSError as error:
                self._send(CheckpointFailed(step=step, cause=error.strerror or str(error)))
        self._since = time.monotonic()
        self.suspended = suspending

    def _write(self, step: int, write: Callable[[Path], None]) -> tuple[ArtifactFile, ...]:
        """Complete, or not at all."""
        unfinished, folder = self._folder / "unfinished", self._folder / str(step)
        shutil.rmtree(unfinished, ignore_errors=True)
        self._folder.mkdir(exist_ok=True)
        try:
            write(unfinished)
            files = tuple(_describe(path) for path in sorted(unfinished.iterdir()))
        except BaseException:
            shutil.rmtree(unfinished, ignore_errors=True)  # makes room again where there was none
            raise
        unfinished.rename(folder)
        return files


def _describe(path: Path) -> ArtifactFile:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
    return ArtifactFile(path=path.name, size=path.stat().st_size, sha256=digest.hexdigest())
