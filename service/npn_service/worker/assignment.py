"""Inside a worker process: take one assignment, report while it runs, say what came of it."""

import os
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Generator
from multiprocessing.connection import Connection
from typing import Final

from npn_core.errors import Stopped
from npn_core.progress import Progress

from .checkpointing import Checkpoints
from .failures import describe
from .messages import Assignment, Cancel, Cancelled, Failed, Finished, Planned, Reported, Suspend

_REPORT_SECONDS: Final = 0.25

Steps = Generator[Planned | Progress, None, Finished]
Work = Callable[[Assignment, Callable[[], bool], Checkpoints], Steps]
"""Runs an assignment: yields a plan where there was none, then progress, asks now and then for a checkpoint, then
whether to stop, and raises Stopped if so."""


def perform(connection: Connection, work: Work) -> None:
    """Run the one Assignment that comes through the pipe and send Finished, Failed or Cancelled."""
    try:
        assignment: Assignment = connection.recv()
    except EOFError:  # the pool is stopped
        return
    tempfile.tempdir = str(assignment.output.parent)  # goes with the attempt, however that ends
    stop = threading.Event()
    checkpoints = Checkpoints(assignment, connection.send)
    threading.Thread(target=_listen, args=(connection, stop, checkpoints), daemon=True).start()
    try:
        steps = work(assignment, lambda: stop.is_set() or checkpoints.suspended, checkpoints)
        connection.send(_report(steps, connection))
    except Stopped:
        connection.send(Cancelled())
    except Exception as error:
        traceback.print_exc()  # the dispatcher logs it
        connection.send(Failed(error=describe(error)))


def _listen(connection: Connection, stop: threading.Event, checkpoints: Checkpoints) -> None:
    try:
        while True:
            match connection.recv():
                case Cancel():
                    stop.set()
                case Suspend():
                    checkpoints.suspend()
    except (EOFError, OSError):  # the server is gone
        os._exit(1)


def _report(steps: Steps, connection: Connection) -> Finished:
    """Send the plan, the first progress of each stage, the last of all, and not too many in between."""
    sent, stage = 0.0, None
    held: Progress | None = None
    while True:
        try:
            said = next(steps)
        except StopIteration as end:
            if held is not None:
                connection.send(Reported(progress=held))
            finished: Finished = end.value
            return finished
        if isinstance(said, Planned):
            connection.send(said)
            continue
        held, now = said, time.monotonic()
        if held.stage is not stage or held.warning or now - sent >= _REPORT_SECONDS:
            connection.send(Reported(progress=held))
            sent, stage, held = now, held.stage, None
