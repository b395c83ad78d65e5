"""What scripted worker processes do: the job's label `script` says which; no torch, so they start quickly."""

import ctypes
import errno
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import replace
from hashlib import sha256
from multiprocessing.connection import Connection
from pathlib import Path

from job_samples import DENSE, PLAN, SMALL, progress_at

from npn_core.errors import InvalidInput, Stopped, TrainingDiverged
from npn_core.progress import Progress, Stage
from npn_service.jobs.model import ArtifactFile
from npn_service.worker.assignment import perform
from npn_service.worker.checkpointing import Checkpoints
from npn_service.worker.messages import Assignment, Finished, Inspected, Inspection, Reading, Reported

Steps = Generator[Progress, None, Finished]


def run(connection: Connection) -> None:
    """A worker process that follows the script."""

    def work(assignment: Assignment, should_stop: Callable[[], bool], checkpoints: Checkpoints) -> Steps:
        yield progress_at(1)
        script = assignment.spec.labels["script"]
        if script in COUNTS:
            first = yield from _count(assignment, should_stop, checkpoints, COUNTS[script])
            return finished(assignment, first_step=first)
        if script in SIGNALS:
            os.kill(os.getpid(), SIGNALS[script])
        elif script in CHANNEL:
            CHANNEL[script](connection)
        else:
            yield from SCRIPTS[script](assignment, should_stop) or ()
        yield progress_at(100)
        return finished(assignment)

    perform(connection, work)


def broken(connection: Connection) -> None:
    """A worker process that ends as soon as it is warm."""
    os._exit(7)


def finished(assignment: Assignment, **more: object) -> Finished:
    """An artifact that tells what the process was like."""
    facts = {
        "nice": os.getpriority(os.PRIO_PROCESS, 0),
        "session": os.getsid(0),
        "pid": os.getpid(),
        "environment": dict(os.environ),
        "begin": BEGIN,
        "end": time.time(),
        "dataset": assignment.dataset.read_text(),
        **more,
    }
    data = json.dumps(facts).encode()
    (assignment.output / "facts.json").write_bytes(data)
    file = ArtifactFile(path="facts.json", size=len(data), sha256=sha256(data).hexdigest())
    return Finished(dense=DENSE, compact=SMALL, metrics=(), files=(file,), train_time=1.0)


BEGIN = time.time()


def _report_a_lot(*_: object) -> Iterator[Progress]:
    for step in range(2, 1001):
        stage = Stage.DENSE if step <= 500 else Stage.PLASTIC
        yield replace(progress_at(step), stage=stage, warning="!" if step == 700 else "")


def _report_slowly(*_: object) -> Iterator[Progress]:
    for step in (2, 3):
        time.sleep(0.3)
        yield progress_at(step)
    time.sleep(0.3)


def _count(
    assignment: Assignment,
    should_stop: Callable[[], bool],
    checkpoints: Checkpoints,
    at_step: Callable[[int], object],
) -> Generator[Progress, None, int]:
    """Sixty steps, of which a resumed job makes the rest; returns the first one."""
    first = 0 if assignment.resume is None else int((assignment.resume / "step").read_text())

    def write(folder: Path) -> None:
        folder.mkdir()
        (folder / "step").write_text(str(step))

    for step in range(first, 60):
        if checkpoints.due():
            checkpoints.keep(step, write)
        if should_stop():
            raise Stopped
        time.sleep(0.02)
        at_step(step - first)
        yield progress_at(step)
    return first


def _die_at(steps: int) -> Callable[[int], None]:
    def at_step(made: int) -> None:
        if made == steps:
            os.kill(os.getpid(), signal.SIGKILL)

    return at_step


def _eat(*_: object) -> None:
    eaten = bytearray(os.urandom(1 << 20) * 300)
    time.sleep(600)
    del eaten


def _start_an_eater(*_: object) -> None:
    subprocess.run(
        [sys.executable, "-c", "import time; eaten = b'1' * (300 << 20); time.sleep(600)"], check=False
    )


def _raise_memory_error(*_: object) -> None:
    raise MemoryError


def _obey(_: Assignment, should_stop: Callable[[], bool]) -> None:
    while not should_stop():
        time.sleep(0.01)
    raise Stopped


def _hold_the_interpreter(*_: object) -> None:
    ctypes.PyDLL(None).sleep(600)  # unlike CDLL, PyDLL keeps the global lock: no thread of Python runs


def _refuse(*_: object) -> None:
    raise InvalidInput("dataset.uri", "y_train holds 11", reason="LABEL_OUT_OF_RANGE")


def _diverge(*_: object) -> None:
    raise TrainingDiverged(17)


def _blunder(*_: object) -> None:
    raise ValueError("a secret")


def _find_no_room_once(assignment: Assignment, _: object) -> None:
    if assignment.attempt == 1:
        raise OSError(errno.ENOSPC, "No space left on device")


def _send_garbage(connection: Connection) -> None:
    connection.send_bytes(b"\x80garbage")
    time.sleep(600)


def _send_half_a_message(connection: Connection) -> None:
    os.write(connection.fileno(), struct.pack("!i", 1000) + b"half")
    time.sleep(600)


def _hang_up(connection: Connection) -> None:
    with socket.socket(fileno=os.dup(connection.fileno())) as same:
        same.shutdown(socket.SHUT_WR)
    time.sleep(600)


def _flood(connection: Connection) -> None:
    for step in range(20_000):
        connection.send(Reported(progress=progress_at(step)))


COUNTS: dict[str, Callable[[int], object]] = {
    "count": lambda made: None,
    "count-die": _die_at(25),
    "count-slowly": lambda made: time.sleep(0.2),
    "count-stop": lambda made: time.sleep(600) if made == 30 else None,
}
SIGNALS = {"sigkill": signal.SIGKILL, "sigsegv": signal.SIGSEGV}
SCRIPTS: dict[str, Callable[..., Iterator[Progress] | None]] = {
    "a-lot": _report_a_lot,
    "slowly": _report_slowly,
    "succeed": lambda *_: None,
    "second": lambda *_: time.sleep(1.0),
    "obey": _obey,
    "sleep": lambda *_: time.sleep(600),
    "hold": _hold_the_interpreter,
    "exit": lambda *_: os._exit(3),
    "refuse": _refuse,
    "diverge": _diverge,
    "blunder": _blunder,
    "eat": _eat,
    "child-eats": _start_an_eater,
    "memory-error": _raise_memory_error,
    "no-room-once": _find_no_room_once,
}
CHANNEL: dict[str, Callable[[Connection], object]] = {
    "garbage": _send_garbage,
    "half": _send_half_a_message,
    "stranger": lambda connection: connection.send("hello"),
    "hang-up": _hang_up,
    "flood": _flood,
}


def inspect(connection: Connection) -> None:
    """An inspector process; the dataset's text is the script, then the model's."""
    while True:
        try:
            inspection: Inspection = connection.recv()
        except EOFError:
            return
        connection.send(Reading(field="dataset.uri"))
        if inspection.model is not None:
            _inspect(inspection.dataset)
            connection.send(Reading(field="model.uri"))
        connection.send(_inspect(inspection.model or inspection.dataset))


def _inspect(file: Path) -> Inspected:
    script = file.read_text()
    if script == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    if script == "hang":
        time.sleep(600)
    if script == "slow":
        time.sleep(0.3)
    return Inspected(plan=PLAN, error=None)
