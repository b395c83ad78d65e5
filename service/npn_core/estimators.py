"""Gradients of E_z[f(z)] in the logits a, z ~ Bernoulli(sigmoid(a)), from evaluations of f alone.

All are pure functions of u ~ U(0, 1), of f at b = 1[u < sigmoid(a)], and (two evaluations) of f at the
antithetic b~ = 1[u >= sigmoid(-a)].  All are unbiased.

ARM, AR: Yin & Zhou, "ARM: Augment-REINFORCE-merge gradient", arXiv:1807.11143; Li & Ji, arXiv:1908.08118,
eq. 9 (AR here has the factor that makes it unbiased: the published code computes half of it).
DisARM: Dong, Mnih & Tucker, "DisARM", arXiv:2006.10680, eq. 7.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor

from .gates import sample


def ar(u: Tensor, a: Tensor, f: float, f_antithetic: float) -> Tensor:
    """Augment-REINFORCE: f(b) (1 - 2u), one evaluation; `f_antithetic` is not looked at."""
    return f * (1 - 2 * u)


def arm(u: Tensor, a: Tensor, f: float, f_antithetic: float) -> Tensor:
    """Augment-REINFORCE-merge: (f(b~) - f(b)) (u - 1/2), two evaluations."""
    return (f_antithetic - f) * (u - 0.5)


def disarm(u: Tensor, a: Tensor, f: float, f_antithetic: float) -> Tensor:
    """DisARM: 1/2 (f(b) - f(b~)) (b - b~) sigmoid(|a|), two evaluations; ARM with u integrated out."""
    b, b_antithetic = sample(u, a)
    sign = b.to(a.dtype) - b_antithetic.to(a.dtype)
    return 0.5 * (f - f_antithetic) * sign * torch.sigmoid(a.abs())


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimator:
    """A gradient estimator: `gradient(u, a, f, f_antithetic)` gives d E[f] / da, shape of `a`."""

    gradient: Callable[[Tensor, Tensor, float, float], Tensor]
    antithetic: bool


ESTIMATORS: Mapping[str, Estimator] = MappingProxyType(
    {
        "disarm": Estimator(gradient=disarm, antithetic=True),
        "arm": Estimator(gradient=arm, antithetic=True),
        "ar": Estimator(gradient=ar, antithetic=False),
    }
)
