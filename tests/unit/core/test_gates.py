"""Gates: k = 0 and k = inf, sampling, hibernation, entropy, hardening."""

import math

import pytest
import torch

from npn_core.gates import Gates, entropy, logits, sample


def gates(phi: list[float], awake: list[bool] | None = None) -> Gates:
    """Gates at `phi`, all awake unless told."""
    return Gates(phi=torch.tensor(phi, dtype=torch.float64), awake=torch.tensor(awake or [True] * len(phi)))


def uniform(size: int, seed: int = 0) -> torch.Tensor:
    """u of so many gates."""
    return torch.rand(size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_probabilities_are_sigmoid_of_k_phi() -> None:
    """At a finite k, pi = 1 / (1 + exp(-k phi))."""
    pi = gates([-1.0, 0.0, 0.5]).probabilities(2.0)
    assert pi.tolist() == pytest.approx([1 / (1 + math.exp(2)), 0.5, 1 / (1 + math.exp(-1))])


def test_without_plasticity_every_gate_is_a_coin() -> None:
    """k = 0 gives pi = 1/2 whatever phi is, infinite phi included."""
    assert gates([-math.inf, -3.0, 0.0, 7.0, math.inf]).probabilities(0).tolist() == [0.5] * 5


def test_with_infinite_k_gates_are_hard() -> None:
    """k = inf gives 1[phi > 0], and phi = 0 is closed, not nan."""
    hard = gates([-3.0, -1e-9, 0.0, 1e-9, 3.0])
    assert hard.probabilities(math.inf).tolist() == [0, 0, 0, 1, 1]
    assert torch.equal(hard.harden(), hard.probabilities(math.inf).bool())


@pytest.mark.parametrize("u", [0.0, 0.5, 1 - 2**-53])
def test_hard_gates_sample_themselves(u: float) -> None:
    """At k = inf both samples are the hard gates for every u in [0, 1), its ends included."""
    hard = gates([-1.0, 0.0, 1.0])
    for z in sample(torch.full((3,), u, dtype=torch.float64), logits(hard.phi, math.inf)):
        assert z.tolist() == [False, False, True]


def test_pairs_are_antithetic() -> None:
    """At k = 0 the second sample of a pair is the complement of the first."""
    b, b_antithetic = sample(uniform(1000), logits(gates([0.3] * 1000).phi, 0))
    assert torch.equal(b, ~b_antithetic)


@pytest.mark.parametrize("k", [0, 1.0, 3.0])
def test_samples_follow_their_probabilities(k: float) -> None:
    """Both samples of a pair open each gate as often as pi says, to five standard deviations."""
    trials = 20_000
    unequal = gates([-1.0] * trials + [0.4] * trials)
    pi = unequal.probabilities(k).view(2, trials)[:, 0]
    for z in sample(uniform(2 * trials), logits(unequal.phi, k)):
        frequency = z.view(2, trials).double().mean(dim=1)
        assert bool(((frequency - pi).abs() < 5 * (pi * (1 - pi) / trials).sqrt()).all())


@pytest.mark.parametrize("k", [0, 1.0, math.inf])
def test_hibernating_units_are_never_open(k: float) -> None:
    """pi is 0 and the mask closed, however large phi is."""
    asleep = gates([5.0] * 100, [False] * 100)
    assert asleep.probabilities(k).sum() == 0
    assert not asleep.harden().any()


def test_entropy_is_in_bits() -> None:
    """A coin has one bit, a sure gate none, and pi and 1 - pi the same."""
    bits = entropy(torch.tensor([0.0, 0.5, 1.0, 0.25, 0.75]))
    assert bits.tolist() == pytest.approx([0, 1, 0, 0.811278, 0.811278], abs=1e-6)


def test_logits_keep_a_gradient() -> None:
    """da/dphi is k at a finite k, so that the cost's gradient reaches phi."""
    phi = torch.tensor([0.1, -2.0], requires_grad=True)
    logits(phi, 3.0).sum().backward()
    assert phi.grad is not None
    assert phi.grad.tolist() == [3.0, 3.0]


def test_open_gates() -> None:
    """All units awake at one phi."""
    assert Gates.open(3, 1.5).harden().tolist() == [True] * 3
