"""What an exception of the method, or of fetching its inputs, means for the job: the error that its owner reads."""

import errno

from npn_core.errors import AccuracyNotMet, InvalidInput, TrainingDiverged
from npn_service.errors import InvalidRequest, LimitExceeded
from npn_service.jobs.model import JobError
from npn_service.storage.space import DISK_FULL, is_full

# Numbers of google.rpc.Code.
INVALID_ARGUMENT = 3
DEADLINE_EXCEEDED = 4
RESOURCE_EXHAUSTED = 8
FAILED_PRECONDITION = 9
INTERNAL = 13
UNAVAILABLE = 14

OUT_OF_MEMORY = "OUT_OF_MEMORY"


def describe(error: Exception) -> JobError:
    """The error without paths or stack, which belong into the log."""
    match error:
        case InvalidInput():
            return JobError(
                code=INVALID_ARGUMENT, reason=error.reason, message=error.message, field=error.field
            )
        case InvalidRequest():
            field = error.violations[0].field.removeprefix("job.")
            return JobError(code=INVALID_ARGUMENT, reason=error.reason, message=error.message, field=field)
        case LimitExceeded():
            return JobError(
                code=RESOURCE_EXHAUSTED,
                reason="DATASET_TOO_LARGE",
                message=error.message,
                field="dataset.uri",
            )
        case TrainingDiverged():
            return JobError(code=FAILED_PRECONDITION, reason="TRAINING_DIVERGED", message=str(error))
        case AccuracyNotMet():
            return JobError(code=FAILED_PRECONDITION, reason="ACCURACY_NOT_MET", message=str(error))
        case _ if is_out_of_memory(error):
            return JobError(
                code=RESOURCE_EXHAUSTED,
                reason=OUT_OF_MEMORY,
                message="the job needs more memory than there is; use a smaller batch_size, model or dataset, "
                "or a server with more memory",
            )
        case OSError() if is_full(error):  # the machine's fault: the attempt ends, the job does not
            return JobError(code=UNAVAILABLE, reason=DISK_FULL, message="the server's disk is full")
        case _:
            return JobError(
                code=INTERNAL,
                reason="DEFECT",
                message=f"the service failed with {type(error).__name__}; its log has the details",
            )


def is_out_of_memory(error: Exception) -> bool:
    """Whether memory ran out; torch says so with a RuntimeError, in these words, and a mapping with an OSError."""
    said = str(error)
    return (
        isinstance(error, MemoryError)
        or (isinstance(error, RuntimeError) and ("allocate memory" in said or "out of memory" in said))
        or (isinstance(error, OSError) and error.errno == errno.ENOMEM)
    )
