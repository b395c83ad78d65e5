"""What a job asks for, every default filled in.  Frozen; validated where it is made."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from .errors import InvalidInput

COST_KINDS = ("params", "macs", "bytes")


def _require(condition: bool, name: str, message: str) -> None:
    if not condition:
        raise InvalidInput(name, message)


@dataclass(frozen=True, kw_only=True, slots=True)
class CatalogueModel:
    """A network of the catalogue, by name and parameters."""

    name: str
    params: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelFile:
    """A `torch.export` archive in a local file that a caller uploaded: not to be trusted."""

    path: Path


Model = CatalogueModel | ModelFile


@dataclass(frozen=True, kw_only=True, slots=True)
class Budget:
    """Upper limits of the compact network, or of what it may lose.  At least one is set.

    `max_params` counts elements of parameters, biases included; `max_macs` multiply-adds of one sample;
    `max_bytes` the tensor payload of `model.safetensors`.  `max_accuracy_drop_points`: the smallest network is looked
    for that loses at most so many percentage points of validation accuracy against the dense one (`search.py`).
    """

    max_params: int | None = None
    max_macs: int | None = None
    max_bytes: int | None = None
    max_accuracy_drop_points: float | None = None

    def __post_init__(self) -> None:
        drop = self.max_accuracy_drop_points
        _require(
            bool(self.limits) or drop is not None,
            "budget",
            "budget sets no limit; set max_params, max_macs, max_bytes or max_accuracy_drop_points",
        )
        _require(
            drop is None or 0 <= drop <= 100,
            "budget.max_accuracy_drop_points",
            f"max_accuracy_drop_points is {drop}; it must be between 0 and 100",
        )
        for kind, limit in self.limits.items():
            _require(limit > 0, f"budget.max_{kind}", f"max_{kind} is {limit}; it must be at least 1")

    @property
    def limits(self) -> dict[str, int]:
        """The limits of the costs that are set, by kind."""
        pairs = zip(COST_KINDS, (self.max_params, self.max_macs, self.max_bytes), strict=True)
        return {kind: limit for kind, limit in pairs if limit is not None}


@dataclass(frozen=True, kw_only=True, slots=True)
class Expansion:
    """Grow the network: `awake` units of each named group are awake at the start, all of the others' are.

    The rest hibernate until the data ask for them; groups are widened where none are left.
    """

    awake: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, count in self.awake.items():
            _require(
                count >= 1, "expand.awake", f"{count} units of {name!r:.60} are awake; 1 at least must be"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class KSchedule:
    """The plasticity k over the stages: infinite in stage 1, `start` to `end` in stage 2, hard in stage 3.

    A constant k may also be 0, where stage 2 is dropout and phi has no influence, or infinite, where gates are
    1[phi > 0].
    Fractions are of all epochs; what is left is stage 3.  None leaves them to the method (`schedule.Schedule.of`).
    """

    dense_fraction: float | None = None
    plastic_fraction: float | None = None
    start: float = 2.0
    end: float = 40.0

    def __post_init__(self) -> None:
        for name in ("dense_fraction", "plastic_fraction"):
            value = getattr(self, name)
            ok = value is None or 0 <= value <= 1
            _require(ok, f"training.k.{name}", f"{name} is {value}; it must be between 0 and 1")
        _require(
            (self.dense_fraction or 0) + (self.plastic_fraction or 0) <= 1,
            "training.k",
            "dense_fraction and plastic_fraction add up to more than 1",
        )
        constant = self.start == self.end and self.start >= 0
        for name in ("start", "end"):
            value = getattr(self, name)
            ok = constant or (math.isfinite(value) and value > 0)
            said = f"k {name} is {value}; it must be a positive finite number, or start and end be the same"
            _require(ok, f"training.k.{name}", said)
        _require(self.end >= self.start, "training.k.end", "k must not fall: end is below start")


@dataclass(frozen=True, kw_only=True, slots=True)
class Preprocessing:
    """x -> (x * scale - mean) / std per channel.  `mode` is "auto", "none" or "fixed"."""

    mode: str = "auto"
    scale: float | None = None
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        at = "training.preprocessing"
        _require(
            self.mode in ("auto", "none", "fixed"),
            f"{at}.mode",
            f"mode is {self.mode!r}; it must be auto, none or fixed",
        )
        given = self.scale is not None or bool(self.mean) or bool(self.std)
        _require(self.mode == "fixed" or not given, at, "scale, mean and std go with mode fixed alone")
        if self.mode == "fixed":
            scale = math.nan if self.scale is None else self.scale
            _require(
                math.isfinite(scale) and scale != 0,
                f"{at}.scale",
                f"scale is {self.scale}; mode fixed needs a finite one other than 0",
            )
            _require(len(self.mean) == len(self.std), at, "mean and std must have as many entries")
            _require(all(map(math.isfinite, self.mean)), f"{at}.mean", "every mean must be finite")
            finite = all(math.isfinite(s) and s > 0 for s in self.std)
            _require(finite, f"{at}.std", "every std must be above 0 and finite")


OPTIMIZERS = ("auto", "adam", "sgd")
ESTIMATORS = ("straight-through", "disarm", "arm", "ar", "rloo", "ugc")
LOSSES = ("cross_entropy", "mse", "distill")
PRECISIONS = ("auto", "float32", "bfloat16")
AUGMENTS = ("none", "flip", "crop", "crop-flip")
MAX_ROUND_TO = 256
UNITS = ("coupled", "weights")
MASKS = ("learned", "random", "magnitude", "saliency")


@dataclass(frozen=True, kw_only=True, slots=True)
class Training:
    """How the network is trained.

    `optimizer` moves the weights: "auto" is SGD where a new network with BatchNorm learns classes and no `lr` is
    given, else Adam.  Where `lr` and `weight_decay` are None they are that optimizer's own (`optimizer.settled`).
    `gate_lr` is the rate of Adam for the gates.  `output` names which of several outputs the loss looks at ("" the
    first; a name, or an index as text).  `from_scratch` initialises an uploaded network anew.  The units of a group
    that stay are a multiple of `round_to`, where the group is that large.  `distillation` is the share of the dense
    network's soft answers in the targets of stage 3; at 0 it learns from the labels alone, and None leaves it to the
    method.  `mask` is for benchmarks: "random", "magnitude" and "saliency" replace what the gates learned by a mask
    of the same budget, so that anybody can see whether learning them was worth it.  `units` are what has gates:
    "coupled" channels, neurons, features and heads, which leave the network, or single "weights", which become 0.
    `precision` is what training passes compute convolutions and products in; "auto" is bfloat16 where that is faster
    (`precision.py`).  A residual branch of which less than a share of `thinnest_branch` would be left leaves as a whole
    when the gates harden; at 0 every branch stays, and None leaves it to the method.
    """

    epochs: int = 20
    batch_size: int = 128
    optimizer: str = "auto"
    lr: float | None = None
    gate_lr: float = 0.02
    weight_decay: float | None = None
    k: KSchedule = field(default_factory=KSchedule)
    estimator: str = "straight-through"
    loss: str = "cross_entropy"
    output: str = ""
    augment: str = "none"
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    from_scratch: bool = False
    round_to: int = 1
    seed: int = 0
    threads: int = 1
    distillation: float | None = None
    mask: str = "learned"
    units: str = "coupled"
    precision: str = "auto"
    thinnest_branch: float | None = None

    def __post_init__(self) -> None:
        for name, low in (("epochs", 1), ("batch_size", 1), ("threads", 1)):
            value = getattr(self, name)
            _require(value >= low, f"training.{name}", f"{name} is {value}; it must be at least {low}")
        _require(
            1 <= self.round_to <= MAX_ROUND_TO,
            "training.round_to",
            f"round_to is {self.round_to}; it must be between 1 and {MAX_ROUND_TO}",
        )
        _require(
            self.distillation is None or 0 <= self.distillation <= 1,
            "training.distillation",
            f"distillation is {self.distillation}; it must be between 0 and 1",
        )
        _require(
            self.thinnest_branch is None or 0 <= self.thinnest_branch <= 1,
            "training.thinnest_branch",
            f"thinnest_branch is {self.thinnest_branch}; it must be between 0 and 1",
        )
        for name in ("lr", "gate_lr"):
            value = getattr(self, name)
            ok = value is None or (math.isfinite(value) and value > 0)
            _require(ok, f"training.{name}", f"{name} is {value}; it must be a positive finite number")
        ok = self.weight_decay is None or (math.isfinite(self.weight_decay) and self.weight_decay >= 0)
        _require(ok, "training.weight_decay", f"weight_decay is {self.weight_decay}; it must not be negative")
        _require(
            0 <= self.seed < 2**63, "training.seed", f"seed is {self.seed}; it must lie between 0 and 2**63-1"
        )
        for name, known in (
            ("optimizer", OPTIMIZERS),
            ("estimator", ESTIMATORS),
            ("loss", LOSSES),
            ("augment", AUGMENTS),
            ("mask", MASKS),
            ("units", UNITS),
            ("precision", PRECISIONS),
        ):
            value = getattr(self, name)
            _require(
                value in known, f"training.{name}", f"unknown {name} {value!r}; known: {', '.join(known)}"
            )
