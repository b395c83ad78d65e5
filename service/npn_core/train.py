"""The loop: a generator of `Progress` through the three stages of Neural Plasticity Networks.

Stage 1 trains the dense network, or grows one, and learns what its units are worth; stage 2 trains weights and gates
together while multipliers drive the expected cost to the budget; then the gates harden to a mask that meets it
exactly, and stage 3 fine-tunes the compact network on what the dense one says.
"""

import math
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import replace
from itertools import islice
from typing import Any, Final

import torch
from torch import Tensor

from .branches import thin_branches
from .budget import expected_costs, harden
from .config import Budget, Expansion, Training
from .copies import duplicate
from .cost import CostModel, cost_model
from .course import Course
from .data import Batch, Data, steps_per_epoch
from .distillation import Teacher, pupil_loss, share_of
from .errors import Stopped, TrainingDiverged
from .estimators import ESTIMATORS
from .gated import Network, Noise
from .growth import GROWN_BY, asked, awake_at_first, demand, hibernate, is_grown, lacking, wake
from .keeper import Keeper
from .masks import chosen
from .objective import Objective, Outputs, chance_warning, probe
from .progress import Metric, Progress, Stage
from .pull import first_gates
from .saliency import Saliency, gate_gradients
from .state import Hardening, LoopState, Trained
from .steering import arrival, move
from .step import Evaluation, GateStep, Sliced, gate_step
from .surgery import without_gates
from .telling import groups_of, progress_of
from .validation import validate
from .weights import compacted
from .widening import widen

REPORT_SECONDS = 0.5
REFRESH_BATCHES = 50
DEMAND_BATCHES = 4
VALUE_BATCHES = 16
STAGES: Final = (Stage.PREPARE, Stage.DENSE, Stage.PLASTIC, Stage.FINE_TUNE)


