"""The three stages, and k as a function of the step."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from .config import KSchedule
from .progress import Stage

K_HOLD = 0.5  # the share of stage 2 in which k stays at its start, while units are sorted out

# Shares of all epochs.  Gates are noise to the weights: stage 2 is as short as the way to the budget allows.
UNTIL_HARDENED = 0.5
DENSE_SHORTEST = 0.1
PLASTIC_PER_HALVING = 0.1
PLASTIC_LONGEST = 0.6  # of the epochs until the gates close
FAR = 6.0  # halvings from which on little of the whole network is left
LAST = 0.125  # the share of the epochs that show images as validation does, docs/results.md
PLASTIC_EPOCHS = 2  # at least, where that leaves one to stage 1: small datasets have few steps in an epoch


@dataclass(frozen=True, kw_only=True, slots=True)
class Rates:
    """Learning rates of the weights by stage, as factors of `lr`: half a cosine in stages 1 and 3, constant in stage 2.

    Stage 1 begins at `lr` and ends at `dense_last`; stage 3 ends at 0.  `until_hardened` is the share of all epochs
    that stages 1 and 2 have, `fewest` epochs at least where that is no more than half.  Stage 2 has
    `plastic_per_halving` of all epochs for each halving of the cost, and of `until_hardened` `plastic_longest` at most.
    """

    until_hardened: float = UNTIL_HARDENED
    fewest: int = 0
    plastic_per_halving: float = PLASTIC_PER_HALVING
    plastic_longest: float = PLASTIC_LONGEST
    dense_last: float
    plastic: float
    fine_tune: float

    @property
    def teaches(self) -> bool:
        """Whether the dense network is to become a teacher: then its rate falls in stage 1."""
        return self.dense_last < 1

    def hardened_after(self, epochs: int) -> float:
        """The share of so many epochs that stages 1 and 2 have."""
        return max(self.until_hardened, min(UNTIL_HARDENED, self.fewest / epochs))

    def dense(self, progress: float) -> float:
        """At `progress` in [0, 1] of stage 1."""
        return half_cosine(progress, last=self.dense_last)

    def fine_tuning(self, progress: float) -> float:
        """At `progress` in [0, 1] of stage 3."""
        return self.fine_tune * half_cosine(progress)


RATES: Mapping[str, Rates] = MappingProxyType(
    {
        "adam": Rates(dense_last=0.1, plastic=1.0, fine_tune=3.0),
        "sgd": Rates(dense_last=0.01, plastic=0.2, fine_tune=0.5),
    }
)
EARLY: Mapping[str, Rates] = MappingProxyType(
    {
        "adam": replace(RATES["adam"], until_hardened=0.2, fewest=6, plastic_longest=0.5),
        "sgd": Rates(
            until_hardened=0.15,
            fewest=5,
            plastic_per_halving=0.05,
            plastic_longest=2.0,
            dense_last=1.0,
            plastic=0.2,
            fine_tune=1.0,
        ),
    }
)
"""On a new network; with Adam where the budget is FAR, and little of what stage 1 trains is kept.  Under SGD what the
compact network comes to goes with its own way down from a large rate, and a dense network that has had no such way
is no teacher.  By measurement, docs/results.md."""


def rates_of(optimizer: str, dense_counts: bool, halvings: float) -> Rates:
    """Those of an optimizer, `halvings` away from the budget.

    `dense_counts`: the dense network came trained, grows, or is the measure of others.
    """
    early = not dense_counts and (optimizer == "sgd" or halvings >= FAR)
    return (EARLY if early else RATES)[optimizer]


@dataclass(frozen=True, kw_only=True, slots=True)
class Schedule:
    """Stage boundaries in epochs: stage 1 [0, dense), stage 2 [dense, plastic), stage 3 [plastic, epochs).

    `dense_first`: the dense network is trained to its end before anything is compared with it.
    """

    epochs: int
    dense: int
    plastic: int
    k_start: float
    k_end: float
    dense_first: bool = False

    @classmethod
    def of(
        cls,
        epochs: int,
        k: KSchedule,
        halvings: float,
        rates: Rates = RATES["adam"],
        *,
        dense_first: bool = False,
    ) -> "Schedule":
        """Fractions of `k`, or the method's, rounded to whole epochs.

        `halvings`: how often the budget halves the cost of the whole network, log2(cost / limit).  `dense_first`:
        stage 1 has all `epochs`, and what the others have comes after them.
        """
        dense, plastic = _fractions(k, halvings, rates, epochs)
        if dense_first:
            hardened = epochs + max(1, round(epochs * plastic))
            last = hardened + max(1, round(epochs * (1 - dense - plastic)))
            ends = {"epochs": last, "dense": epochs, "plastic": hardened}
            return cls(**ends, k_start=k.start, k_end=k.end, dense_first=True)
        hardened = round(epochs * (dense + plastic))
        begin = round(epochs * dense)
        if k.plastic_fraction is None and k.dense_fraction is None:
            hardened = max(hardened, min(2, epochs - 1))
            begin = max(begin, min(1, hardened - 1))
        if k.plastic_fraction is None:
            shortest = PLASTIC_EPOCHS if k.dense_fraction is None and hardened > PLASTIC_EPOCHS else 1
            begin = max(0, min(begin, hardened - shortest))
        return cls(epochs=epochs, dense=begin, plastic=hardened, k_start=k.start, k_end=k.end)

    @property
    def stage_epochs(self) -> dict[Stage, int]:
        """How many epochs each stage has."""
        return {
            Stage.DENSE: self.dense,
            Stage.PLASTIC: self.plastic - self.dense,
            Stage.FINE_TUNE: self.epochs - self.plastic,
        }

    def stage(self, epoch: int) -> Stage:
        """The stage of an epoch, counted from 0."""
        if epoch < self.dense:
            return Stage.DENSE
        return Stage.PLASTIC if epoch < self.plastic else Stage.FINE_TUNE

    def is_last(self, epoch: int) -> bool:
        """Whether an epoch is among the last of a network that is measured then: an eighth of all."""
        count = round(LAST * (self.dense if self.dense_first else self.epochs))
        if epoch < self.dense:
            return self.dense_first and epoch >= self.dense - count
        return epoch >= max(self.plastic, self.epochs - count)

    def k(self, progress: float) -> float:
        """k at `progress` in [0, 1] of stage 2: held at its start, then growing at a constant rate."""
        if self.k_start == self.k_end:
            return self.k_start
        rise = max(0.0, progress - K_HOLD) / (1 - K_HOLD)
        return self.k_start * math.pow(self.k_end / self.k_start, rise)

    def natural_rate(self, k: float) -> float:
        """The factor of a natural step in phi at `k`: 1 at first, then falling as 1 / k.

        The Fisher information of a gate in phi is k^2 pi (1 - pi), so its natural gradient is 1 / k times d/dpi
        (Amari, "Natural gradient works efficiently in learning", 1998): in a = k phi a step is as long at any k.
        """
        return 1.0 if self.k_start == self.k_end else self.k_start / k


def _fractions(k: KSchedule, halvings: float, rates: Rates, epochs: int) -> tuple[float, float]:
    """The shares of stages 1 and 2, those of `rates` together where stage 1 is not at its shortest."""
    until_hardened, plastic = rates.hardened_after(epochs), k.plastic_fraction
    if plastic is None:
        asked = rates.plastic_per_halving * max(halvings, 1.0)
        plastic = min(asked, rates.plastic_longest * until_hardened, 1 - (k.dense_fraction or 0))
    dense = k.dense_fraction
    if dense is None:
        shortest = DENSE_SHORTEST if k.plastic_fraction is None else 0.0
        dense = max(shortest, until_hardened - plastic)
    return dense, plastic


def half_cosine(progress: float, last: float = 0.0) -> float:
    """A learning rate as a factor, at `progress` in [0, 1] of its stage: from 1 to `last`."""
    return last + (1 - last) * 0.5 * (1 + math.cos(math.pi * progress))
