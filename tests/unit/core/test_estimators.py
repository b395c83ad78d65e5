"""Every estimator against enumeration, without sampling."""

import pytest
import torch
from cells import mask_probabilities, masks, mean, variance
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from npn_core import config
from npn_core.estimators import ESTIMATORS

seeds = st.integers(0, 2**32)
EVALUATING = [name for name, estimator in ESTIMATORS.items() if not estimator.natural]


def problem(size: int, seed: int) -> tuple[Tensor, Tensor]:
    """Random logits (G,) and a random table f of all 2^G gate vectors."""
    generator = torch.Generator().manual_seed(seed)
    a = 2 * torch.randn(size, generator=generator, dtype=torch.float64)
    return a, torch.randn(2**size, generator=generator, dtype=torch.float64)


def lookup(table: Tensor, z: Tensor) -> float:
    """f(z): the rows of `masks` count in binary."""
    return table[int("".join(str(int(gate)) for gate in z), 2)].item()


def estimate(name: str, a: Tensor, table: Tensor, u: Tensor) -> Tensor:
    """One draw of an estimator, u (rows, G)."""
    estimator = ESTIMATORS[name]
    assert estimator.gradient is not None
    return estimator.gradient(u, a, [lookup(table, z) for z in estimator.samples(u, a)])


def exact(a: Tensor, table: Tensor) -> Tensor:
    """d E[f(z)] / da by enumeration."""
    a = a.clone().requires_grad_()
    expected = mask_probabilities(torch.sigmoid(a)) @ table
    return torch.autograd.grad(expected, a)[0]


def test_masks_and_lookup_agree() -> None:
    """The enumeration's row i is the mask whose table entry is i."""
    assert [lookup(torch.arange(8), z) for z in masks(3)] == list(range(8))


@pytest.mark.parametrize("name", EVALUATING)
@pytest.mark.parametrize("size", [3, 4])
@pytest.mark.parametrize("seed", range(3))
def test_unbiased(name: str, size: int, seed: int) -> None:
    """The mean over u is the gradient of the expectation."""
    a, table = problem(size, seed)
    found = mean(lambda u: estimate(name, a, table, u), a, name)
    torch.testing.assert_close(found, exact(a, table), rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", EVALUATING)
def test_unbiased_at_the_edges(name: str) -> None:
    """Also where two cuts fall together (a = 0) and where a gate is all but sure."""
    _, table = problem(3, 7)
    a = torch.tensor([0.0, 30.0, -30.0], dtype=torch.float64)
    found = mean(lambda u: estimate(name, a, table, u), a, name)
    torch.testing.assert_close(found, exact(a, table), rtol=0, atol=1e-10)


@given(seed=seeds)
def test_disarm_never_varies_more_than_arm(seed: int) -> None:
    """Gate by gate, for random logits and functions: DisARM integrates out what ARM leaves to chance."""
    a, table = problem(2, seed)
    disarm = variance(lambda u: estimate("disarm", a, table, u), a)
    arm = variance(lambda u: estimate("arm", a, table, u), a)
    assert bool((disarm <= arm + 1e-12).all())


def test_disarm_varies_less_than_arm() -> None:
    """With several gates the difference is strict."""
    a, table = problem(4, 3)
    disarm = variance(lambda u: estimate("disarm", a, table, u), a)
    arm = variance(lambda u: estimate("arm", a, table, u), a)
    assert bool((disarm < arm).all())


def test_variance_of_a_known_estimate() -> None:
    """The cells' variance of AR with one gate and f = 1 is that of 1 - 2u: a third."""
    a = torch.tensor([0.7], dtype=torch.float64)
    ones = torch.ones(2, dtype=torch.float64)
    assert variance(lambda u: estimate("ar", a, ones, u), a).item() == pytest.approx(1 / 3)


@given(seed=seeds)
def test_one_gate_alone(seed: int) -> None:
    """With one gate DisARM's variance is at most that of two independent samples, which may agree by chance."""
    a, table = problem(1, seed)
    disarm = variance(lambda u: estimate("disarm", a, table, u), a)
    rloo = variance(lambda u: estimate("rloo", a, table, u), a, "rloo")
    assert disarm.item() <= rloo.item() + 1e-12


def test_clipping_bounds_the_variance_of_nearly_sure_gates() -> None:
    """Where f is a sum over gates of one size, DisARM's variance falls as fast as pi, UGC's as its square."""
    z = masks(4).double()
    for sure, factor in ((6.0, 0.2), (12.0, 1e-3)):
        a = torch.tensor([0.5, -0.5, sure, -sure], dtype=torch.float64)
        disarm = variance(lambda u, a=a: estimate("disarm", a, z.sum(1), u), a)
        ugc = variance(lambda u, a=a: estimate("ugc", a, z.sum(1), u), a, "ugc")
        torch.testing.assert_close(ugc[:2], disarm[:2])
        assert bool((ugc[2:] < factor * disarm[2:]).all())


def test_a_job_can_select_each() -> None:
    """What the configuration accepts is what there is, the default first."""
    assert tuple(ESTIMATORS) == config.ESTIMATORS
    assert config.Training().estimator == "straight-through"
