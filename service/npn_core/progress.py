"""What the loop says while it runs, and what it returns at the end."""

from dataclasses import dataclass
from enum import Enum


class Stage(Enum):
    """What part of the method is running."""

    PREPARE = "prepare"
    DENSE = "dense"
    PLASTIC = "plastic"
    FINE_TUNE = "fine_tune"
    EXPORT = "export"


@dataclass(frozen=True, kw_only=True, slots=True)
class Cost:
    """What a network costs: parameters, multiply-adds per sample, bytes of tensors."""

    params: int
    macs: int
    bytes: int


@dataclass(frozen=True, kw_only=True, slots=True)
class CostProgress:
    """How one budgeted cost stands: in expectation, and for the mask that hardening now would give."""

    kind: str
    expected: float
    hard: int
    budget: int
    multiplier: float


@dataclass(frozen=True, kw_only=True, slots=True)
class GroupProgress:
    """One group now: units whose gate is open at hardening, mean gate entropy in bits.

    `variance` is that of the gates' gradient estimates, as a share of their mean square; 0 before stage 2.
    """

    name: str
    size: int
    active: int
    entropy: float
    variance: float = 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Metric:
    """A measured value with its 95 % interval, where there is one."""

    name: str
    value: float
    higher_is_better: bool = True
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Trial:
    """A size that was tried: its `cost` of a `kind` under a `limit`, validation accuracy with its 95 % interval.

    `passed`: it lost no more against the dense network than the job allows.
    """

    kind: str
    limit: int
    cost: int
    accuracy: float
    low: float
    high: float
    passed: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    """One report of the loop.  `time_left` is in seconds; `k` is infinite in stages 1 and 3.

    `trials` have ended before, where sizes are searched; step, epoch and time are those of the present one.
    """

    step: int
    steps: int
    epoch: int
    epochs: int
    stage: Stage
    k: float
    loss: float
    metrics: tuple[Metric, ...]
    costs: tuple[CostProgress, ...]
    groups: tuple[GroupProgress, ...]
    samples_per_second: float
    time_left: float
    warning: str = ""
    trials: tuple[Trial, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class GroupPlan:
    """A group of units that can be removed one by one.

    `kind` is "channel", "neuron", "feature", "head" or "embedding".
    """

    name: str
    kind: str
    size: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Unpruned:
    """An axis of the network that is left whole: where it is, and why no unit of it can go."""

    name: str
    size: int
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What a job comes to, known before it trains.

    `prunable` is the share of the dense network's parameters that belong to a group of units.
    """

    dense: Cost
    smallest: Cost
    groups: tuple[GroupPlan, ...]
    unpruned: tuple[Unpruned, ...] = ()
    prunable: float = 1.0
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class InputInfo:
    """One input of the network: `shape` of a sample as the network takes it (C,H,W or F), `dtype` as stored.

    `name` is "x" where the dataset gives none.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True, kw_only=True, slots=True)
class DatasetInfo:
    """What headers and labels tell of a dataset.

    `target` is "classes" (class numbers below `classes`), "values" (floats) or "none"; `target_shape` is that of
    one sample's target: () for one class number, (H,W) for one per pixel.  `classes` is 0 unless there are any.
    `notes` say what a user should know, for example which arrays are ignored.
    """

    train_samples: int
    validation_samples: int
    test_samples: int
    inputs: tuple[InputInfo, ...]
    target: str
    classes: int
    target_shape: tuple[int, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one sample of the first input."""
        return self.inputs[0].shape

    @property
    def dtype(self) -> str:
        """Type of the first input as stored ("uint8")."""
        return self.inputs[0].dtype
