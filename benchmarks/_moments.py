"""Bias and variance of gradient estimators on a network of eight gates, by enumeration.

f and its slopes are tabulated at all gate vectors.  An estimator is constant, or linear in each gate's own u, between
the cuts of u at sigmoid(a) and sigmoid(-a), so that its mean and variance are finite sums over the cells.  The hard
concrete gate is continuous: its moments are means over many draws.
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from _relaxed import hard_concrete
from sklearn.datasets import make_moons
from torch import Tensor, nn
from torch.func import vmap

from npn_core.estimators import ESTIMATORS, Estimator

WIDTHS = (4, 4)
GATES = sum(WIDTHS)
DRAWS = 20_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Moments:
    """Of an estimate's error, relative to the length of the exact gradient: |bias|, and root of summed variance.

    `evaluations` of f are those of one estimate, on average; `deviation` is at two, its square being in inverse
    proportion to them.
    """

    bias: float
    deviation: float
    evaluations: float


class SmallNetwork:
    """Two inputs, two layers of four gated units, two classes; trained for a while under random gates."""

    def __init__(self, seed: int) -> None:
        torch.manual_seed(seed)
        points, labels = make_moons(200, noise=0.15, random_state=seed)
        self.x, self.y = torch.tensor(points), torch.tensor(labels)
        self.layers = nn.ModuleList([nn.Linear(2, 4), nn.Linear(4, 4), nn.Linear(4, 2)]).double()
        adam = torch.optim.Adam(self.layers.parameters(), lr=0.02)
        for _ in range(500):
            adam.zero_grad()
            self.loss((torch.rand(GATES) < 0.8).double()).backward()
            adam.step()
        self.layers.requires_grad_(False)

    def loss(self, z: Tensor) -> Tensor:
        """f(z): the mean cross entropy under gates z (8,)."""
        first, second, last = self.layers
        hidden = torch.tanh(first(self.x)) * z[:4]
        return F.cross_entropy(last(torch.tanh(second(hidden)) * z[4:]), self.y)

    def table(self) -> tuple[Tensor, Tensor, Tensor]:
        """All gate vectors (256, 8), f there (256,), and its slopes (256, 8)."""
        z = torch.tensor(list(itertools.product((0.0, 1.0), repeat=GATES)), dtype=torch.float64)
        slopes, values = vmap(torch.func.grad_and_value(self.loss))(z)
        return z, values, slopes


def measure(seed: int, k: float) -> dict[str, Moments]:
    """Every estimator at phi ~ N(0.5, 0.7) and plasticity k."""
    network = SmallNetwork(seed)
    a = k * (
        0.5 + 0.7 * torch.randn(GATES, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    )
    z, f, slopes = network.table()
    weights = (z * torch.sigmoid(a) + (1 - z) * torch.sigmoid(-a)).prod(1)
    pi = torch.sigmoid(a)
    exact = weights @ (f[:, None] * (z - pi))  # the score function's mean
    found = {name: _cells(one, a, cuts(name, a), f) for name, one in ESTIMATORS.items() if not one.natural}
    everywhere = pi * (1 - pi) * slopes
    mean = weights @ everywhere
    found["straight-through"] = mean, weights @ everywhere**2 - mean**2, 1.0
    found["hard concrete"] = _drawn(network.loss, a)
    return {
        name: Moments(
            bias=float((mean - exact).norm() / exact.norm()),
            deviation=float((variance.sum() * evaluations / 2).clamp_min(0).sqrt() / exact.norm()),
            evaluations=evaluations,
        )
        for name, (mean, variance, evaluations) in found.items()
    }


def cuts(name: str, a: Tensor) -> list[list[list[float]]]:
    """Where an estimator changes its mind: for every row of u, and number in it, 0, the cuts, 1."""
    pi = torch.sigmoid(a).tolist()
    both = [sorted({0.0, 1.0, p, 1 - p}) for p in pi]
    match name:
        case "rloo":
            return [[[0.0, p, 1.0] for p in pi]] * 2
        case "ugc":  # its second row draws one gate, by its first number
            return [both, [[gate / GATES for gate in range(GATES + 1)]] + [[0.0, 1.0]] * (GATES - 1)]
        case _:
            return [both]


def _cells(
    estimator: Estimator, a: Tensor, rows: list[list[list[float]]], f: Tensor
) -> tuple[Tensor, Tensor, float]:
    """Mean and variance (8,): within a cell a linear estimate varies by a twelfth of its squared rise; evaluations."""
    edges = [torch.tensor(list(itertools.pairwise(cut)), dtype=torch.float64) for row in rows for cut in row]
    index = torch.cartesian_prod(*(torch.arange(len(edge)) for edge in edges))
    cell = torch.stack([edge[index[:, at]] for at, edge in enumerate(edges)], dim=1)
    low, high = cell.view(len(index), len(rows), GATES, 2).unbind(-1)
    probability = (high - low).prod(2).prod(1)[:, None]
    powers = 2 ** torch.arange(GATES - 1, -1, -1)
    gradient: Any = estimator.gradient  # of losses that are tensors under vmap

    def estimate(u: Tensor) -> tuple[Tensor, Tensor]:
        samples = torch.stack(estimator.samples(u, a))
        at = (samples.long() * powers).sum(1)
        return gradient(u, a, f[at].unbind()), 1 + (at != at[0]).sum()

    (lower, evaluations), (upper, _) = (vmap(estimate)(low + part * (high - low)) for part in (0.25, 0.75))
    middle, rise = (lower + upper) / 2, 2 * (upper - lower)
    mean = (probability * middle).sum(0)
    variance = (probability * (middle**2 + rise**2 / 12)).sum(0) - mean**2
    return mean, variance, float(probability[:, 0] @ evaluations.double())


def _drawn(loss: Callable[[Tensor], Tensor], a: Tensor) -> tuple[Tensor, Tensor, float]:
    """Mean and variance (8,) of the pathwise gradient under hard concrete gates, over DRAWS draws."""
    u = torch.rand((DRAWS, GATES), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    grad = torch.func.grad(lambda a, u: loss(hard_concrete(u, a)))
    parts = [vmap(grad, in_dims=(None, 0))(a, part) for part in u.split(4_000)]
    gradients = torch.cat(parts)
    return gradients.mean(0), gradients.var(0), 1.0
