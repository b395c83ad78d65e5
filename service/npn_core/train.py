"""The loop: a generator of `Progress` through the three stages of Neural Plasticity Networks.

Stage 1 trains the dense network and learns what its units are worth; stage 2 trains weights and gates
together while multipliers drive the expected cost to the budget; then the gates harden to a mask that meets it
exactly, and stage 3 fine-tunes the compact network on what the dense one says.
"""

import copy
import math
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx

from .budget import Hardened, Multipliers, expected_costs, harden, uniform_probability
from .config import Budget, Training
from .cost import CostModel
from .data import Batch, Data, steps_per_epoch
from .distillation import Teacher, pupil_loss, share_of
from .errors import Stopped, TrainingDiverged
from .estimators import ESTIMATORS
from .gated import Network, Noise
from .gates import Gates
from .groups import Active
from .masks import magnitude_scores, random_scores
from .meter import Meter
from .objective import Objective, Outputs, chance_warning, named, probe
from .observe import cost_progress, group_progress
from .optimizer import GateAdam, SlicedAdam
from .progress import Metric, Progress, Stage
from .saliency import Saliency, gate_gradients, initial_phi
from .schedule import Schedule, half_cosine
from .step import BATCHES_TRACKED, Evaluation, Sliced, gate_step
from .surgery import compact, without_gates

# Learning rates as factors of `Training.lr`: stage 1 ends lower, for a better teacher; the compact network of
# stage 3 begins higher, since fewer weights take larger steps.
DENSE_LAST = 0.1
FINE_TUNE_FIRST = 3.0
PHI_CENTER, PHI_SPREAD, PHI_LIMIT = 1.5, 0.7, 3.0
REPORT_SECONDS = 0.5
REFRESH_BATCHES = 50


@dataclass(kw_only=True, slots=True)
class Generators:
    """Every random number of a job: the order of the data, the gates, dropout, and the baseline masks."""

    order: torch.Generator
    gates: torch.Generator
    noise: torch.Generator
    masks: torch.Generator

    @classmethod
    def of(cls, seed: int) -> "Generators":
        """Independent streams from one seed."""
        seeds = np.random.SeedSequence(seed).generate_state(4, dtype=np.uint64)
        order, gates, noise, masks = (torch.Generator().manual_seed(int(s) >> 1) for s in seeds)
        return cls(order=order, gates=gates, noise=noise, masks=masks)


@dataclass(frozen=True, kw_only=True, slots=True)
class Trained:
    """What the loop returns: the compact network, and which units of the full one it was made of (`active`).

    `expected` by cost kind and `gate_entropy` in bits by group are those at hardening; `dense` is the full
    network's state dict after stage 1, `received` what validation said before it, `warnings` what
    a user should know of that, and `distillation` the share
    that the dense network had in stage 3's targets.
    """

    compact: fx.GraphModule
    active: Active
    hardened: Hardened
    expected: dict[str, float]
    gate_entropy: dict[str, float]
    dense: dict[str, Tensor]
    received: tuple[Metric, ...]
    warnings: tuple[str, ...]
    distillation: float
    meter: Meter


