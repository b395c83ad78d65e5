"""What rpc_load.py measured, its limits, and how it is told."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

MAX_P99 = 0.100  # seconds
MIN_KEPT = 0.75  # of the samples/s without load


@dataclass(frozen=True, kw_only=True, slots=True)
class Latencies:
    """GetJob under one condition: seconds from the time that a call was due."""

    condition: str
    calls: int
    p50: float
    p90: float
    p99: float
    longest: float

    @classmethod
    def of(cls, condition: str, seconds: Sequence[float]) -> "Latencies":
        """Quantiles by nearest rank."""
        ordered = sorted(seconds)
        p50, p90, p99 = (ordered[math.ceil(share * len(ordered)) - 1] for share in (0.5, 0.9, 0.99))
        return cls(condition=condition, calls=len(ordered), p50=p50, p90=p90, p99=p99, longest=ordered[-1])


@dataclass(frozen=True, kw_only=True, slots=True)
class Window:
    """A stretch of training: samples/s by the clock, and the share of a core that each side used."""

    samples_per_second: float
    cores: Mapping[str, float]


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingSpeed:
    """One job, alone and under load in turn."""

    threads: int
    alone: tuple[Window, ...]
    loaded: tuple[Window, ...]

    @property
    def kept(self) -> float:
        """Samples/s under load as a share of those without."""
        return mean_speed(self.loaded) / mean_speed(self.alone)

    @property
    def kept_by_round(self) -> list[float]:
        """The same for each pair of windows that followed each other: how much the machine's noise is."""
        pairs = zip(self.alone, self.loaded, strict=True)
        return [loaded.samples_per_second / alone.samples_per_second for alone, loaded in pairs]


@dataclass(frozen=True, kw_only=True, slots=True)
class Results:
    """All of one run.  The limits count for the first of `training`, whose latencies are `under_training`'s first.

    `faults` are the watchers that missed anything, in words.
    """

    watchers: int
    connections: int
    jobs: int
    calls_per_second: float
    idle: Latencies
    under_training: tuple[Latencies, ...]
    under_queue: Latencies
    training: tuple[TrainingSpeed, ...]
    faults: tuple[str, ...]

    def missed(self) -> list[str]:
        """The limits that do not hold."""
        first = self.training[0]
        slow = [
            f"GetJob p99 {1e3 * latencies.p99:.0f} ms, {latencies.condition}; limit {1e3 * MAX_P99:.0f} ms"
            for latencies in (self.idle, self.under_training[0])
            if latencies.p99 > MAX_P99
        ]
        kept = [f"training kept {first.kept:.2f}; limit {MIN_KEPT}"] if first.kept < MIN_KEPT else []
        return [*slow, *kept, *self.faults]


def mean_speed(windows: Sequence[Window]) -> float:
    """Samples/s over windows of equal length."""
    return sum(window.samples_per_second for window in windows) / len(windows)


def tell(results: Results, machine: Mapping[str, object]) -> Iterator[str]:
    """The lines of the report, in Markdown: it reads well on a terminal, too."""
    yield (
        f"{results.watchers} watchers over {results.connections} connections on {results.jobs} queued jobs, "
        f"GetJob {results.calls_per_second:g} times a second (open loop). Commit {machine['commit']}, "
        f"{machine['cpu']}: server, worker and this client share its {machine['cores']} cores."
    )
    yield ""
    yield from _table(
        ("GetJob at the client", "calls", "p50 ms", "p90 ms", "p99 ms", "longest ms"),
        [
            (row.condition, row.calls, *(f"{1e3 * t:.1f}" for t in (row.p50, row.p90, row.p99, row.longest)))
            for row in (results.idle, *results.under_training, results.under_queue)
        ],
    )
    yield ""
    yield from _table(
        (
            "LeNet-5, threads",
            "samples/s alone",
            "under load",
            "kept",
            "by round",
            "cores under load: server",
            "worker",
            "client",
        ),
        [
            (
                speed.threads,
                f"{mean_speed(speed.alone):.0f}",
                f"{mean_speed(speed.loaded):.0f}",
                f"{speed.kept:.2f}",
                ", ".join(f"{kept:.2f}" for kept in speed.kept_by_round),
                *(f"{_mean_cores(speed.loaded, side):.2f}" for side in ("server", "worker", "client")),
            )
            for speed in results.training
        ],
    )
    if len(results.training) > 1:
        best = max(results.training, key=lambda speed: mean_speed(speed.loaded))
        yield f"\nFastest under load: threads={best.threads}."
    yield (
        f"\n{results.watchers - len(results.faults)} of {results.watchers} watchers saw every state change in "
        "order and the terminal state."
    )


def _mean_cores(windows: Sequence[Window], side: str) -> float:
    return sum(window.cores[side] for window in windows) / len(windows)


def _table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> Iterator[str]:
    cells = [[str(cell) for cell in row] for row in (head, *rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ["| " + " | ".join(map(str.ljust, row, widths)) + " |" for row in cells]
    yield lines[0]
    yield "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    yield from lines[1:]
