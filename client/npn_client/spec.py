"""What a caller asks for.  None, or an empty text, leaves the choice to the server's default.

Values are checked by the server, whose limits count; its answer names the field.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, kw_only=True, slots=True)
class Budget:
    """What the compact network may cost; at least one limit.

    `max_params` counts elements of parameters, biases included; `max_macs` multiply-adds of one sample;
    `max_bytes` the tensor payload of `model.safetensors`; `max_accuracy_drop_points` percentage points of
    validation accuracy below the dense network.
    """

    max_params: int | None = None
    max_macs: int | None = None
    max_bytes: int | None = None
    max_accuracy_drop_points: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Expansion:
    """How a network grows: `awake` units of each named group are awake at the start, all of the others'.

    Groups are the layers that make the units ("conv1", "fc1"; "fc1.in" for the features that fc1 reads).
    """

    awake: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class KSchedule:
    """The plasticity k: infinite in stage 1, `start` to `end` in stage 2, hard in stage 3.

    Fractions are of all epochs; what is left is stage 3.
    """

    dense_fraction: float | None = None
    plastic_fraction: float | None = None
    start: float | None = None
    end: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Preprocessing:
    """x -> (x * scale - mean) / std per channel.  `mode` is "auto", "none" or "fixed"."""

    mode: str = ""
    scale: float | None = None
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Training:
    """How the network is trained.

    `optimizer` moves the weights: "adam", "sgd" or "auto" (SGD where a new network with BatchNorm learns classes and
    no `lr` is given, else Adam); `lr` and `weight_decay` are its own where they are None.  `gate_lr` is Adam's for
    the gates.
    `loss` is "cross_entropy", "mse" or "distill" (the network's own answers as received; no labels), `output`
    which of several outputs it looks at (a name, or an index as text), `augment` "none", "flip",
    "crop" or "crop-flip".
    `from_scratch` initialises a network of your own anew.  The units of a group that stay are a multiple of
    `round_to`.  `distillation` is the share of the dense network's soft answers in the last stage's targets
    (0 to 1); `mask` is "learned", or for comparison "random", "magnitude" or "saliency".  `units` are "coupled"
    (channels, neurons, features, heads) or single "weights", which become 0 in a network of the same shapes.
    `precision` of convolutions and products in training is "float32", "bfloat16" or "auto", the faster one.
    A residual branch of which the budget would leave less than a share of `thinnest_branch` leaves as a whole; at 0 all
    stay.
    """

    epochs: int | None = None
    batch_size: int | None = None
    lr: float | None = None
    gate_lr: float | None = None
    weight_decay: float | None = None
    k: KSchedule | None = None
    optimizer: str = ""
    estimator: str = ""
    loss: str = ""
    output: str = ""
    augment: str = ""
    preprocessing: Preprocessing | None = None
    from_scratch: bool = False
    seed: int | None = None
    threads: int | None = None
    distillation: float | None = None
    mask: str = ""
    units: str = ""
    precision: str = ""
    round_to: int | None = None
    thinnest_branch: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Resources:
    """What the training process may use; 0 leaves it to the server."""

    cpus: int = 0
    gpus: int = 0
    memory_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Architecture:
    """A network of the catalogue with parameters: `Architecture("mlp", {"hidden": [300, 100]})`."""

    name: str
    params: Mapping[str, str | int | Sequence[int]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ModelArchive:
    """A network of your own, a `torch.export` archive: "s3://bucket/key", "objects/ID", or the path of a local
    file, which is uploaded.
    """

    source: str | Path

    @property
    def local_path(self) -> Path | None:
        """The local file to upload; None where `source` is a URI."""
        return _local_path(self.source)

    @property
    def name(self) -> str:
        """What people call it: the URI, or the name of the local file."""
        return str(self.source) if self.local_path is None else self.local_path.name


@dataclass(frozen=True, slots=True)
class Dataset:
    """Where the data are: "s3://bucket/key", "objects/ID", or a local file or folder, which is uploaded.

    `layout` is "NHWC" for images whose channels come last; empty for N,C,H,W.
    """

    source: str | Path
    layout: str = field(default="", kw_only=True)

    @property
    def local_path(self) -> Path | None:
        """The local file or folder to upload; None where `source` is a URI."""
        return _local_path(self.source)


def named_model(model: object) -> Architecture | ModelArchive | None:
    """What a model given by name is: an archive if the text has a scheme, begins with objects/ or ends in .pt2,
    else a network of the catalogue.  None for what is no text.
    """
    match model:
        case Architecture() | ModelArchive():
            return model
        case Path():
            return ModelArchive(model)
        case str():
            is_archive = _is_uri(model) or model.endswith(".pt2")
            return ModelArchive(model) if is_archive else Architecture(model)
        case _:
            return None


def _is_uri(source: str) -> bool:
    return "://" in source or source.startswith("objects/")


def _local_path(source: str | Path) -> Path | None:
    return None if isinstance(source, str) and _is_uri(source) else Path(source)
