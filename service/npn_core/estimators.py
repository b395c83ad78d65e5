"""Gradients of E_z[f(z)] in the logits a, z ~ Bernoulli(sigmoid(a)).

An estimator names the gate vectors at which it wants f, from uniform numbers, and makes the estimate of what f
is there.  They need nothing else of f, and are unbiased.  Straight-through is apart: it takes the slopes df/dz for
the differences that gates make, and its noise does not grow with the number of gates.

AR, ARM: Yin & Zhou, "ARM: Augment-REINFORCE-merge gradient", arXiv:1807.11143; Li & Ji, arXiv:1908.08118,
eq. 9 (AR here has the factor that makes it unbiased: the published code computes half of it).
DisARM: Dong, Mnih & Tucker, "DisARM", arXiv:2006.10680, eq. 7; found independently as U2G by Yin et al.,
"Probabilistic best subset selection via gradient-based optimization", arXiv:2006.06448.
RLOO: Kool, van Hoof & Welling, "Buy 4 REINFORCE samples, get a baseline for free!", ICLR 2019 workshop.
UGC: Kunes et al., "Gradient estimation for binary latent variables via gradient variance clipping",
arXiv:2208.06124.
Straight-through: Bengio, Leonard & Courville, arXiv:1308.3432.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor

from .gates import sample


def one(u: Tensor, a: Tensor) -> tuple[Tensor, ...]:
    """The gate vector b = 1[u < sigmoid(a)]."""
    return (sample(u[0], a)[0],)


def antithetic(u: Tensor, a: Tensor) -> tuple[Tensor, ...]:
    """b and b~ = 1[u >= sigmoid(-a)] of the same u."""
    return sample(u[0], a)


def independent(u: Tensor, a: Tensor) -> tuple[Tensor, ...]:
    """Two gate vectors, of a u each."""
    return sample(u[0], a)[0], sample(u[1], a)[0]


def antithetic_and_flipped(u: Tensor, a: Tensor) -> tuple[Tensor, ...]:
    """b, b~, and b with one gate drawn from all changed, if that gate is nearly sure."""
    b, b_antithetic = antithetic(u, a)
    return b, b_antithetic, b ^ (drawn(u, a) & nearly_sure(a))


def drawn(u: Tensor, a: Tensor) -> Tensor:
    """One gate of all (G,), each as probable: a mask."""
    return torch.arange(len(a)) == (u[1, 0] * len(a)).long()


def nearly_sure(a: Tensor) -> Tensor:
    """Where pi or 1 - pi is below 1 / 2G: for differences of f of one size flipping varies less than DisARM."""
    return torch.sigmoid(-a.abs()) < 0.5 / len(a)


def ar(u: Tensor, a: Tensor, f: Sequence[float]) -> Tensor:
    """Augment-REINFORCE: f(b) (1 - 2u)."""
    return f[0] * (1 - 2 * u[0])


def arm(u: Tensor, a: Tensor, f: Sequence[float]) -> Tensor:
    """Augment-REINFORCE-merge: (f(b~) - f(b)) (u - 1/2)."""
    return (f[1] - f[0]) * (u[0] - 0.5)


def disarm(u: Tensor, a: Tensor, f: Sequence[float]) -> Tensor:
    """DisARM: 1/2 (f(b) - f(b~)) (b - b~) sigmoid(|a|); ARM with u integrated out."""
    b, b_antithetic = antithetic(u, a)
    return 0.5 * (f[0] - f[1]) * (b.to(a.dtype) - b_antithetic.to(a.dtype)) * torch.sigmoid(a.abs())


def rloo(u: Tensor, a: Tensor, f: Sequence[float]) -> Tensor:
    """REINFORCE with the other sample's f as the baseline: 1/2 (f(b) - f(b')) (b - b')."""
    b, other = independent(u, a)
    return 0.5 * (f[0] - f[1]) * (b.to(a.dtype) - other.to(a.dtype))


def ugc(u: Tensor, a: Tensor, f: Sequence[float]) -> Tensor:
    """DisARM, but for nearly sure gates bitflip-1: G pi (1 - pi) (f at 1 - f at 0) at the one gate drawn."""
    b, _, flipped = antithetic_and_flipped(u, a)
    toward = flipped.to(a.dtype) - b.to(a.dtype)  # 0 but at the flipped gate
    bitflip = len(a) * torch.sigmoid(a) * torch.sigmoid(-a) * (f[2] - f[0]) * toward
    return torch.where(nearly_sure(a), bitflip, disarm(u, a, f))


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimator:
    """A gradient estimator.

    `samples(u, a)` gives the gate vectors, each (G,) bool, of u (rows, G) ~ U[0, 1) and logits a (G,): the weights
    train at the first.  `gradient(u, a, f)` gives d E[f] / da (G,) of f at each of them.  A `natural` one has none:
    it takes df/dz (G,) at the first for d E[f] / dpi, which is the natural gradient in a (Amari, "Natural gradient
    works efficiently in learning", 1998), since a Bernoulli variable's Fisher information is pi (1 - pi).
    The gates move after every `every` steps.
    """

    rows: int
    samples: Callable[[Tensor, Tensor], tuple[Tensor, ...]]
    gradient: Callable[[Tensor, Tensor, Sequence[float]], Tensor] | None
    every: int = 1

    @property
    def natural(self) -> bool:
        """Whether the gradient is that in pi."""
        return self.gradient is None


SLOPES_EVERY = 4  # the slopes of closed gates cost a pass of the whole network

ESTIMATORS: Mapping[str, Estimator] = MappingProxyType(
    {
        "straight-through": Estimator(rows=1, samples=one, gradient=None, every=SLOPES_EVERY),
        "disarm": Estimator(rows=1, samples=antithetic, gradient=disarm),
        "arm": Estimator(rows=1, samples=antithetic, gradient=arm),
        "ar": Estimator(rows=1, samples=one, gradient=ar),
        "rloo": Estimator(rows=2, samples=independent, gradient=rloo),
        "ugc": Estimator(rows=2, samples=antithetic_and_flipped, gradient=ugc),
    }
)
