"""The smallest network that loses no more accuracy than allowed: trials of sizes, from the same dense network.

The dense network is trained once.  Every trial opens its gates anew for another limit, hardens and fine-tunes; its
validation accuracy is compared with the dense network's.  Sizes are bisected on a logarithmic scale until the next
smaller one tried, at most a tenth smaller, loses too much.
"""

import json
import math
import shutil
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, field, replace
from pathlib import Path

from . import checkpoint
from .config import Budget, Expansion, Training
from .errors import AccuracyNotMet, CheckpointRefused, InvalidInput
from .keeper import Keeper
from .progress import Cost, Metric, Progress, Stage, Trial
from .state import Trained
from .strict_json import from_json, to_json
from .train import Trainer

CLOSE = 0.9  # the next smaller size tried has at least this share of the one returned
STEP = 8.0  # from one size to the next, while none has failed
MAX_TRIALS = 20
RECORD, BASE, BEST = "search.json", "base-", "best-"

Fresh = Callable[[Budget, Keeper | None], Trainer]


@dataclass(frozen=True, kw_only=True, slots=True)
class Search:
    """What has been tried between `smallest` and `largest`, both costs of a `kind`.

    `limit` is under trial; None at the end.  `seconds` were spent in earlier attempts.
    """

    kind: str
    smallest: int
    largest: int
    limit: int | None
    seconds: float = 0.0
    trials: tuple[Trial, ...] = ()

    @classmethod
    def of(cls, budget: Budget, dense: Cost, smallest: Cost) -> "Search":
        """Before the first trial: the budget's limit, or a part of the dense cost."""
        kind = next(iter(budget.limits), "params")
        low, limit = getattr(smallest, kind), budget.limits.get(kind)
        if limit is None:
            return cls(
                kind=kind, smallest=low, largest=getattr(dense, kind), limit=_step(getattr(dense, kind), low)
            )
        return cls(kind=kind, smallest=low, largest=min(limit, getattr(dense, kind)), limit=limit)

    @property
    def best(self) -> Trial | None:
        """The smallest that passed."""
        return min((one for one in self.trials if one.passed), key=lambda one: one.cost, default=None)

    def after(self, trial: Trial) -> "Search":
        """With one more trial, and the limit of the next."""
        done = replace(self, trials=(*self.trials, trial), limit=None)
        limit = done._next()
        return done if limit in {one.limit for one in done.trials} else replace(done, limit=limit)

    def _next(self) -> int | None:
        high = self.largest if self.best is None else self.best.cost
        failed = (one for one in self.trials if not one.passed and one.cost < high)
        # where sizes are coarse no network lies between what a limit gave and the limit
        low = max((min(one.limit, high - 1) for one in failed), default=None)
        if len(self.trials) >= MAX_TRIALS:
            return None
        if low is None:  # none has failed yet, or the largest has
            return _step(high, self.smallest) if self.best is not None and high > self.smallest else None
        return None if low >= CLOSE * high else round(math.sqrt(low * high))


def _step(cost: int, smallest: int) -> int:
    """The next size to try, while none has failed."""
    return max(1, smallest, round(cost / STEP))


@dataclass(kw_only=True, slots=True)
class Place:
    """Where a search is, and the `folder` in which it keeps the dense network and the best trial."""

    found: Search
    folder: Path
    keeper: Keeper | None
    started: float = field(default_factory=time.monotonic)

    @property
    def seconds(self) -> float:
        """Spent on it in all attempts."""
        return self.found.seconds + time.monotonic() - self.started

    def due(self) -> bool:
        """Whether the loop is to call `keep`: also until the dense network is kept."""
        return not self.has(BASE) or (self.keeper is not None and self.keeper.due())

    def keep(self, trainer: Trainer, beside: Callable[[Path], None] | None = None) -> None:
        """The dense network as soon as there is one; checkpoints, with all that the search has beside them."""
        if trainer.state.stage is Stage.PLASTIC and not self.has(BASE):
            checkpoint.write(self.folder, trainer, BASE)
        if self.keeper is not None and self.keeper.due():
            self.keeper.keep(trainer, self.beside)

    def beside(self, target: Path) -> None:
        """Write what the search has into the folder of a checkpoint."""
        record = json.dumps(to_json(replace(self.found, seconds=self.seconds)))
        (target / RECORD).write_text(record, encoding="utf-8")
        for prefix in (BASE, BEST):
            if self.has(prefix):
                _copy(self.folder, target, prefix)

    def has(self, prefix: str) -> bool:
        """Whether a network is kept."""
        return all((self.folder / f"{prefix}{name}").is_file() for name in checkpoint.FILES)


def check_searchable(budget: Budget, training: Training, expansion: Expansion | None) -> None:
    """Raises InvalidInput where a budget of accuracy makes no sense."""
    if budget.max_accuracy_drop_points is None:
        return
    field = "budget.max_accuracy_drop_points"
    if training.loss != "cross_entropy":
        raise InvalidInput(
            field,
            f"the loss is {training.loss}, which has no accuracy; set max_params, max_macs or max_bytes",
        )
    if expansion is not None:
        raise InvalidInput(
            field, "a network that grows needs max_params, max_macs or max_bytes: to that it grows"
        )


