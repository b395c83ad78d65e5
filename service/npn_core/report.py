"""The artifact's JSON documents: what was done, the proof of it, and which units stayed."""

import json
import math
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import TypeVar

from .config import Budget, Training
from .progress import Cost, DatasetInfo, Metric, Trial, Unpruned
from .strict_json import DocumentError, from_json, to_json

FORMAT_VERSION = 3
_Z_95 = 1.959963984540054  # the 97.5 % point of the standard normal distribution


def wilson(correct: int, total: int) -> tuple[float, float]:
    """The 95 % Wilson score interval of a proportion (Wilson, JASA 22, 1927)."""
    if not 0 <= correct <= total or total == 0:
        raise ValueError(f"{correct} of {total} is no proportion")
    p, z2 = correct / total, _Z_95**2
    centre = (p + z2 / (2 * total)) / (1 + z2 / total)
    half = _Z_95 / (1 + z2 / total) * math.sqrt(p * (1 - p) / total + z2 / (4 * total**2))
    return max(0.0, centre - half), min(1.0, centre + half)


@dataclass(frozen=True, kw_only=True, slots=True)
class AppliedPreprocessing:
    """What the network takes: (x * scale - mean) / std, per channel (one entry for flat samples)."""

    scale: float
    mean: tuple[float, ...]
    std: tuple[float, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Hardening:
    """How the stochastic gates became a fixed mask.

    Costs are by budgeted kind ("params"), the mean gate entropy in bits by group.  `units_changed` counts the
    units that repair opened or closed.
    """

    expected_cost: Mapping[str, float]
    hard_cost_before_repair: Mapping[str, int]
    gate_entropy: Mapping[str, float]
    units_changed: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Versions:
    """What the network was trained with.

    `cpu` is the instruction set that torch's kernels use; `device` where it trained: "cpu", or the name of a GPU.
    """

    npn: str
    torch: str
    python: str
    cpu: str
    device: str = "cpu"

    @classmethod
    def current(cls, device: str = "cpu") -> "Versions":
        """Of this process."""
        import torch

        return cls(
            npn=version("npn-compression"),
            torch=torch.__version__,
            python=platform.python_version(),
            cpu=torch.backends.cpu.get_cpu_capability(),
            device=device,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Latency:
    """Median time of one forward pass of `batch` samples, in milliseconds, over `runs` interleaved runs.

    Each network in the memory format ("contiguous", "channels_last") in which it is faster.
    """

    batch: int
    dense_ms: float
    compact_ms: float
    dense_format: str
    compact_format: str
    runs: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Latencies:
    """Latency of the dense and the compact network with `threads` threads, by batch size."""

    threads: int
    entries: tuple[Latency, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class OnnxCheck:
    """model.onnx in ONNX Runtime against the compact network, on real samples, in batches of 1 and 2.

    The differences are those of `Report`; `opset` is that of the default domain.
    """

    opset: int
    largest_difference: float
    relative_difference: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """report.json: what was asked, what came out, and the proof, recounted on the compact network.

    `largest_difference` is the largest absolute difference between the outputs of the gated network, with the
    final weights written back, and of the compact one; `relative_difference` the largest relative to the
    largest entry of its output.  `metrics` are those of the network as it came ("received_...", where it was
    trained), of the dense one and of the compact one; `distillation` is the share that the dense network had in
    stage 3's targets.  `onnx` is None where there is no model.onnx; `warnings` say why.  `unpruned`
    is what was left whole.  `seeds` are by use, `timings` in seconds by stage;
    `resumed` is how many times training was taken up from a checkpoint; `trials` are the sizes that were tried, where
    the smallest was looked for that keeps the accuracy.
    """

    format_version: int = FORMAT_VERSION
    budget: Budget
    dense: Cost
    compact: Cost
    largest_difference: float
    relative_difference: float
    onnx: OnnxCheck | None
    latency: Latencies
    unpruned: tuple[Unpruned, ...]
    metrics: tuple[Metric, ...]
    hardening: Hardening
    preprocessing: AppliedPreprocessing
    dataset: DatasetInfo
    training: Training
    distillation: float
    seeds: Mapping[str, int]
    versions: Versions
    timings: Mapping[str, float]
    resumed: int = 0
    trials: tuple[Trial, ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class KeptUnits:
    """The units of one group that stayed: ascending indices into the group's `size` units."""

    name: str
    kind: str
    size: int
    kept: tuple[int, ...]

    def __post_init__(self) -> None:
        ascending = all(a < b for a, b in zip(self.kept, self.kept[1:], strict=False))
        if not ascending or (self.kept and not 0 <= self.kept[0] <= self.kept[-1] < self.size):
            raise DocumentError(f"kept units of {self.name!r} are not ascending indices below {self.size}")


@dataclass(frozen=True, kw_only=True, slots=True)
class SparseWeight:
    """A weight of `shape` of which `kept` entries stayed; the others are 0.

    In model.safetensors NAME.values are the former and NAME.indices (int32, ascending) their places in the flat
    tensor, unless that would take as many bytes as the whole.
    """

    name: str
    shape: tuple[int, ...]
    kept: int


@dataclass(frozen=True, kw_only=True, slots=True)
class InputSpec:
    """One input: its name, the shape of one sample, and the type of its elements ("float32", "int64")."""

    name: str
    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True, kw_only=True, slots=True)
class LayerWidths:
    """The weight's shape of one layer before and after; `compact` is None where nothing of it stayed.

    `type` is the module's ("Conv2d"), or "Parameter" for a parameter that no standard module holds.
    `arguments` are the sizes to build the compact layer with ({"in_features": 300, "out_features": 87}).
    """

    name: str
    type: str
    dense: tuple[int, ...]
    compact: tuple[int, ...] | None
    arguments: Mapping[str, int]


@dataclass(frozen=True, kw_only=True, slots=True)
class ArchitectureDocument:
    """architecture.json: the network that was compressed, which of its units stayed, and its new widths.

    `name` is that of the catalogue, with its resolved `params`, or "uploaded".  `outputs` are their names in
    order, as in model.onnx.  A user's own class, built with the widths of `layers`, loads model.safetensors.  `sparse`
    are the weights whose entries left one by one; then there are no `groups`.
    """

    format_version: int = FORMAT_VERSION
    name: str
    params: Mapping[str, str]
    inputs: tuple[InputSpec, ...]
    outputs: tuple[str, ...]
    classes: int
    groups: tuple[KeptUnits, ...]
    layers: tuple[LayerWidths, ...]
    sparse: tuple[SparseWeight, ...] = ()


_Document = TypeVar("_Document", Report, ArchitectureDocument)


def write_document(document: Report | ArchitectureDocument) -> str:
    """The document as indented JSON, ending in a newline."""
    return json.dumps(to_json(document), indent=2, allow_nan=False) + "\n"


def read_document(expected: type[_Document], text: str) -> _Document:
    """The document in `text`; raises DocumentError on another version, and on unknown or missing keys."""
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise DocumentError(f"not JSON: {error}") from None
    found = value.get("format_version") if isinstance(value, dict) else None
    if found != FORMAT_VERSION:
        raise DocumentError(f"format_version is {found!r}; this reader knows {FORMAT_VERSION}")
    return from_json(expected, value)
