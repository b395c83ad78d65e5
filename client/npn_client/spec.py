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
    """How the network is trained.  `lr` and `gate_lr` are Adam's rates for weights and gates.

    `distillation` is the share of the dense network's soft answers in the last stage's targets (0 to 1); `mask`
    is "learned", or for comparison "random", "magnitude" or "saliency".
    """

    epochs: int | None = None
    batch_size: int | None = None
    lr: float | None = None
    gate_lr: float | None = None
    weight_decay: float | None = None
    k: KSchedule | None = None
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
class Dataset:
    """Where the data are: "s3://bucket/key", "objects/ID", or the path of a local file, which is uploaded.

    `layout` is "NHWC" for images whose channels come last; empty for N,C,H,W.
    """

    source: str | Path
    layout: str = field(default="", kw_only=True)

    @property
    def local_path(self) -> Path | None:
        """The local file to upload; None where `source` is a URI."""
        if isinstance(self.source, Path):
            return self.source
        is_uri = "://" in self.source or self.source.startswith("objects/")
        return None if is_uri else Path(self.source)
