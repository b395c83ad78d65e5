"""Inside a worker process: compress a network.  Importing this imports torch."""

from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

import torch

from npn_core import checkpoint, pipeline
from npn_core.data import Room
from npn_core.job import CompressJob
from npn_core.prepare import warm_up
from npn_core.train import Trainer
from npn_service.jobs.model import ArtifactFile

from .assignment import Steps, perform
from .checkpointing import Checkpoints
from .messages import Assignment, Finished, Planned
from .planning import plan_of

warm_up()  # before the process says that it is ready


def run(connection: Connection) -> None:
    """Compress what the one Assignment that comes through the pipe asks for."""
    perform(connection, compress)


class _Keeper:
    """Writes the loop's checkpoints where the server wants them."""

    def __init__(self, checkpoints: Checkpoints) -> None:
        self._checkpoints = checkpoints
        self.due = checkpoints.due

    def keep(self, trainer: Trainer, beside: Callable[[Path], None] | None = None) -> None:
        """One, with its step as its name."""

        def write(folder: Path) -> None:
            checkpoint.write(folder, trainer)
            if beside is not None:
                beside(folder)

        self._checkpoints.keep(trainer.past + trainer.state.meter.step, write)


def compress(assignment: Assignment, should_stop: Callable[[], bool], checkpoints: Checkpoints) -> Steps:
    """Run the method on as many threads as the job says."""
    spec = assignment.spec
    torch.set_num_threads(spec.training.threads)
    if not assignment.planned:
        yield Planned(plan=plan_of(assignment, lambda field: None))
    job = CompressJob(
        model=assignment.core_model,
        dataset=assignment.dataset,
        layout=spec.dataset.layout,
        budget=spec.budget,
        training=spec.training,
        expansion=spec.expansion,
        output=assignment.output,
        checkpoint=assignment.resume,
        room=Room(memory=assignment.room.memory, disk=assignment.room.disk, folder=assignment.output.parent),
    )
    outcome = yield from pipeline.compress(job, should_stop, _Keeper(checkpoints))
    return Finished(
        dense=outcome.dense,
        compact=outcome.compact,
        metrics=outcome.metrics,
        files=tuple(ArtifactFile(path=f.path, size=f.size, sha256=f.sha256) for f in outcome.files),
        train_time=outcome.train_time,
    )
