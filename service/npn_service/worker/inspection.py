"""Inside the inspector: answer questions about uploads.  Importing this imports torch."""

import resource
import sys
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Final

from npn_core.errors import InvalidInput
from npn_core.prepare import warm_up
from npn_service.jobs.model import JobError

from .failures import INVALID_ARGUMENT, describe, is_out_of_memory
from .messages import Inspected, Inspection, Reading
from .planning import plan_of

# Beyond what it holds when warm, and beyond the model's file.  Counted as private writable memory (RLIMIT_DATA):
# unlike the address space, which torch reserves by the gigabyte and never touches, that is what an upload can
# make it use.  A model is mapped privately, not copied: that counts whole, but takes no memory of its own.
_MEMORY_BYTES: Final = 2 << 30
# It writes nothing but a few lines on stderr.
_FILE_BYTES: Final = 1 << 20

warm_up()  # before the process says that it is ready


def serve(connection: Connection) -> None:
    """Answer every question until the pipe closes; before the answer come notes of what is being read."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (_FILE_BYTES, _FILE_BYTES))
    held = _held_bytes()
    while True:
        try:
            inspection: Inspection = connection.recv()
        except EOFError:
            return
        _limit_memory(held + (0 if inspection.model is None else inspection.model.stat().st_size))
        connection.send(inspect(inspection, lambda field: connection.send(Reading(field=field))))


def _held_bytes() -> int:
    """Private writable memory of this process now; 0 where that cannot be told."""
    if sys.platform != "linux":
        return 0
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmData:")) << 10


def _limit_memory(base: int) -> None:
    """Allow so much beyond `base`; the hard limit stays open, as the next question may have a larger model."""
    if sys.platform == "linux":
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        resource.setrlimit(resource.RLIMIT_DATA, (base + _MEMORY_BYTES, hard))


def inspect(inspection: Inspection, reading: Callable[[str], None]) -> Inspected:
    """The plan, or the first thing that is wrong; `reading` as in `plan_of`."""
    field = ""

    def read(name: str) -> None:
        nonlocal field
        field = name
        reading(name)

    try:
        plan = plan_of(inspection, read)
    except Exception as error:
        if is_out_of_memory(error):
            return Inspected(plan=None, error=_too_large(field))
        if not isinstance(error, InvalidInput):
            traceback.print_exc()  # the server logs it
        return Inspected(plan=None, error=describe(error))
    return Inspected(plan=plan, error=None)


def _too_large(field: str) -> JobError:
    return JobError(
        code=INVALID_ARGUMENT,
        reason="INSPECTION_TOO_LARGE",
        message=f"checking it takes more than {_MEMORY_BYTES >> 30} GiB; use a smaller dataset or network",
        field=field,
    )
