"""How fast the loop is and how long it will take."""

import time
from dataclasses import dataclass, field

from .progress import Stage


@dataclass(kw_only=True, slots=True)
class Meter:
    """Counts steps, samples and seconds of each stage; `ahead` are the steps planned per stage.

    Time between `pause` and the step before it is not counted.
    """

    ahead: dict[Stage, int]
    seconds: dict[Stage, float] = field(default_factory=dict)
    samples: dict[Stage, int] = field(default_factory=dict)
    done: dict[Stage, int] = field(default_factory=dict)
    rate: float = 0.0  # samples/s, of the last second or so
    _since: float = field(default_factory=time.perf_counter)

    def lap(self, stage: Stage, samples: int) -> None:
        """A training step of `samples` ended."""
        now = time.perf_counter()
        elapsed, self._since = now - self._since, now
        self.seconds[stage] = self.seconds.get(stage, 0.0) + elapsed
        self.samples[stage] = self.samples.get(stage, 0) + samples
        self.done[stage] = self.done.get(stage, 0) + 1
        momentary = samples / max(elapsed, 1e-9)
        self.rate = momentary if self.rate == 0 else 0.98 * self.rate + 0.02 * momentary

    def pause(self) -> None:
        """What came since the last lap was no training."""
        self._since = time.perf_counter()

    @property
    def step(self) -> int:
        """Steps made."""
        return sum(self.done.values())

    @property
    def steps(self) -> int:
        """Steps planned."""
        return sum(self.ahead.values())

    def samples_per_second(self, stage: Stage) -> float:
        """Mean over the stage, 0 before it began."""
        return self.samples[stage] / self.seconds[stage] if self.seconds.get(stage) else 0.0

    def time_left(self, stage: Stage) -> float:
        """Seconds of training ahead: a stage that has not begun is taken to be as fast as the present one."""
        if not self.done.get(stage):
            return 0.0
        per_step = self.seconds[stage] / self.done[stage]
        return (self.steps - self.step) * per_step
