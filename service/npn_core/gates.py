"""Stochastic binary gates: phi, the plasticity k, pi = sigmoid(k * phi), sampling, entropy, hardening.

Source: Li & Ji, "Neural Plasticity Networks", arXiv:1908.08118, section III.  One vector holds the gates of
every unit of every group, so that one generator draws one vector u per step.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor


def logits(phi: Tensor, k: float) -> Tensor:
    """a = k * phi, shape of `phi`.

    k = 0 and k = inf are branches of their own: 0 * inf is nan, and at inf a gate is 1[phi > 0].
    """
    if k == 0:
        return torch.zeros_like(phi)
    if math.isinf(k):
        return torch.where(phi > 0, math.inf, -math.inf).to(phi.dtype)
    return k * phi


def sample(u: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
    """The antithetic pair b = 1[u < sigmoid(a)] and b~ = 1[u >= sigmoid(-a)], bool, shape of `u`.

    `u` is uniform on [0, 1): it can be 0 and a gate with pi = 1 is open even then.
    """
    return u < torch.sigmoid(a), u >= torch.sigmoid(-a)


def entropy(pi: Tensor) -> Tensor:
    """Entropy of Bernoulli(pi) in bits, elementwise."""
    nats: Tensor = torch.special.entr(pi) + torch.special.entr(1 - pi)
    return nats / math.log(2)


@dataclass(kw_only=True, slots=True)
class Gates:
    """The gates of a network: `phi` (G,) float64, and `awake` (G,) bool.

    A hibernating unit (not awake) is never sampled and its pi is 0; its phi does not change.
    """

    phi: Tensor
    awake: Tensor

    @classmethod
    def open(cls, size: int, phi: float) -> "Gates":
        """All units awake at the same `phi`."""
        return cls(
            phi=torch.full((size,), phi, dtype=torch.float64), awake=torch.ones(size, dtype=torch.bool)
        )

    def with_phi(self, phi: Tensor) -> "Gates":
        """The same gates at another `phi` (G,)."""
        return Gates(phi=phi, awake=self.awake)

    def probabilities(self, k: float) -> Tensor:
        """pi (G,): the probability that each gate is open; 0 where the unit hibernates."""
        return torch.sigmoid(logits(self.phi, k)) * self.awake

    def harden(self) -> Tensor:
        """The gates that are open at k = inf: (G,) bool."""
        return (self.phi > 0) & self.awake
