"""What the loop shows of its gates' estimates."""

import pytest
import torch

from npn_core.observe import Estimates

BOTH = slice(0, 2)


def variance(estimates: torch.Tensor) -> float:
    """After these estimates (steps, 2)."""
    found = Estimates.none(2)
    for gradient in estimates:
        found.add(gradient)
    return found.variance(BOTH, len(estimates))


def test_estimates_that_agree_have_no_variance() -> None:
    """From the first step on, whatever their size; and before it there is none to tell."""
    assert Estimates.none(2).variance(BOTH, 0) == 0
    for steps in (1, 7, 500):
        same = torch.tensor([1e-3, -2.0], dtype=torch.float64).expand(steps, 2)
        assert variance(same) == pytest.approx(0, abs=1e-9)


def test_noise_is_all_variance() -> None:
    """Of mean 0: all but what a mean of some 200 steps leaves by chance. Of mean 1 and deviation 1: half."""
    noise = torch.randn((2_000, 2), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert 0.97 < variance(noise) <= 1
    assert variance(1 + noise) == pytest.approx(0.5, abs=0.1)


def test_a_group_has_its_own() -> None:
    """One gate is noise, the other is not."""
    found = Estimates.none(2)
    for step in range(1_000):
        found.add(torch.tensor([(-1.0) ** step, 1.0], dtype=torch.float64))
    assert found.variance(slice(0, 1), 1_000) > 0.99
    assert found.variance(slice(1, 2), 1_000) == pytest.approx(0, abs=1e-9)