class Trainer:
    """One job's training: its state, and `run`, which may be called once and goes on from that state.

    `full` is the whole network `dense` less the branches that left, `network` the one that trains, the compact one in
    stage 3.  `trained`: it came with weights that are worth something.  `expansion`: it is to grow.
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
        expansion: Expansion | None = None,
        should_stop: Callable[[], bool],
        keeper: Keeper | None = None,
    ) -> None:
        self.dense = self.full = self.network = network
        self.costs, self.data, self.objective = costs, data, objective
        self.budget, self.trained, self.expansion = budget, trained, expansion
        self.should_stop, self.keeper = should_stop, keeper
        awake = awake_at_first(network.coupling, expansion or Expansion())
        if trained:
            hibernate(network, ~awake)
        self.first = costs.count(awake)
        task = training, budget, expansion, self.first
        course = Course.of(*task, normed=network.normed, objective=objective.kind, trained=trained)
        self.training, self.rates, self.schedule = course.training, course.rates, course.schedule
        self.estimator, self.lr = ESTIMATORS[training.estimator], self.training.lr or math.nan
        self.steps, self.course = steps_per_epoch(len(data.train), training.batch_size), course
        self.state = LoopState.fresh(network, awake, budget, self.training, self.schedule, self.steps)
        self.teacher: Teacher | None = None
        self.runner = Sliced(network, objective.loss, precision=self.training.precision)
        self.active = network.active(awake)
        self.kept = network.everything  # of the compact network, from stage 3 on
        self.started, self.past = time.monotonic(), 0  # and the steps of earlier trials
        self.news: tuple[str, ...] = ()  # warnings that no progress has told yet

    def run(self) -> Generator[Progress, None, Trained]:
        """Yields progress at least once an epoch; raises Stopped, TrainingDiverged."""
        state, schedule = self.state, self.schedule
        begun = STAGES.index(state.stage)
        for stage, enter, end in (
            (Stage.DENSE, self.begin, schedule.dense),
            (Stage.PLASTIC, self.open_gates, schedule.plastic),
            (Stage.FINE_TUNE, self.harden, schedule.epochs),
        ):
            if STAGES.index(stage) > begun:
                enter()
                if stage is Stage.DENSE:
                    yield self.progress(math.nan)
                state.stage = stage
            self.runner = Sliced(self.network, self.loss(), precision=self.training.precision)
            while state.epoch < end:
                yield from self.epoch()
        self.pause()
        if state.hardening is None:
            raise AssertionError("stage 3 was not entered")
        return Trained(
            compact=self.network.graph.eval(),
            dense=self.dense,
            full=self.full,
            costs=self.costs,
            first=self.first,
            active=self.active,
            hardening=state.hardening,
            training=self.training,
            state=state,
            seconds=self.seconds(),
        )

    def epoch(self) -> Generator[Progress, None, None]:
        """What is left of the present epoch, then a validation."""
        state, meter = self.state, self.state.meter
        meter.pause()
        said, loss = time.monotonic(), math.nan
        state.epoch_start = state.generators.order.get_state()
        for batch in self.batches(state.batch):
            self.pause()
            loss = self.step(batch, meter.done.get(state.stage, 0) / meter.ahead[state.stage]).loss
            meter.lap(state.stage, len(batch))
            state.batch += 1
            if not math.isfinite(loss):
                raise TrainingDiverged(meter.step)
            if grown := self.grows():
                self.grow()
            if grown or time.monotonic() - said > REPORT_SECONDS:
                said = time.monotonic()
                yield self.told(self.progress(loss))
        state.metrics = self.validate()
        state.history.append(self.progress(loss))
        state.epoch, state.batch = state.epoch + 1, 0
        yield self.told(state.history[-1])

    def pause(self) -> None:
        """Between two steps: keep a checkpoint where one is due; raises Stopped where the job is to stop."""
        if self.keeper is not None and self.keeper.due():
            self.keeper.keep(self)
            self.state.meter.pause()
        if self.should_stop():
            raise Stopped

    def step(self, batch: Batch, progress: float) -> Evaluation:
        """One step, at `progress` within the stage."""
        if self.state.stage is Stage.FINE_TUNE:
            return self.fine_tune_step(batch, progress)
        if self.state.stage is Stage.PLASTIC and self.training.mask == "learned":
            return self.plastic_step(batch, progress)
        return self.dense_step(batch, progress)

    def loss(self) -> Callable[[Outputs, Any], Tensor]:
        """What the present stage minimises."""
        objective = self.objective
        if self.state.stage is Stage.DENSE and objective.kind == "distill":
            return lambda outputs, _: probe(outputs, objective.output, self.state.generators.noise)
        return pupil_loss(objective, self.state.share) if self.is_pupil else objective.loss

    def target(self, batch: Batch) -> Any:
        """What that loss compares with."""
        if self.teacher is None or not (self.is_pupil or self.objective.kind == "distill"):
            return batch.y
        answer = self.teacher.answer(batch)
        if not self.is_pupil:
            return answer
        return answer, None if self.objective.kind == "distill" else batch.y

    @property
    def is_pupil(self) -> bool:
        """Whether the compact network learns from the dense one."""
        return self.state.stage is Stage.FINE_TUNE and self.state.share > 0

    def batches(self, first: int = 0) -> Iterator[Batch]:
        """One epoch of training batches from number `first` on."""
        order, augment = self.state.generators.order, self.course.augment(self.state.epoch)
        return self.data.batches(self.training.batch_size, order, augment, first)

    # ---------------------------------------------------------------------------------- stage 1

    def begin(self) -> None:
        """What the network says as it came, and, where it is its own teacher, its answers."""
        state = self.state
        if self.objective.kind == "distill":
            self.teacher = self.make_teacher()
        if self.trained:
            state.metrics = state.received = self.validate()
            warning = chance_warning(state.received, self.data.info.classes)
            state.warnings += (warning,) if warning else ()
            state.history.append(self.progress(math.nan))

    def dense_step(self, batch: Batch, progress: float) -> Evaluation:
        """An ordinary step of what is awake; where it is its own teacher it only values its units."""
        network, state = self.network, self.state
        learns, task = self.objective.kind != "distill", (batch.x, self.target(batch), self.active)
        evaluation = self.runner.differentiate(*task, self.noise(), update_stats=learns)
        if state.epoch == self.schedule.dense - 1:
            state.saliency.add(gate_gradients(network, self.active, evaluation.updates))
        if learns:
            state.optimizer.step(evaluation.updates, self.lr * self.rates.dense(progress))
        return evaluation

    def grows(self) -> bool:
        """Whether it is time for a network that grows to be validated, and maybe to wake units."""
        state, meter = self.state, self.state.meter
        step = meter.done.get(Stage.DENSE, 0)
        return (
            self.expansion is not None
            and state.stage is Stage.DENSE
            and state.pulse.due <= step < GROWN_BY * meter.ahead[Stage.DENSE]
            and not is_grown(self.costs, self.budget, state.gates.awake)
        )

    def grow(self) -> None:
        """After a validation that is the best so far wake units of every group, with new room where there is none."""
        state = self.state
        state.metrics = self.validate()
        loss = next(one.value for one in state.metrics if one.name == "validation_loss")
        before, state.pulse = state.pulse, state.pulse.after(loss, state.meter.done[Stage.DENSE])
        if loss < before.best:
            self.wake()
        state.meter.pause()

    def wake(self) -> None:
        """Half as many units again, those that the data ask for most."""
        state = self.state
        counts = asked(self.full.coupling, state.gates.awake)
        if more := lacking(self.full.coupling, state.gates.awake, counts):
            self.widen(more)
        shuffled = self.data.batches(self.training.batch_size, state.generators.growth)
        batches = islice(shuffled, DEMAND_BATCHES)
        pairs = ((batch.x, self.target(batch), self.noise()) for batch in batches)
        scores = demand(self.full, state.gates.awake, self.loss(), pairs)
        state.gates.awake = wake(self.full.coupling, state.gates.awake, counts, scores)
        state.saliency = Saliency.none(len(scores))
        self.active = self.full.active(state.gates.awake)

    def widen(self, more: Mapping[str, int]) -> None:
        """Go on with a wider network: `more` units of each named group hibernate."""
        generator, inputs = self.state.generators.growth, self.data.info.inputs
        wider = widen(self.full, more, inputs, generator, quiet=self.trained)
        self.state.widen(wider, self.full.dims)
        self.adopt(wider.network)
        self.dense = self.full

    def adopt(self, network: Network) -> None:
        """Go on with another network, to which the state belongs by now."""
        self.full = self.network = network
        self.costs = cost_model(network.graph, network.coupling)
        self.runner = Sliced(network, self.loss(), precision=self.training.precision)
        self.active = network.active(self.state.gates.awake)

    # ---------------------------------------------------------------------------------- stage 2

    def open_gates(self) -> None:
        """The dense network becomes the teacher of stage 3; phi begins at what stage 1 has learned."""
        state = self.state
        if self.expansion is not None:
            hibernate(self.full, ~state.gates.awake)  # what has not trained is no part of the dense network
        state.dense = {name: tensor.clone() for name, tensor in self.full.graph.state_dict().items()}
        if self.schedule.dense > 0 or self.trained:
            state.share = share_of(self.training, self.rates, trained=self.trained, metrics=state.metrics)
        if state.share > 0 and self.teacher is None:
            self.teacher = self.make_teacher()
        state.candidates = state.gates.awake.clone()
        if not state.saliency.batches:
            self.value_units()
        if self.training.mask == "learned":
            state.gates = first_gates(state.saliency, state.gates, self.costs, self.budget)
            self.active = self.full.active(state.gates.awake)

    def value_units(self) -> None:
        """What the units are worth, where no stage 1 has told: by a few batches, without a step."""
        for batch in islice(self.batches(), VALUE_BATCHES):
            task = batch.x, self.target(batch), self.active, self.noise()
            found = self.runner.differentiate(*task, update_stats=False)
            self.state.saliency.add(gate_gradients(self.network, self.active, found.updates))

    def make_teacher(self, *, asked: bool = True) -> Teacher:
        """A copy of the dense network as it is, which later steps do not change; `asked` as in Teacher."""
        frozen = Network(duplicate(self.full.graph), without_gates(self.full.graph))
        return Teacher(frozen, self.objective, self.data, self.training.augment, asked=asked)

    def plastic_step(self, batch: Batch, progress: float) -> Evaluation:
        """Weights move on the units that the sample opened; phi by the estimate and the multipliers' pull."""
        state = self.state
        state.k = self.schedule.k(progress)
        looks = (state.meter.done.get(Stage.PLASTIC, 0) + 1) % self.estimator.every == 0
        result = self.sampled_step(batch, looks=looks)
        state.optimizer.step(result.evaluation.updates, self.lr * self.rates.plastic)
        if result.gradient is not None:
            self.warn(move(state, self.costs, self.budget, self.course, result.gradient, progress))
        return result.evaluation

    def sampled_step(self, batch: Batch, *, looks: bool = True) -> GateStep:
        """What a draw of the gates tells of a batch, and of themselves where it `looks` at them."""
        state, estimator, pair = self.state, self.estimator, (batch.x, self.target(batch))
        rows, size = estimator.rows, len(state.gates.phi)
        u = torch.rand(rows, size, generator=state.generators.gates, dtype=torch.float64)
        draw, noise = (state.gates, state.k, estimator, pair, u), self.noise()
        return gate_step(self.runner, *draw, noise, looks=looks, awake=self.active)

    # ---------------------------------------------------------------------------------- stage 3

    def harden(self) -> None:
        """The gates become a mask that meets the budget; the compact network trains on."""
        state, training = self.state, self.training
        groups = groups_of(state, self.costs)
        expected = expected_costs(self.costs, state.gates.probabilities(state.k), self.budget)
        if training.mask == "learned" and Stage.PLASTIC in state.meter.done:
            self.warn(arrival(state, self.costs, self.budget, expected))
        best = chosen(training.mask, self.full, state, self.costs, self.budget)
        before = self.costs.count(best[0])
        branches, rest = thin_branches(self.full, best, self.budget, training, self.data.info.inputs)
        if branches:
            self.drop(branches, rest)
            best = chosen(training.mask, self.full, state, self.costs, self.budget)
        hardened = harden(self.costs, self.budget, *best, training.round_to)
        self.cut(
            Hardening(
                hardened=replace(hardened, before=before),
                expected={kind: cost.item() for kind, cost in expected.items()},
                gate_entropy={group.name: group.entropy for group in groups},
            )
        )
        self.refresh_statistics()

    def drop(self, branches: tuple[str, ...], network: Network) -> None:
        """Go on with the network without these residual branches."""
        self.state.drop(branches, self.full, network)
        self.adopt(network)

    def cut(self, hardening: Hardening) -> None:
        """Go on with the compact network, and with the moments of the weights that stay."""
        state, full = self.state, self.full
        state.hardening, state.k = hardening, math.inf
        self.active = full.active(hardening.hardened.mask)
        self.network, self.kept = compacted(full, self.active, self.data.info.inputs)
        state.optimizer = state.optimizer.sliced(self.network.parameters, self.active, full.dims)

    def refresh_statistics(self) -> None:
        """Re-estimate BatchNorm's running statistics, which were gathered under sampled gates."""
        if self.network.normed:
            runner = Sliced(self.network, self.objective.loss)
            for batch in islice(self.batches(), REFRESH_BATCHES):
                runner.observe(batch.x, self.network.everything, self.noise())

    def fine_tune_step(self, batch: Batch, progress: float) -> Evaluation:
        """An ordinary step of the compact network; weights that are gone stay 0."""
        evaluation = self.runner.differentiate(batch.x, self.target(batch), self.kept, self.noise())
        self.state.optimizer.step(evaluation.updates, self.lr * self.rates.fine_tuning(progress))
        return evaluation

    # ---------------------------------------------------------------------------------- telling

    def noise(self) -> Noise:
        """Dropout's random numbers for one step."""
        return Noise(generator=self.state.generators.noise)

    def seconds(self) -> float:
        """Time spent on the job since its training began, in earlier attempts too."""
        return self.state.seconds + time.monotonic() - self.started

    def validate(self) -> tuple[Metric, ...]:
        """The metrics on the validation split of what hardening now would give."""
        network = self.network
        active = network.active(self.state.mask) if self.state.hardening is None else network.everything
        return validate(network, active, self.data, self.objective, self.teacher)

    def warn(self, warnings: tuple[str, ...]) -> None:
        """Keep those that are new for the report, and for the progress that is told next."""
        new = tuple(warning for warning in warnings if warning not in self.state.warnings)
        self.news, self.state.warnings = self.news + new, self.state.warnings + new

    def told(self, progress: Progress) -> Progress:
        """With the warnings that nothing has told yet; the history is without, for it must not follow the clock."""
        news, self.news = self.news, ()
        return replace(progress, warning=" ".join(news)) if news else progress

    def progress(self, loss: float) -> Progress:
        """The state of the loop."""
        task = self.state, self.costs, self.budget
        return progress_of(*task, epochs=self.schedule.epochs, loss=loss, past=self.past)
