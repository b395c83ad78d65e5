"""Growing: which units start asleep, which wake next, and how many.

A hibernating unit is never sampled and nothing of it changes.  What it is worth shows in the gradient of the weights
that would read it, were they 0: it says how fast the loss would fall if they could move (Evci et al., "Rigging the
Lottery", arXiv:1911.11134, grow weights by the same sign).
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from .budget import OVERSHOOT, halvings
from .config import Budget, Expansion, Training
from .copies import duplicate
from .cost import CostModel
from .errors import InvalidInput
from .gated import Network, Noise
from .groups import FIXED, Coupling, Group
from .objective import Outputs
from .progress import Cost
from .saliency import per_unit
from .step import Inputs, Sliced
from .units import Kind

GROWTH = 0.5  # the share of its awake units that a group wakes at once
GROWN_BY = 0.5  # of stage 1: what wakes later has no time to train
LONGEST_WAIT = 32  # steps between two validations that let a network grow
PULSES = 8  # of them at least, while each gains


@dataclass(frozen=True, kw_only=True, slots=True)
class Pulse:
    """When the next validation may wake units: at step `due` of stage 1, `wait` steps after the last one.

    A validation gains where its loss is below `best`; each that does not doubles the wait, which begins at `first`.
    """

    first: int
    wait: int
    due: int
    best: float = math.inf

    @classmethod
    def of(cls, steps: int) -> "Pulse":
        """Before a stage 1 of `steps`."""
        first = max(1, min(LONGEST_WAIT, int(GROWN_BY * steps) // PULSES))
        return cls(first=first, wait=first, due=first)

    def after(self, loss: float, step: int) -> "Pulse":
        """With the validation `loss` at `step`."""
        wait = self.first if loss < self.best else 2 * self.wait
        return replace(self, best=min(self.best, loss), wait=wait, due=step + wait)


def check_expansion(training: Training, expansion: Expansion | None) -> None:
    """Raises InvalidInput where there is nothing that a network could grow for."""
    if expansion is not None and training.loss == "distill":
        raise InvalidInput(
            "training.loss",
            "a network that grows has more to learn than it says by itself, and loss distill has no other target; "
            "use cross_entropy or mse, with targets in the dataset",
        )


def awake_at_first(coupling: Coupling, expansion: Expansion) -> Tensor:
    """The units (G,) bool that start awake: the first so many of each group that `expansion` names, all of others.

    Features whose channel sleeps sleep too.  Raises InvalidInput for a group that is not there or not that large.
    """
    awake = torch.ones(coupling.size, dtype=torch.bool)
    for name, count in expansion.awake.items():
        group = _named(coupling, name, count)
        awake[group.slice] = False
        if group.kind is not Kind.FEATURE:
            awake[group.offset : group.offset + count] = True
    inside = coupling.features
    awake[inside] &= awake[coupling.parent[inside]]
    for name, count in expansion.awake.items():
        group = coupling.by_name[name]
        if group.kind is Kind.FEATURE:
            awake[_spread(coupling, group, awake, count, name)] = True
    return awake


def _named(coupling: Coupling, name: str, count: int) -> Group:
    group = coupling.by_name.get(name)
    if group is None:
        known = ", ".join(one.name for one in coupling.groups)
        raise InvalidInput("expand.awake", f"the network has no group {name!r:.60}; it has {known:.400}")
    if not 1 <= count <= group.size:
        raise InvalidInput(
            "expand.awake", f"{count} units of {name} cannot be awake; it must be between 1 and {group.size}"
        )
    return group


def _spread(coupling: Coupling, group: Group, awake: Tensor, count: int, name: str) -> Tensor:
    """`count` features in awake channels, as evenly over them as it goes."""
    units = torch.arange(group.offset, group.offset + group.size)
    parents = coupling.parent[units]
    open_ = units[(parents == FIXED) | awake[parents]]
    if count > len(open_):
        raise InvalidInput(
            "expand.awake",
            f"{count} features of {name} cannot be awake; the channels that are awake hold {len(open_)}",
        )
    return open_[torch.linspace(0, len(open_) - 1, count).round().long()]


def hibernate(network: Network, asleep: Tensor) -> None:
    """Make the weights 0 that read the units `asleep` (G,) bool, so that awake they change no output at first."""
    coupling = network.coupling
    with torch.no_grad():
        for name, dim in coupling.readers:
            axis = network.dims[name][dim]
            if axis is not None and name in network.parameters:
                units = coupling.axes[axis]
                places = ((units != FIXED) & asleep[units]).nonzero().flatten()
                network.parameters[name].index_fill_(dim, places.to(network.device), 0)


def distance(first: Cost, budget: Budget, expansion: Expansion | None) -> float:
    """How often stage 2 is to halve the cost: from where the network starts, or to which it grows."""
    if expansion is not None:
        return math.log2(OVERSHOOT)
    return halvings(first, budget) if budget.limits else math.inf


def is_grown(costs: CostModel, budget: Budget, awake: Tensor) -> bool:
    """Whether the awake units (G,) cost as much as stage 2 is to choose from."""
    cost = costs.count(awake)
    return any(getattr(cost, kind) >= OVERSHOOT * limit for kind, limit in budget.limits.items())


def asked(coupling: Coupling, awake: Tensor) -> dict[str, int]:
    """How many units each group wakes at once."""
    return {group.name: math.ceil(GROWTH * int(awake[group.slice].sum())) for group in coupling.groups}


def lacking(coupling: Coupling, awake: Tensor, counts: Mapping[str, int]) -> dict[str, int]:
    """By how many units each group has to be widened, so that `counts` hibernate: at least by its own size."""
    return {
        group.name: max(counts[group.name], group.size)
        for group in coupling.groups
        if group.kind is not Kind.FEATURE and counts[group.name] > int((~awake[group.slice]).sum())
    }


def demand(
    network: Network,
    awake: Tensor,
    loss: Callable[[Outputs, Any], Tensor],
    batches: Iterable[tuple[Inputs, Any, Noise]],
) -> Tensor:
    """How much each unit (G,) is asked for: the squared gradients of the weights that read it, summed.

    What is not `awake` (G,) is there, read by zeros; nothing of the network moves.  `batches` of inputs, targets and
    dropout's numbers.
    """
    silent = Network(duplicate(network.graph), network.coupling)
    hibernate(silent, ~awake)
    runner, total = Sliced(silent, loss), torch.zeros(network.coupling.size, dtype=torch.float64)
    for x, y, noise in batches:
        found = runner.differentiate(x, y, silent.everything, noise, update_stats=False)
        total += per_unit(silent, silent.everything, found.updates, lambda _, gradient: gradient.square())
    return total


def wake(coupling: Coupling, awake: Tensor, counts: Mapping[str, int], scores: Tensor) -> Tensor:
    """The awake units (G,), and of each group so many more of those that hibernate, by falling `scores` (G,).

    Features in channels that are awake can wake alone; a channel that wakes brings all of its own.
    """
    parents = coupling.parent
    reachable = ~awake & ((parents == FIXED) | awake[parents])
    grown = awake.clone()
    for group in coupling.groups:
        units = group.offset + reachable[group.slice].nonzero().flatten()
        best = scores[units].argsort(descending=True, stable=True)[: counts[group.name]]
        grown[units[best]] = True
    inside = coupling.features
    grown[inside] |= grown[parents[inside]] & ~awake[parents[inside]]
    return grown
