"""Optimizers on slices: what took part in a step moves, everything else, moments included, stays as it is.

And Adam for gates, which must not cancel the multiplier.

Source: Kingma & Ba, arXiv:1412.6980; decoupled weight decay: Loshchilov & Hutter, arXiv:1711.05101; Nesterov
momentum: Sutskever et al., "On the importance of initialization and momentum", ICML 2013.  The arithmetic is torch's
own fused kernels.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import ClassVar, Self

import torch
from torch import Tensor
from torch.optim.adam import adam
from torch.optim.sgd import sgd

from .config import Training
from .groups import Active, Dims
from .slices import Indices, put, take
from .widening import Layout

BETAS = (0.9, 0.999)
EPSILON = 1e-8
MOMENTUM = 0.9
CLIP = 3.0  # of a gate's gradient, in root mean squares over all gates


@dataclass(frozen=True, kw_only=True, slots=True)
class Update:
    """One gradient: of the slice of parameter `name` at `indices`.

    `part`, of that slice's shape, is 1 for the entries that take part in the step and 0 for others; None: all do.
    """

    name: str
    indices: Indices
    gradient: Tensor
    part: Tensor | None = None


@dataclass(kw_only=True, slots=True)
class SlicedOptimizer(ABC):
    """Of full-width `parameters`, stepped on slices.  `steps` counts the calls of `step`.

    `moments`: of each of `KINDS` a tensor for every parameter.
    """

    KINDS: ClassVar[tuple[str, ...]]

    parameters: dict[str, Tensor]
    weight_decay: float = 0.0
    steps: int = 0
    moments: dict[str, dict[str, Tensor]] = field(init=False)

    def __post_init__(self) -> None:
        self.moments = {
            kind: {name: torch.zeros_like(p) for name, p in self.parameters.items()} for kind in self.KINDS
        }

    def step(self, updates: list[Update], lr: float) -> None:
        """Move the slices of `updates` by one step at rate `lr`."""
        self.steps += 1
        full = (self.parameters, *self.moments.values())
        with torch.no_grad():
            slices = [[take(tensors[u.name], u.indices) for u in updates] for tensors in full]
            masked = [at for at, u in enumerate(updates) if u.part is not None]
            part = [u.part for u in updates if u.part is not None]
            before = [torch._foreach_mul([one[at] for at in masked], 1.0) for one in slices if masked]
            # the fused kernels walk the memory: a channels-last gradient must take its weight's layout
            self._move(slices[0], [u.gradient.contiguous() for u in updates], slices[1:], lr)
            for one, old in zip(slices, before, strict=bool(masked)):
                moved = [one[at] for at in masked]
                torch._foreach_lerp_(old, moved, part)
                torch._foreach_copy_(moved, old)
            for tensors, values in zip(full, slices, strict=True):
                for u, value in zip(updates, values, strict=True):
                    if any(index is not None for index in u.indices):
                        put(tensors[u.name], u.indices, value)

    @abstractmethod
    def _move(
        self, weights: list[Tensor], gradients: list[Tensor], moments: list[list[Tensor]], lr: float
    ) -> None:
        """One step of the `weights` and their `moments`, of each kind, in place."""

    def widened(self, parameters: dict[str, Tensor], layout: Layout, dims: Mapping[str, Dims]) -> Self:
        """The optimizer of the wider `parameters`: moments follow their weights, and are 0 for new ones.

        `dims` are those of the old network's parameters.
        """
        return self._with(parameters, lambda name, moment: layout.blank(moment, dims[name]))

    def sliced(self, parameters: dict[str, Tensor], active: Active, dims: Mapping[str, Dims]) -> Self:
        """The optimizer of the smaller `parameters`: moments follow the weights that stay.

        `dims` are those of the full network's parameters.
        """

        def moment(name: str, whole: Tensor) -> Tensor:
            return take(whole, active.indices(dims[name], whole.device)).clone()

        return self._with(parameters, moment)

    def kept(self, parameters: dict[str, Tensor], names: Mapping[str, str]) -> Self:
        """The optimizer of a network that has fewer `parameters`, each as it was.

        `names` leads from every name that a tensor has in the old network to its first one there.
        """
        other = type(self)(parameters=parameters, weight_decay=self.weight_decay, steps=self.steps)
        other.moments = {
            kind: {name: own[names[name]] for name in parameters} for kind, own in self.moments.items()
        }
        return other

    def _with(self, parameters: dict[str, Tensor], moment: Callable[[str, Tensor], Tensor]) -> Self:
        other = type(self)(parameters=parameters, weight_decay=self.weight_decay, steps=self.steps)
        for kind, own in other.moments.items():
            for name in own:
                own[name] = moment(name, self.moments[kind][name])
        return other


class SlicedAdam(SlicedOptimizer):
    """AdamW: weight decay decoupled from the gradient."""

    KINDS = ("first", "second")
    __slots__ = ()

    def _move(
        self, weights: list[Tensor], gradients: list[Tensor], moments: list[list[Tensor]], lr: float
    ) -> None:
        first, second = moments
        adam(
            weights,
            gradients,
            first,
            second,
            [],
            [*torch.full((len(weights),), float(self.steps - 1), device=weights[0].device).unbind()],
            foreach=False,
            fused=True,
            amsgrad=False,
            beta1=BETAS[0],
            beta2=BETAS[1],
            lr=lr,
            weight_decay=self.weight_decay,
            eps=EPSILON,
            maximize=False,
            decoupled_weight_decay=True,
        )


class SlicedSgd(SlicedOptimizer):
    """Stochastic gradients with Nesterov momentum; weight decay is part of the gradient."""

    KINDS = ("momentum",)
    __slots__ = ()

    def _move(
        self, weights: list[Tensor], gradients: list[Tensor], moments: list[list[Tensor]], lr: float
    ) -> None:
        buffers: list[Tensor | None] = [*moments[0]]
        sgd(
            weights,
            gradients,
            buffers,
            fused=True,
            weight_decay=self.weight_decay,
            momentum=MOMENTUM,
            lr=lr,
            dampening=0.0,
            nesterov=True,
            maximize=False,
        )


OPTIMIZERS: Mapping[str, type[SlicedOptimizer]] = MappingProxyType({"adam": SlicedAdam, "sgd": SlicedSgd})
LR: Mapping[str, float] = MappingProxyType({"adam": 1e-3, "sgd": 0.1})
"""Learning rate of each, where a job does not say."""
SGD_DECAY = 5e-4
ADAM_DECAY = 1e-4
"""What a step of Adam at the full rate takes of every weight of a new network, where a job does not say.