def search(
    fresh: Fresh,
    budget: Budget,
    bounds: tuple[Cost, Cost],
    folder: Path,
    keeper: Keeper | None,
    kept: Path | None,
) -> Generator[Progress, None, Trained]:
    """Try sizes until the smallest is found that passes; `fresh` makes the trainer of one trial.

    `bounds`: the cost of the dense network, and of the smallest.  `folder` is made, and removed at the end.  `kept` is
    a checkpoint of the search, from which it goes on.  Raises AccuracyNotMet where none passes.
    """
    place = Place(found=Search.of(budget, *bounds), folder=_emptied(folder), keeper=keeper)
    trainer = None if kept is None else _resumed(fresh, budget, place, kept)
    while place.found.limit is not None:
        trainer = trainer or _trial(fresh, budget, place)
        for progress in trainer.run():
            yield replace(progress, trials=place.found.trials)
        place.found = place.found.after(_judge(trainer, place.found, budget))
        if place.found.best == place.found.trials[-1]:
            for name in checkpoint.FILES:
                (folder / f"{BEST}{name}").unlink(missing_ok=True)
            checkpoint.write(folder, trainer, BEST)
        trainer = None
    trained = yield from _best(fresh, budget, place.found, folder)
    shutil.rmtree(folder, ignore_errors=True)
    return replace(trained, seconds=place.seconds, trials=place.found.trials)


def _resumed(fresh: Fresh, budget: Budget, place: Place, kept: Path) -> Trainer:
    """The trainer of the trial that a checkpoint was taken in; where that is refused the first one, with a warning."""
    begun = place.found
    try:
        place.found = _reopen(kept, place.folder)
        trainer = _begun(fresh, budget, place)
        checkpoint.restore(trainer, kept)
    except CheckpointRefused as refused:
        place.found = begun
        _emptied(place.folder)
        trainer = _begun(fresh, budget, place)
        trainer.state.warnings += (checkpoint.began_anew(refused),)
    return trainer


def _trial(fresh: Fresh, budget: Budget, place: Place) -> Trainer:
    """The trainer of the next trial: from the dense network, or from the start."""
    trainer = _begun(fresh, budget, place)
    if place.has(BASE):
        checkpoint.restore(trainer, place.folder, BASE, other_budget=True)
        trainer.state.resumed -= 1  # that was none
        trainer.state.gates.awake = trainer.state.candidates
        trainer.open_gates()
    return trainer


def _begun(fresh: Fresh, budget: Budget, place: Place) -> Trainer:
    """A new trainer under the limit that is under trial."""
    trainer = fresh(_limited(budget, place.found), place)
    trainer.past = len(place.found.trials) * trainer.state.meter.steps
    return trainer


def _emptied(folder: Path) -> Path:
    """The folder, with nothing in it."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    return folder


def _best(fresh: Fresh, budget: Budget, found: Search, folder: Path) -> Generator[Progress, None, Trained]:
    """What the best trial came to."""
    best = found.best
    if best is None:
        nearest = max(found.trials, key=lambda one: one.accuracy)
        raise AccuracyNotMet(
            f"none of {len(found.trials)} sizes up to {found.largest:,} {found.kind} stays within "
            f"{budget.max_accuracy_drop_points:g} points of the dense network; the nearest, {nearest.cost:,} "
            f"{found.kind}, has a validation accuracy of {nearest.accuracy:.2%}"
        )
    trainer = fresh(_limited(budget, replace(found, limit=best.limit)), None)
    checkpoint.restore(trainer, folder, BEST)
    trainer.state.resumed -= 1
    return (yield from trainer.run())


def _judge(trainer: Trainer, found: Search, budget: Budget) -> Trial:
    """The trial that has ended, against the dense network."""
    hardening, history = trainer.state.hardening, trainer.state.history
    if hardening is None or found.limit is None or budget.max_accuracy_drop_points is None:
        raise AssertionError("the trial has not ended")
    dense = [one.metrics for one in history if one.stage in (Stage.PREPARE, Stage.DENSE) and one.metrics]
    compact = _accuracy(history[-1].metrics)
    drop = 100 * (_accuracy(dense[-1]).value - compact.value)
    return Trial(
        kind=found.kind,
        limit=found.limit,
        cost=getattr(hardening.hardened.cost, found.kind),
        accuracy=compact.value,
        low=compact.low or 0.0,
        high=compact.high or 1.0,
        passed=drop <= budget.max_accuracy_drop_points + 1e-9,
    )


def _accuracy(metrics: tuple[Metric, ...]) -> Metric:
    return next(one for one in metrics if one.name == "validation_accuracy")


def _limited(budget: Budget, found: Search) -> Budget:
    """The job's budget with the limit that is under trial."""
    limits = budget.limits | ({} if found.limit is None else {found.kind: found.limit})
    return Budget(
        max_params=limits.get("params"),
        max_macs=limits.get("macs"),
        max_bytes=limits.get("bytes"),
        max_accuracy_drop_points=budget.max_accuracy_drop_points,
    )


def _reopen(kept: Path, folder: Path) -> Search:
    """The search that a checkpoint belongs to; its networks come back into `folder`."""
    try:
        found = from_json(Search, json.loads((kept / RECORD).read_text(encoding="utf-8")))
        for prefix in (BASE, BEST):
            if (kept / f"{prefix}{checkpoint.STATE}").is_file():
                _copy(kept, folder, prefix)
    except (OSError, ValueError) as error:
        raise CheckpointRefused(f"{RECORD} cannot be read: {error!s:.200}") from error
    return found


def _copy(source: Path, target: Path, prefix: str) -> None:
    for name in checkpoint.FILES:
        shutil.copyfile(source / f"{prefix}{name}", target / f"{prefix}{name}")
