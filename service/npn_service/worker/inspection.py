"""Inside the inspector: answer questions about uploads.  Importing this imports torch."""

import resource
import sys
import traceback
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Final

from npn_core import pipeline
from npn_core.data import inspect_dataset
from npn_core.errors import InvalidInput
from npn_service.jobs.model import JobError, JobPlan

from .failures import INVALID_ARGUMENT, describe, is_out_of_memory
from .messages import Inspected, Inspection

# Beyond what it holds when warm.  Counted as private writable memory (RLIMIT_DATA): unlike the address space,
# which torch reserves by the gigabyte and never touches, that is what an upload can make it use.
_MEMORY_BYTES: Final = 2 << 30
# It writes nothing but a few lines on stderr.
_FILE_BYTES: Final = 1 << 20


def serve(connection: Connection) -> None:
    """Answer every question until the pipe closes."""
    _limit_resources()
    while True:
        try:
            inspection: Inspection = connection.recv()
        except EOFError:
            return
        connection.send(inspect(inspection))


def _limit_resources() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (_FILE_BYTES, _FILE_BYTES))
    if sys.platform == "linux":
        status = Path("/proc/self/status").read_text()
        held = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmData:")) << 10
        resource.setrlimit(resource.RLIMIT_DATA, (held + _MEMORY_BYTES, held + _MEMORY_BYTES))


def inspect(inspection: Inspection) -> Inspected:
    """What headers and labels tell: the plan, or the first thing that is wrong."""
    spec = inspection.spec
    field = "dataset.uri"
    try:
        dataset = inspect_dataset(inspection.dataset, layout=spec.dataset.layout)
        field = "model.architecture.params"
        plan = pipeline.plan(spec.model.name, spec.model.params, dataset, spec.budget, spec.training)
    except Exception as error:
        if is_out_of_memory(error):
            return Inspected(plan=None, error=_too_large(field))
        if not isinstance(error, InvalidInput):
            traceback.print_exc()  # the server logs it
        return Inspected(plan=None, error=describe(error))
    return Inspected(plan=JobPlan(plan=plan, dataset=dataset), error=None)


def _too_large(field: str) -> JobError:
    return JobError(
        code=INVALID_ARGUMENT,
        reason="INSPECTION_TOO_LARGE",
        message=f"checking it takes more than {_MEMORY_BYTES >> 30} GiB; use a smaller dataset or network",
        field=field,
    )
