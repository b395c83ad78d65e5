"""Inside a worker process: compress a network.  Importing this imports torch."""

from collections.abc import Callable, Generator
from multiprocessing.connection import Connection

import torch

from npn_core import pipeline
from npn_core.prepare import warm_up
from npn_core.progress import Progress
from npn_service.jobs.model import ArtifactFile

from .assignment import perform
from .messages import Assignment, Finished

warm_up()  # before the process says that it is ready


def run(connection: Connection) -> None:
    """Compress what the one Assignment that comes through the pipe asks for."""
    perform(connection, compress)


def compress(assignment: Assignment, should_stop: Callable[[], bool]) -> Generator[Progress, None, Finished]:
    """Run the method on as many threads as the job says."""
    spec = assignment.spec
    torch.set_num_threads(spec.training.threads)
    job = pipeline.CompressJob(
        model=assignment.core_model,
        dataset=assignment.dataset,
        layout=spec.dataset.layout,
        budget=spec.budget,
        training=spec.training,
        output=assignment.output,
    )
    outcome = yield from pipeline.compress(job, should_stop)
    return Finished(
        dense=outcome.dense,
        compact=outcome.compact,
        metrics=outcome.metrics,
        files=tuple(ArtifactFile(path=f.path, size=f.size, sha256=f.sha256) for f in outcome.files),
        train_time=outcome.train_time,
    )
