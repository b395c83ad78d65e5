"""Exact moments of gradient estimators, without sampling.

Cut every gate's u at sigmoid(a) and sigmoid(-a).  Within a cell of the product of these cuts both gate samples are
constant, so that the estimate of each gate is linear in its own u: its mean and second moment are finite sums.
"""

import itertools
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

Estimate = Callable[[Tensor], Tensor]


def cuts(name: str, a: Tensor) -> list[list[list[float]]]:
    """Where the estimator `name` changes its mind: for every row of u, and number in it, 0, the cuts, 1."""
    open_below = torch.sigmoid(a.double()).tolist()
    both = [
        sorted({0.0, 1.0, pi, torch.sigmoid(-logit).item()}) for pi, logit in zip(open_below, a, strict=True)
    ]
    size = len(a)
    match name:
        case "rloo":
            return [[sorted({0.0, 1.0, pi}) for pi in open_below]] * 2
        case "ugc":  # its second row draws one gate, by its first number
            return [both, [[gate / size for gate in range(size + 1)]] + [[0.0, 1.0]] * (size - 1)]
        case _:
            return [both]


def cells(name: str, a: Tensor) -> Iterator[tuple[float, Tensor, Tensor]]:
    """Probability, lower and upper corner (rows, G) of every cell that is not empty, for logits `a` (G,) float64."""
    rows = cuts(name, a)
    for cell in itertools.product(*(itertools.pairwise(cut) for row in rows for cut in row)):
        low, high = torch.tensor(cell, dtype=torch.float64).view(len(rows), len(a), 2).unbind(2)
        yield (high - low).prod().item(), low, high


def mean(estimate: Estimate, a: Tensor, name: str = "arm") -> Tensor:
    """E[estimate(u)] (G,) over u ~ U(0, 1)^(rows, G); the value at a cell's middle is the mean over the cell."""
    total = torch.zeros_like(a)
    for probability, low, high in cells(name, a):
        total += probability * estimate((low + high) / 2)
    return total


def variance(estimate: Estimate, a: Tensor, name: str = "arm") -> Tensor:
    """Var[estimate(u)] (G,), gate by gate: a linear function varies by slope^2 width^2 / 12 within a cell."""
    second = torch.zeros_like(a)
    for probability, low, high in cells(name, a):
        first, middle, last = (estimate(low + part * (high - low)) for part in (0.25, 0.5, 0.75))
        torch.testing.assert_close(first + last, 2 * middle, rtol=0, atol=1e-12)  # linear
        second += probability * (middle**2 + (2 * (last - first)) ** 2 / 12)
    return second - mean(estimate, a, name) ** 2


def masks(size: int) -> Tensor:
    """All 2^size gate vectors (2^size, size) bool."""
    return torch.tensor(list(itertools.product((False, True), repeat=size)))


def mask_probabilities(pi: Tensor) -> Tensor:
    """P(z) (2^G,) of every row of `masks`, for independent gates; differentiable in `pi` (G,)."""
    z = masks(len(pi)).to(pi.dtype)
    return (z * pi + (1 - z) * (1 - pi)).prod(dim=1)
