"""What a network is trained for: the loss of its outputs, and what is reported of them."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from .config import Training
from .errors import InvalidInput
from .graph import Shape
from .progress import DatasetInfo, Metric
from .report import wilson

Outputs = tuple[Tensor, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Objective:
    """The loss `kind` of output number `output`: "cross_entropy", "mse" or "distill".

    cross_entropy: labels int64 (N, ...); the classes are the output's last axis, or its axis 1 for images.
    mse: targets of the output's shape.  distill: as mse, divided by the variance of the dense network's output,
    which is the target.
    """

    kind: str
    output: int

    def loss(self, outputs: Outputs, target: Tensor) -> Tensor:
        """The mean loss."""
        if self.kind == "cross_entropy":
            return F.cross_entropy(self.logits(outputs, target), target)
        output = outputs[self.output]
        error = F.mse_loss(output, target.view_as(output))
        return error if self.kind == "mse" else error / _variance(target).clamp_min(1e-12)

    def logits(self, outputs: Outputs, labels: Tensor) -> Tensor:
        """The output with its classes along axis 1, where torch's losses expect them."""
        output = outputs[self.output]
        return output.movedim(-1, 1) if output.shape[:-1] == labels.shape else output

    def measure(self, parts: Iterable[tuple[Outputs, Tensor]]) -> tuple[Metric, ...]:
        """Accuracy with its interval where there are classes, and the mean loss, over all `parts`."""
        right = count = 0
        loss, weight = 0.0, 0
        for outputs, target in parts:
            loss += float(self.loss(outputs, target)) * len(target)
            weight += len(target)
            if self.kind == "cross_entropy":
                right += int((self.logits(outputs, target).argmax(dim=1) == target).sum())
                count += target.numel()
        losses = (Metric(name="loss", value=loss / weight, higher_is_better=False),)
        if not count:
            return losses
        low, high = wilson(right, count)
        return (Metric(name="accuracy", value=right / count, low=low, high=high), *losses)


def objective_of(training: Training, outputs: tuple[str, ...]) -> Objective:
    """The job's objective for a network with these output names; raises InvalidInput."""
    wanted = training.output
    if not wanted:
        return Objective(kind=training.loss, output=0)
    if wanted in outputs:
        return Objective(kind=training.loss, output=outputs.index(wanted))
    if wanted.isascii() and wanted.isdigit() and int(wanted) < len(outputs):
        return Objective(kind=training.loss, output=int(wanted))
    raise InvalidInput(
        "training.output", f"the network has no output {wanted!r:.80}; it has: {', '.join(outputs)}"
    )


def check_output(objective: Objective, shape: Shape, info: DatasetInfo) -> None:
    """Raise InvalidInput where the output's `shape` does not fit the dataset's targets."""
    sizes = tuple(dim.size for dim in shape[1:])
    if not shape or shape[0] != (1, True):
        raise InvalidInput("training.output", "the output that the loss looks at has no batch axis")
    if objective.kind == "mse" and sizes != info.target_shape:
        raise InvalidInput(
            "dataset.uri",
            f"the network's output has shape {sizes} for a sample, the targets {info.target_shape}",
            reason="DATASET_SHAPES",
        )
    if objective.kind != "cross_entropy":
        return
    behind, before = sizes[:-1] == info.target_shape, sizes[1:] == info.target_shape
    classes = sizes[-1] if behind and sizes else sizes[0] if before and sizes else 0
    if not (behind or before) or classes < info.classes:
        raise InvalidInput(
            "dataset.uri",
            f"the network's output has shape {sizes} for a sample; for {info.classes} classes and targets of shape "
            f"{info.target_shape} it must be {(*info.target_shape, info.classes)} or larger along its classes",
            reason="DATASET_LABELS",
        )


def chance_warning(metrics: Iterable[Metric], classes: int) -> str:
    """What to say where a network that came trained guesses: its accuracy's interval holds 1 / classes; else ""."""
    for metric in metrics:
        if metric.name.endswith("accuracy") and metric.low is not None and metric.low <= 1 / classes:
            return (
                f"as received the network is right on {metric.value:.1%} of the validation samples, as often as by "
                "chance; check that training.preprocessing and the class numbers are those that it was trained with"
            )
    return ""


def named(prefix: str, metrics: Iterable[Metric]) -> tuple[Metric, ...]:
    """The metrics with `prefix` before their names: "compact_test_accuracy"."""
    return tuple(
        Metric(
            name=f"{prefix}_{m.name}",
            value=m.value,
            higher_is_better=m.higher_is_better,
            low=m.low,
            high=m.high,
        )
        for m in metrics
    )


def probe(outputs: Outputs, output: int, generator: torch.Generator) -> Tensor:
    """A loss whose squared gradients are the curvature of a squared error at its minimum.

    Where a network is its own teacher the loss and its gradient are 0; the sum of the outputs with random
    weights has the gradient whose mean square is the Gauss-Newton diagonal.
    """
    chosen = outputs[output]
    weights = torch.randn(chosen.shape, generator=generator).to(chosen.device)
    scale = _variance(chosen.detach()).sqrt().clamp_min(1e-6) * math.sqrt(chosen.numel())
    return (chosen * weights).sum() / scale


def _variance(x: Tensor) -> Tensor:
    """Of all entries; 0 where there is one alone."""
    return x.var(correction=min(1, x.numel() - 1))
