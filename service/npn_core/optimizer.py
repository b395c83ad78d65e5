"""Adam on slices: what took part in a step moves, everything else, moments included, stays as it is.

And Adam for gates, which must not cancel the multiplier.

Source: Kingma & Ba, arXiv:1412.6980; decoupled weight decay: Loshchilov & Hutter, arXiv:1711.05101.
The arithmetic is torch's own fused kernel.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.optim.adam import adam

from .groups import Active, Dims
from .slices import Indices, put, take
from .widening import Layout

BETAS = (0.9, 0.999)
EPSILON = 1e-8
CLIP = 3.0  # of a gate's gradient, in root mean squares over all gates


@dataclass(frozen=True, kw_only=True, slots=True)
class Update:
    """One gradient: of the slice of parameter `name` at `indices`."""

    name: str
    indices: Indices
    gradient: Tensor


@dataclass(kw_only=True, slots=True)
class SlicedAdam:
    """Adam over full-width `parameters`, stepped on slices.  `steps` counts the calls of `step`."""

    parameters: dict[str, Tensor]
    weight_decay: float = 0.0
    steps: int = 0
    first: dict[str, Tensor] = field(init=False)
    second: dict[str, Tensor] = field(init=False)

    def __post_init__(self) -> None:
        self.first = {name: torch.zeros_like(p) for name, p in self.parameters.items()}
        self.second = {name: torch.zeros_like(p) for name, p in self.parameters.items()}

    def step(self, updates: list[Update], lr: float) -> None:
        """Move the slices of `updates` by one Adam step at rate `lr`."""
        self.steps += 1
        with torch.no_grad():
            slices = [
                [take(full[u.name], u.indices) for u in updates]
                for full in (self.parameters, self.first, self.second)
            ]
            adam(
                slices[0],
                # the fused kernel walks the memory: a channels-last gradient must take its weight's layout
                [u.gradient.contiguous() for u in updates],
                slices[1],
                slices[2],
                [],
                [torch.tensor(float(self.steps - 1)) for _ in updates],
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
            for full, parts in zip((self.parameters, self.first, self.second), slices, strict=True):
                for u, part in zip(updates, parts, strict=True):
                    if any(index is not None for index in u.indices):
                        put(full[u.name], u.indices, part)

    def widened(
        self, parameters: dict[str, Tensor], layout: Layout, dims: Mapping[str, Dims]
    ) -> "SlicedAdam":
        """The optimizer of the wider `parameters`: moments follow their weights, and are 0 for new ones.

        `dims` are those of the old network's parameters.
        """
        wider = SlicedAdam(parameters=parameters, weight_decay=self.weight_decay, steps=self.steps)
        for own, old in ((wider.first, self.first), (wider.second, self.second)):
            for name in own:
                own[name] = layout.blank(old[name], dims[name])
        return wider

    def sliced(self, parameters: dict[str, Tensor], active: Active, dims: Mapping[str, Dims]) -> "SlicedAdam":
        """The optimizer of the smaller `parameters`: moments follow the weights that stay.

        `dims` are those of the full network's parameters.
        """
        smaller = SlicedAdam(parameters=parameters, weight_decay=self.weight_decay, steps=self.steps)
        for own, full in ((smaller.first, self.first), (smaller.second, self.second)):
            for name in own:
                own[name] = take(full[name], active.indices(dims[name])).clone()
        return smaller


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
