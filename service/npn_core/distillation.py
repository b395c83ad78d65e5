"""Learning from the dense network's answers (Hinton et al., "Distilling the Knowledge", arXiv:1503.02531)."""

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor

from .config import Training
from .data import Batch, Data
from .gated import Network
from .objective import Objective, Outputs
from .progress import Metric
from .schedule import Rates

TEMPERATURE = 2.0
OWN_TEACHER_SHARE = 0.5  # stage 1 has a fifth to a half of the epochs: its pupil may outgrow such a teacher
CACHE_BYTES = 1 << 30


def share_of(training: Training, rates: Rates, *, trained: bool, metrics: tuple[Metric, ...]) -> float:
    """How much of stage 3's targets the dense network says, 0 to 1.

    What the job says; else all where the network came trained, OWN_TEACHER_SHARE where stage 1 trained it to tell
    classes apart (`metrics` of its validation) and let its rate fall, and nothing where it did not.
    """
    if training.loss == "distill":
        return 1.0
    if training.distillation is not None:
        return training.distillation
    if trained:
        return 1.0
    tells_classes = any(metric.name == "validation_accuracy" for metric in metrics)
    return OWN_TEACHER_SHARE if rates.teaches and tells_classes else 0.0


class Teacher:
    """The dense network's answers to the training samples: kept where they are small and nothing is augmented.

    `asked`: whether they are computed at once; else those that are kept are for the caller to fill in.
    """

    def __init__(
        self, network: Network, objective: Objective, data: Data, augment: str, *, asked: bool = True
    ) -> None:
        self.network, self.output = network, objective.output
        example = self.ask(next(iter(data.training_batches(2))))
        shape = (len(data.train), *example.shape[1:])
        keep = augment == "none" and example[0].nbytes * len(data.train) <= CACHE_BYTES
        self.kept = example.new_empty(shape) if keep else None
        if self.kept is not None and asked:
            for batch in data.training_batches():
                self.kept[batch.index] = self.ask(batch)

    def ask(self, batch: Batch) -> Tensor:
        """The answer to a batch, computed."""
        return self.network.evaluate(batch.x)[self.output]

    def answer(self, batch: Batch) -> Tensor:
        """The answer to a training batch."""
        return self.ask(batch) if self.kept is None else self.kept[batch.index]


def pupil_loss(
    objective: Objective, share: float
) -> Callable[[Outputs, tuple[Tensor, Tensor | None]], Tensor]:
    """The loss against (the teacher's output, the target): `share` of the first.

    For classes the divergence of softened distributions, times T^2 to keep the size of its gradients; for
    values the squared error from the mixed target.
    """

    def classes(outputs: Outputs, target: tuple[Tensor, Tensor | None]) -> Tensor:
        teacher, labels = target
        if labels is None:
            raise ValueError("classes have labels")
        logits = objective.logits(outputs, labels)
        said = teacher.movedim(-1, 1) if teacher.shape[:-1] == labels.shape else teacher
        goal = soft_targets(said, labels, share)
        logs = F.log_softmax(logits / TEMPERATURE, dim=1)
        return F.kl_div(logs, goal, reduction="sum") * TEMPERATURE**2 / labels.numel()

    def values(outputs: Outputs, target: tuple[Tensor, Tensor | None]) -> Tensor:
        teacher, true = target
        goal = teacher if true is None else share * teacher + (1 - share) * true.view_as(teacher)
        return objective.loss(outputs, goal)

    return classes if objective.kind == "cross_entropy" else values


def soft_targets(teacher: Tensor, labels: Tensor, share: float) -> Tensor:
    """Target distributions (N, classes, ...): `share` of the teacher's softened answers, the rest the labels.

    `teacher`: logits (N, classes, ...); `labels`: (N, ...) class numbers.
    """
    hard = F.one_hot(labels, teacher.shape[1]).movedim(-1, 1).to(teacher.dtype)
    return share * F.softmax(teacher / TEMPERATURE, dim=1) + (1 - share) * hard