class Trainer:
    """One job's training: the state of the loop, and `run`, which may be called once.

    `trained`: the network came with weights that are worth something.
    """

    def __init__(
        self,
        *,
        network: Network,
        costs: CostModel,
        data: Data,
        objective: Objective,
        budget: Budget,
        training: Training,
        trained: bool,
        should_stop: Callable[[], bool],
    ) -> None:
        self.network, self.costs, self.data, self.objective = network, costs, data, objective
        self.budget, self.training, self.should_stop = budget, training, should_stop
        self.trained = trained
        self.schedule = Schedule.of(training.epochs, training.k)
        self.generators = Generators.of(training.seed)
        self.estimator = ESTIMATORS[training.estimator]
        self.gates = Gates.open(network.coupling.size, PHI_CENTER)
        self.gate_adam = GateAdam(limit=PHI_LIMIT, first=torch.zeros_like(self.gates.phi))
        self.adam = SlicedAdam(parameters=network.parameters, weight_decay=training.weight_decay)
        self.saliency, self.valuing = Saliency(), False
        self.multipliers = Multipliers(limits=budget.limits)
        self.steps = steps_per_epoch(len(data.train), training.batch_size)
        self.meter = Meter(
            ahead={stage: count * self.steps for stage, count in self.schedule.stage_epochs.items()}
        )
        self.runner = Sliced(network, objective.loss)
        self.teacher: Teacher | None = None
        self.pupil = False
        self.metrics: tuple[Metric, ...] = ()
        self.k = math.inf
        self.open = torch.ones(network.coupling.size, dtype=torch.bool)

    def run(self) -> Generator[Progress, None, Trained]:
        """Yields progress at least once an epoch; raises Stopped, TrainingDiverged."""
        network = self.network
        self.begin()
        received = self.metrics
        warning = chance_warning(received, self.data.info.classes) if received else ""
        yield replace(self.progress(-1, math.nan), warning=warning)
        for epoch in range(self.schedule.dense):
            self.valuing = epoch == self.schedule.dense - 1
            yield from self.epoch(epoch, self.dense_step)
        self.valuing = False
        dense = {name: tensor.clone() for name, tensor in network.graph.state_dict().items()}
        share = self.appoint_teacher()
        self.runner = Sliced(network, self.objective.loss)
        if self.training.mask == "learned":
            yield from self.plastic()
        else:
            for epoch in range(self.schedule.dense, self.schedule.plastic):
                yield from self.epoch(epoch, self.dense_step)
        expected, gate_entropy = self.state_of_gates()
        hardened = self.harden()
        self.open, self.k = hardened.mask, math.inf
        active = network.active(hardened.mask)
        smaller = compact(network, active, self.data.info.inputs)
        yield from self.fine_tune(smaller, active, share)
        return Trained(
            compact=smaller.eval(),
            active=active,
            hardened=hardened,
            expected=expected,
            gate_entropy=gate_entropy,
            dense=dense,
            received=received,
            warnings=(warning,) if warning else (),
            distillation=share,
            meter=self.meter,
        )

    def begin(self) -> None:
        """What the network says as it came, and, where it is its own teacher, its answers."""
        if self.objective.kind == "distill":
            self.teacher = self.make_teacher()
            output, noise = self.objective.output, self.generators.noise
            self.runner = Sliced(self.network, lambda outputs, _: probe(outputs, output, noise))
        self.metrics = self.validate() if self.trained else ()

    def epoch(
        self, epoch: int, step: Callable[[Batch, float], Evaluation]
    ) -> Generator[Progress, None, None]:
        """One epoch of `step(batch, progress within the stage)`, then a validation."""
        stage = self.schedule.stage(epoch)
        self.meter.pause()
        said = time.monotonic()
        loss = 0.0
        for batch in self.batches():
            if self.should_stop():
                raise Stopped
            loss = step(batch, self.meter.done.get(stage, 0) / self.meter.ahead[stage]).loss
            self.meter.lap(stage, len(batch))
            if not math.isfinite(loss):
                raise TrainingDiverged(self.meter.step)
            if time.monotonic() - said > REPORT_SECONDS:
                said = time.monotonic()
                yield self.progress(epoch, loss)
        self.metrics = self.validate()
        yield self.progress(epoch, loss)

    def batches(self) -> Iterator[Batch]:
        """One epoch of training batches."""
        return self.data.batches(self.training.batch_size, self.generators.order, self.training.augment)

    def target(self, batch: Batch) -> Any:
        """What the loss of stages 1 and 2 compares with."""
        return self.teacher.answer(batch) if self.objective.kind == "distill" and self.teacher else batch.y

    # ---------------------------------------------------------------------------------- stage 1

    def dense_step(self, batch: Batch, progress: float) -> Evaluation:
        """An ordinary step of the whole network; where it is its own teacher it only values its units."""
        network = self.network
        evaluation = self.runner.differentiate(batch.x, self.target(batch), network.everything, self.noise())
        if self.valuing:
            self.saliency.add(gate_gradients(network, evaluation.updates))
        if self.objective.kind != "distill":
            self.adam.step(evaluation.updates, self.training.lr * half_cosine(progress, last=DENSE_LAST))
        return evaluation

    def appoint_teacher(self) -> float:
        """Keep the dense network as the teacher of stage 3; returns its share in the targets."""
        share = 0.0
        if self.schedule.dense > 0 or self.trained:
            share = share_of(self.training, trained=self.trained, metrics=self.metrics)
        if share > 0 and self.teacher is None:
            self.teacher = self.make_teacher()
        return share

    def make_teacher(self) -> Teacher:
        """A copy of the dense network as it is, which later steps do not change."""
        frozen = Network(copy.deepcopy(self.network.graph), without_gates(self.network.graph))
        return Teacher(frozen, self.objective, self.data, self.training.augment)

    # ---------------------------------------------------------------------------------- stage 2

    def plastic(self) -> Generator[Progress, None, None]:
        """Units die and wake under the multipliers' pull."""
        self.gates.phi = self.initial_phi()
        for epoch in range(self.schedule.dense, self.schedule.plastic):
            yield from self.epoch(epoch, self.plastic_step)

    def initial_phi(self) -> Tensor:
        """phi (G,) from what stage 1 has learned; all the same where there was none."""
        if not self.saliency.batches:
            return self.gates.phi
        price = self.prices(uniform_probability(self.costs, self.budget))
        return initial_phi(self.saliency.total, price, center=PHI_CENTER, spread=PHI_SPREAD, limit=PHI_LIMIT)

    def plastic_step(self, batch: Batch, progress: float) -> Evaluation:
        """Weights move on the units that the sample opened; phi by the estimate and the multipliers' pull."""
        gates, self.k = self.gates, self.schedule.k(progress)
        u = torch.rand(len(gates.phi), generator=self.generators.gates, dtype=torch.float64)
        pair = (batch.x, self.target(batch))
        result = gate_step(self.runner, gates, self.k, self.estimator, pair, u, self.noise())
        self.adam.step(result.evaluation.updates, self.training.lr)
        pull = self.pull(progress)
        price = self.prices(gates.probabilities(self.k))
        self.gate_adam.step(gates.phi, result.phi_gradient, pull, price, gates.awake, self.training.gate_lr)
        return result.evaluation

    def pull(self, progress: float) -> Tensor:
        """d/dphi (G,) of the sum over limits of multiplier times log E[cost]; the multipliers move first."""
        phi = self.gates.phi.clone().requires_grad_()
        costs = expected_costs(self.costs, self.gates.with_phi(phi).probabilities(self.k), self.budget)
        dt = 1 / self.meter.ahead[Stage.PLASTIC]
        self.multipliers.update({kind: cost.item() for kind, cost in costs.items()}, progress, dt)
        total = torch.stack([self.multipliers.value[kind] * cost.log() for kind, cost in costs.items()]).sum()
        return torch.autograd.grad(total, phi)[0]

    def prices(self, pi: Tensor) -> Tensor:
        """What a unit of each group costs on average at gate probabilities `pi`: (G,), log cost per unit."""
        pi = pi.clone().clamp_min(1e-6).requires_grad_()
        costs = expected_costs(self.costs, pi, self.budget)
        gradient = torch.autograd.grad(torch.stack(list(costs.values())).log().sum(), pi)[0]
        weights = pi.detach()
        prices = torch.empty_like(weights)
        for group in self.network.coupling.groups:
            own = weights[group.slice]
            prices[group.slice] = (gradient[group.slice] * own).sum() / own.sum()
        return prices

    def harden(self) -> Hardened:
        """The mask that meets the budget: the learned one, or a baseline's."""
        match self.training.mask:
            case "random":
                scores = random_scores(self.network, self.generators.masks)
            case "magnitude":
                scores = magnitude_scores(self.network)
            case "saliency":
                scores = self.initial_phi()
            case _:
                return self.repair(self.gates.harden(), self.gates.phi)
        return self.repair(torch.ones_like(self.open), scores)

    def repair(self, mask: Tensor, scores: Tensor) -> Hardened:
        """The mask (G,) that meets the budget, from one that may not."""
        return harden(self.costs, self.budget, mask, scores, self.training.round_to)

    # ---------------------------------------------------------------------------------- stage 3

    def fine_tune(
        self, smaller: fx.GraphModule, active: Active, share: float
    ) -> Generator[Progress, None, None]:
        """The compact network trains on, with the moments of the weights that stayed."""
        full = self.network
        self.network = network = Network(smaller, without_gates(smaller))
        self.adam = self.adam.sliced(network.parameters, active, full.dims)
        self.pupil = self.teacher is not None and share > 0
        self.runner = Sliced(
            network, pupil_loss(self.objective, share) if self.pupil else self.objective.loss
        )
        self.refresh_statistics()
        for epoch in range(self.schedule.plastic, self.schedule.epochs):
            yield from self.epoch(epoch, self.fine_tune_step)

    def refresh_statistics(self) -> None:
        """Re-estimate BatchNorm's running statistics, which were gathered under sampled gates."""
        if any(name.endswith(BATCHES_TRACKED) for name in self.network.buffers):
            for batch in islice(self.batches(), REFRESH_BATCHES):
                self.runner.observe(batch.x, self.network.everything, self.noise())

    def fine_tune_step(self, batch: Batch, progress: float) -> Evaluation:
        """An ordinary step of the compact network."""
        target = (self.teacher.answer(batch), batch.y) if self.pupil and self.teacher else batch.y
        evaluation = self.runner.differentiate(batch.x, target, self.network.everything, self.noise())
        rate = self.training.lr * FINE_TUNE_FIRST * half_cosine(progress)
        self.adam.step(evaluation.updates, rate)
        return evaluation

    # ---------------------------------------------------------------------------------- telling

    def noise(self) -> Noise:
        """Dropout's random numbers for one step."""
        return Noise(generator=self.generators.noise)

    def validate(self) -> tuple[Metric, ...]:
        """The metrics on the validation split of what hardening now would give."""
        mask = self.gates.harden() if math.isfinite(self.k) else None
        active = self.network.everything if mask is None else self.network.active(mask)
        return named("validation", self.objective.measure(self.answers(self.network, active)))

    def answers(self, network: Network, active: Active) -> Iterator[tuple[Outputs, Any]]:
        """The network's outputs and the targets of the validation split."""
        for batch in self.data.validation_batches():
            outputs = network.evaluate(batch.x, active)
            own = self.teacher.ask(batch) if self.objective.kind == "distill" and self.teacher else batch.y
            yield outputs, own

    def state_of_gates(self) -> tuple[dict[str, float], dict[str, float]]:
        """E[cost] by kind and the mean gate entropy in bits by group, as they are."""
        groups = group_progress(self.costs.coupling, self.gates, self.k, self.open)
        costs = expected_costs(self.costs, self.gates.probabilities(self.k), self.budget)
        return {kind: cost.item() for kind, cost in costs.items()}, {g.name: g.entropy for g in groups}

    def progress(self, epoch: int, loss: float) -> Progress:
        """The state of the loop in epoch `epoch`, counted from 0."""
        stage = self.schedule.stage(epoch) if epoch >= 0 else Stage.PREPARE
        stochastic = math.isfinite(self.k)
        mask = self.gates.harden() if stochastic else self.open
        probabilities = self.gates.probabilities(self.k) if stochastic else self.open.double()
        return Progress(
            step=self.meter.step,
            steps=self.meter.steps,
            epoch=epoch + 1,
            epochs=self.schedule.epochs,
            stage=stage,
            k=self.k,
            loss=loss,
            metrics=self.metrics,
            costs=cost_progress(self.costs, self.budget, probabilities, mask, self.multipliers.value),
            groups=group_progress(self.costs.coupling, self.gates, self.k, mask),
            samples_per_second=self.meter.rate,
            time_left=self.meter.time_left(stage),
        )
