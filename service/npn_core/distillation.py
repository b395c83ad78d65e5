"""Learning from the dense network's answers (Hinton et al., "Distilling the Knowledge", arXiv:1503.02531)."""

import torch.nn.functional as F
from torch import Tensor

TEMPERATURE = 2.0


def soft_targets(teacher: Tensor, labels: Tensor, share: float) -> Tensor:
    """Target distributions (N, classes): `share` of the teacher's softened answers, the rest the labels.

    `teacher`: logits (N, classes); `labels`: (N,) class numbers.
    """
    hard = F.one_hot(labels, teacher.shape[1]).to(teacher.dtype)
    return share * F.softmax(teacher / TEMPERATURE, dim=1) + (1 - share) * hard


def distillation_loss(outputs: Tensor, targets: Tensor) -> Tensor:
    """KL divergence of the softened outputs (N, classes) from `targets`, times T^2 to keep gradients' size."""
    logs = F.log_softmax(outputs / TEMPERATURE, dim=1)
    return F.kl_div(logs, targets, reduction="batchmean") * TEMPERATURE**2
