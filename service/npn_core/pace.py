"""Whether stage 2 will get where it is to get: looked at while there is time to do something about it."""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from .budget import Multipliers

FIRST_CHECK, CHECKS = 0.6, 20  # the share of stage 2 before the first; how many there would be in all of it
TOLERANCE = 0.05  # above a limit, at the end; before, as much more as is left of stage 2
STILL = 0.1  # of phi
STILL_WARNING = "half of stage 2 is over and no gate has moved: use more epochs or a larger gate_lr"


def is_due(progress: float, dt: float) -> bool:
    """Whether a check falls into the step of length `dt` that ended at `progress`; both are shares of stage 2."""
    return progress >= FIRST_CHECK and int(progress * CHECKS) > int((progress - dt) * CHECKS)


def expected_at_end(first: float, now: float, progress: float) -> float:
    """A cost at the end of stage 2, if it goes on changing at its mean rate so far."""
    return float(first * (now / first) ** (1 / progress))


def is_still(before: Tensor, now: Tensor) -> bool:
    """Whether no gate has changed sides and none has moved by STILL, from phi `before` (G,) to `now`."""
    return torch.equal(before > 0, now > 0) and bool((now - before).abs().max() < STILL)


def check(
    multipliers: Multipliers,
    expected: Mapping[str, Tensor],
    progress: float,
    phi: tuple[Tensor, Tensor],
) -> tuple[str, ...]:
    """Warnings of what stage 2 will not reach, whose multipliers are raised, and of gates that stand still.

    `expected` costs by kind; `phi` (G,) before stage 2 and now.
    """
    warnings = tuple(hurry(multipliers, {kind: cost.item() for kind, cost in expected.items()}, progress))
    return (*warnings, STILL_WARNING) if is_still(*phi) else warnings


def missed(
    limits: Mapping[str, int], expected: Mapping[str, Tensor], phi: tuple[Tensor, Tensor]
) -> tuple[str, ...]:
    """Warnings of what stage 2 has not reached now that it is over; `expected` and `phi` as in `check`."""
    warnings = tuple(
        f"stage 2 ended with gates that cost {expected[kind].item():,.0f} {kind}, above max_{kind} {limit:,}: the "
        "rest is cut by what units seem worth; more epochs or a larger gate_lr would leave the gates more time"
        for kind, limit in limits.items()
        if expected[kind].item() > (1 + TOLERANCE) * limit
    )
    return (*warnings, STILL_WARNING) if is_still(*phi) else warnings


def hurry(multipliers: Multipliers, expected: Mapping[str, float], progress: float) -> Iterator[str]:
    """Double the gain of every limit that would be missed; a warning for each that is doubled the first time."""
    for kind, limit in multipliers.limits.items():
        end = expected_at_end(multipliers.first[kind], expected[kind], progress)
        if end <= (1 + TOLERANCE + 1 - progress) * limit:
            continue
        if kind not in multipliers.gain:
            yield (
                f"at {progress:.0%} of stage 2 the gates are on the way to {end:,.0f} {kind}, not to max_{kind} "
                f"{limit:,}: their multiplier is raised; more epochs or a larger gate_lr would leave them more time"
            )
        multipliers.raise_gain(kind)
