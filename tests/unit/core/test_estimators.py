"""ARM, AR and DisARM against enumeration, without sampling."""

import pytest
import torch
from cells import mask_probabilities, masks, mean, variance
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from npn_core import config
from npn_core.estimators import ESTIMATORS
from npn_core.gates import sample

seeds = st.integers(0, 2**32)


def problem(size: int, seed: int) -> tuple[Tensor, Tensor]:
    """Random logits (G,) and a random table f of all 2^G gate vectors."""
    generator = torch.Generator().manual_seed(seed)
    a = 2 * torch.randn(size, generator=generator, dtype=torch.float64)
    return a, torch.randn(2**size, generator=generator, dtype=torch.float64)


def lookup(table: Tensor, z: Tensor) -> float:
    """f(z): the rows of `masks` count in binary."""
    return table[int("".join(str(int(gate)) for gate in z), 2)].item()


def estimate(name: str, a: Tensor, table: Tensor, u: Tensor) -> Tensor:
    """One draw of an estimator."""
    b, b_antithetic = sample(u, a)
    return ESTIMATORS[name].gradient(u, a, lookup(table, b), lookup(table, b_antithetic))


def exact(a: Tensor, table: Tensor) -> Tensor:
    """d E[f(z)] / da by enumeration."""
    a = a.clone().requires_grad_()
    expected = mask_probabilities(torch.sigmoid(a)) @ table
    return torch.autograd.grad(expected, a)[0]


def test_masks_and_lookup_agree() -> None:
    """The enumeration's row i is the mask whose table entry is i."""
    assert [lookup(torch.arange(8), z) for z in masks(3)] == list(range(8))


@pytest.mark.parametrize("name", ESTIMATORS)
@pytest.mark.parametrize("size", [3, 4])
@pytest.mark.parametrize("seed", range(3))
def test_unbiased(name: str, size: int, seed: int) -> None:
    """The mean over u is the gradient of the expectation."""
    a, table = problem(size, seed)
    found = mean(lambda u: estimate(name, a, table, u), a)
    torch.testing.assert_close(found, exact(a, table), rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", ESTIMATORS)
def test_unbiased_at_the_edges(name: str) -> None:
    """Also where two cuts fall together (a = 0) and where a gate is all but sure."""
    _, table = problem(3, 7)
    a = torch.tensor([0.0, 30.0, -30.0], dtype=torch.float64)
    found = mean(lambda u: estimate(name, a, table, u), a)
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


def test_ar_needs_one_evaluation() -> None:
    """AR does not look at the antithetic loss, the others do."""
    u, a = torch.tensor([0.2]), torch.tensor([0.1])
    for name, estimator in ESTIMATORS.items():
        same = torch.equal(estimator.gradient(u, a, 1.0, 2.0), estimator.gradient(u, a, 1.0, 3.0))
        assert same is not estimator.antithetic, name


def test_a_job_can_select_each() -> None:
    """What the configuration accepts is what there is, the default first."""
    assert tuple(ESTIMATORS) == config.ESTIMATORS
    assert config.Training().estimator == "disarm"