A compact network is small enough to be trained for long and large enough to know its training set by heart.
"""


def settled(training: Training, normed: bool, objective: str, *, trained: bool) -> Training:
    """With the optimizer, its learning rate and its weight decay filled in, for a network and an objective.

    `normed`: it has BatchNorm, whose weights bear large steps, and then SGD generalises better than Adam;
    `trained`: it came with weights that such steps would lose, and as it was regularised before.  A rate without an
    optimizer is Adam's.
    """
    name = training.optimizer
    if name == "auto":
        bears_sgd = normed and objective == "cross_entropy" and not trained
        name = "sgd" if bears_sgd and training.lr is None else "adam"
    lr = LR[name] if training.lr is None else training.lr
    decay = SGD_DECAY if name == "sgd" else 0.0 if trained else ADAM_DECAY / lr
    return replace(
        training,
        optimizer=name,
        lr=lr,
        weight_decay=decay if training.weight_decay is None else training.weight_decay,
    )


@dataclass(kw_only=True, slots=True)
class GateAdam:
    """Adam for phi (G,) with one second moment for all gates, and the multiplier's pull kept apart from it.

    Plain Adam divides each gate's gradient by its own size, so that a multiplier's strength cancels, and
    groups whose units cost more are pulled faster than their loss can answer.  Here every gradient is first
    divided by its group's `price`, the cost of a unit, which turns loss into loss per cost; then the loss
    part is divided by its root mean square over all gates, and the pull is added as it is, as AdamW does
    with weight decay:

        h = g / price,  v = mean h^2,  phi <- phi - lr (m / sqrt(v) + pull / price)

    with m, v running means as in Adam, h clipped to CLIP sqrt(v), and prices scaled to a mean of 1 / price of 1 in
    h, so that v does not follow them when all of them rise.
    """

    limit: float
    first: Tensor
    second: float = 0.0
    steps: int = 0

    def step(
        self, phi: Tensor, gradient: Tensor, pull: Tensor, price: Tensor, awake: Tensor, lr: float
    ) -> None:
        """Move the awake `phi` in place; afterwards |phi| <= `limit`.

        `gradient`: of the loss in phi.  `pull`: of the multipliers times log costs in phi.  All (G,) float64.
        """
        self.steps += 1
        h = gradient / price * (1 / price).mean().reciprocal()
        self.second = BETAS[1] * self.second + (1 - BETAS[1]) * float(h[awake].square().mean())
        rms = math.sqrt(self.second / (1 - BETAS[1] ** self.steps)) + 1e-30
        self.first = BETAS[0] * self.first + (1 - BETAS[0]) * h.clamp(-CLIP * rms, CLIP * rms)
        moved = (phi - lr * (self.first / rms + pull / price)).clamp(-self.limit, self.limit)
        phi.copy_(torch.where(awake, moved, phi))
