"""What an exception of the method, or of fetching its inputs, becomes for the job's owner."""

import errno

import pytest

from npn_core.errors import AccuracyNotMet, InfeasibleBudget, InvalidInput, TrainingDiverged
from npn_service.errors import InvalidRequest, LimitExceeded
from npn_service.worker.failures import describe


@pytest.mark.parametrize(
    ("error", "code", "reason", "field"),
    [
        (
            InvalidInput("dataset.uri", "no labels", reason="DATASET_LABELS"),
            3,
            "DATASET_LABELS",
            "dataset.uri",
        ),
        (InfeasibleBudget("budget.max_params", "too small"), 3, "BUDGET_INFEASIBLE", "budget.max_params"),
        (InvalidRequest("job.model.uri", "gone", reason="MODEL_CHANGED"), 3, "MODEL_CHANGED", "model.uri"),
        (LimitExceeded("larger than the cache"), 8, "DATASET_TOO_LARGE", "dataset.uri"),
        (TrainingDiverged(3), 9, "TRAINING_DIVERGED", ""),
        (AccuracyNotMet("none of 3 sizes"), 9, "ACCURACY_NOT_MET", ""),
        (MemoryError(), 8, "OUT_OF_MEMORY", ""),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), 8, "OUT_OF_MEMORY", ""),
        (OSError(errno.ENOMEM, "cannot map"), 8, "OUT_OF_MEMORY", ""),
        (RuntimeError("mat1 and mat2 shapes"), 13, "DEFECT", ""),
        (KeyError("/a/path"), 13, "DEFECT", ""),
    ],
)
def test_errors_keep_their_reason_and_no_internals(
    error: Exception, code: int, reason: str, field: str
) -> None:
    """Code, reason and field are those of the error; a defect tells its kind alone."""
    described = describe(error)
    assert (described.code, described.reason, described.field) == (code, reason, field)
    assert "/a/path" not in described.message
