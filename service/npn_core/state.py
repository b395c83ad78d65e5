"""The state of the loop: all that decides what its next step does, and what it will say at the end."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor, fx

from .budget import Hardened, Multipliers
from .config import Budget, Training
from .copies import on_device
from .cost import CostModel
from .device import CPU
from .gated import Network
from .gates import Gates
from .groups import Active, Dims, units_of
from .growth import Pulse
from .meter import Meter
from .observe import Estimates
from .optimizer import OPTIMIZERS, GateAdam, SlicedOptimizer
from .progress import Cost, Metric, Progress, Stage, Trial
from .pull import PHI_CENTER, PHI_LIMIT
from .saliency import Saliency
from .schedule import Schedule
from .widening import Wider


@dataclass(kw_only=True, slots=True)
class Generators:
    """Every random number of a job: the order of the data, the gates, dropout, the baseline masks, and new units."""

    order: torch.Generator
    gates: torch.Generator
    noise: torch.Generator
    masks: torch.Generator
    growth: torch.Generator

    @classmethod
    def of(cls, seed: int) -> "Generators":
        """Independent streams from one seed."""
        seeds = np.random.SeedSequence(seed).generate_state(5, dtype=np.uint64)
        order, gates, noise, masks, growth = (torch.Generator().manual_seed(int(s) >> 1) for s in seeds)
        return cls(order=order, gates=gates, noise=noise, masks=masks, growth=growth)


@dataclass(frozen=True, kw_only=True, slots=True)
class Hardening:
    """How the gates stood when they became a mask, and that mask, repaired.

    `expected` cost by kind, `gate_entropy` in bits by group.
    """

    hardened: Hardened
    expected: dict[str, float]
    gate_entropy: dict[str, float]


@dataclass(kw_only=True, slots=True)
class LoopState:
    """Where the loop is and all that it has learned, apart from the weights, which are its network's.

    The next step is number `batch` of `epoch`, both from 0; `stage` is the last one that was entered.
    `epoch_start` is the order's generator when the epoch began.  `k` is infinite outside of stage 2.
    `metrics` are those of the last validation, `received` what it said of a network that came trained;
    `history` has the progress at each validation.  From stage 2 on there are `dense`, the full network's state
    dict after stage 1, and `share`, that which it has in stage 3's targets; in stage 3 `hardening`.
    `candidates` (G,) bool are the units that stage 1 trained: hardening may open them, awake in stage 2 or not.
    `dropped` are the residual branches that left whole at hardening, in that order; `pulse` times an expansion's
    growth.  `seconds` were spent, and `resumed` times was the job taken up again, in attempts before this one.
    """

    optimizer: SlicedOptimizer
    gates: Gates
    gate_adam: GateAdam
    estimates: Estimates
    saliency: Saliency
    multipliers: Multipliers
    meter: Meter
    generators: Generators
    epoch_start: Tensor
    pulse: Pulse
    candidates: Tensor
    stage: Stage = Stage.PREPARE
    epoch: int = 0
    batch: int = 0
    k: float = math.inf
    metrics: tuple[Metric, ...] = ()
    received: tuple[Metric, ...] = ()
    warnings: tuple[str, ...] = ()
    history: list[Progress] = field(default_factory=list)
    dense: dict[str, Tensor] = field(default_factory=dict)
    dropped: tuple[str, ...] = ()
    share: float = 0.0
    hardening: Hardening | None = None
    seconds: float = 0.0
    resumed: int = 0

    @property
    def mask(self) -> Tensor:
        """The gates (G,) that are open in stages 1 and 3, and that hardening now would open in stage 2."""
        if self.stage is Stage.PLASTIC:
            return self.gates.harden()
        return self.hardening.hardened.mask if self.hardening else self.gates.awake

    def widen(self, wider: Wider, dims: Mapping[str, Dims]) -> None:
        """Follow the network into its wider form; `dims` are those of the old one's parameters.  New units sleep."""
        kept = ~wider.inserted
        self.follow(self.optimizer.widened(wider.network.parameters, wider.layout, dims), wider.origin)
        phi = torch.where(kept, self.gates.phi, PHI_CENTER)
        self.gates = Gates(phi=phi, awake=self.gates.awake & kept)
        self.candidates = self.gates.awake.clone()
        self.gate_adam.first = self.gate_adam.first * kept
        self.saliency = Saliency.none(len(kept))

    def drop(self, branches: tuple[str, ...], before: Network, now: Network) -> None:
        """Follow the network from what it was `before` into what it is `now` that `branches` have left."""
        self.follow(
            self.optimizer.kept(now.parameters, before.names), units_of(before.coupling, now.coupling)
        )
        self.dropped = branches

    def follow(self, optimizer: SlicedOptimizer, origin: Tensor) -> None:
        """Go on with another network's `optimizer`; each of its units was that of `origin` (G',)."""
        self.optimizer = optimizer
        self.gates = Gates(phi=self.gates.phi[origin], awake=self.gates.awake[origin])
        self.candidates = self.candidates[origin]
        self.gate_adam.first = self.gate_adam.first[origin]
        self.saliency = replace(self.saliency, total=self.saliency.total[origin])
        self.estimates = Estimates.none(len(origin))

    @classmethod
    def fresh(
        cls,
        network: Network,
        awake: Tensor,
        budget: Budget,
        training: Training,
        schedule: Schedule,
        steps: int,
    ) -> "LoopState":
        """Before the first of `steps` steps per epoch, with the units `awake` (G,) bool; `training` is settled."""
        gates = Gates.open(network.coupling.size, PHI_CENTER)
        gates.awake = awake
        generators, optimizer = Generators.of(training.seed), OPTIMIZERS[training.optimizer]
        return cls(
            optimizer=optimizer(parameters=network.parameters, weight_decay=training.weight_decay or 0.0),
            gates=gates,
            gate_adam=GateAdam(limit=PHI_LIMIT, first=torch.zeros_like(gates.phi)),
            estimates=Estimates.none(network.coupling.size),
            saliency=Saliency.none(network.coupling.size),
            multipliers=Multipliers(limits=budget.limits),
            meter=Meter(ahead={stage: count * steps for stage, count in schedule.stage_epochs.items()}),
            generators=generators,
            epoch_start=generators.order.get_state(),
            pulse=Pulse.of(schedule.dense * steps),
            candidates=awake.clone(),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Trained:
    """What the loop returns: the compact network, and which units of the `full` one it was made of (`active`).

    `full` is `dense`, the network that stage 1 trained, without the branches that left whole.  `first` is the cost of
    what was awake at the start; `training` is settled; `seconds` were spent on the job in all attempts; `trials` ended
    before this network was chosen.
    """

    compact: fx.GraphModule
    dense: Network
    full: Network
    costs: CostModel
    first: Cost
    active: Active
    hardening: Hardening
    training: Training
    state: LoopState
    seconds: float
    trials: tuple[Trial, ...] = ()

    def on_cpu(self) -> "Trained":
        """The same with its networks on the CPU; the state stays where it is."""
        dense, full = (Network(on_device(n.graph, CPU), n.coupling) for n in (self.dense, self.full))
        return replace(self, compact=on_device(self.compact, CPU), dense=dense, full=full)

    def of_dense(self, mask: Tensor) -> Tensor:
        """The units of `dense` (G,) that are those of `full` in `mask` (G',), bool."""
        if not self.state.dropped:
            return mask
        found = torch.zeros(self.dense.coupling.size, dtype=torch.bool)
        found[units_of(self.dense.coupling, self.full.coupling)] = mask
        return found

    @property
    def whole(self) -> Active:
        """The units of `dense` that stage 1 trained; all where branches have left, for such a network does not grow."""
        return self.dense.everything if self.state.dropped else self.dense.active(self.state.candidates)
