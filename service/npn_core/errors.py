"""What can go wrong in the method.

CoreError
├── InvalidInput            the job cannot run as asked: names the field and what would be right
│   └── InfeasibleBudget    no network that the method can return meets the budget
├── AccuracyNotMet          no size that was tried stays within the accuracy that may be lost
├── TrainingDiverged        the loss became NaN or infinite
├── CheckpointRefused       a checkpoint is damaged, of another format or of another job
└── Stopped                 the caller asked the loop to stop
"""


class CoreError(Exception):
    """Root of the tree."""


class InvalidInput(CoreError):
    """The job cannot run as asked.

    `field` is the path of the job's field ("dataset.uri", "training.epochs"), `reason` a stable
    UPPER_SNAKE_CASE code, `message` a sentence that says what was wrong, where, and what would be right.
    """

    def __init__(self, field: str, message: str, *, reason: str = "INVALID_FIELD") -> None:
        super().__init__(message)
        self.field = field
        self.message = message
        self.reason = reason


class InfeasibleBudget(InvalidInput):
    """No network that the method can return meets the budget."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(field, message, reason="BUDGET_INFEASIBLE")


class AccuracyNotMet(CoreError):
    """No size that was tried stays within the accuracy that may be lost; the message says which came nearest."""


class TrainingDiverged(CoreError):
    """The loss became NaN or infinite at optimizer step `step` (counted from 1)."""

    def __init__(self, step: int) -> None:
        super().__init__(
            f"the loss became NaN or infinite at step {step}; "
            "use a smaller lr or gate_lr, or check the dataset for very large values"
        )
        self.step = step


class CheckpointRefused(CoreError):
    """A checkpoint is damaged, of another format or of another job; the message says which and where."""


class Stopped(CoreError):
    """`should_stop` returned True."""
