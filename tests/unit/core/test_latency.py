"""Latency: interleaved runs, the better format, bounded time; on a clock that the networks move themselves."""

from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from npn_core.latency import MAX_RUNS, MIN_RUNS, SECONDS, measure
from npn_core.report import Latency

IMAGES = torch.randn(3, 2, 4, 4)
FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}


@dataclass
class Clock:
    """Time that passes only in forward passes, and a record of them."""

    now: float = 0.0
    runs: list[tuple[str, int, str]] = field(default_factory=list)

    def __call__(self) -> float:
        """Seconds."""
        return self.now

    def __deepcopy__(self, memo: dict[int, Any]) -> "Clock":
        """The same clock in every copy of a network."""
        return self


class Timed(nn.Module):
    """Takes some seconds per sample, by memory format of its input; now and then the machine is busy."""

    def __init__(self, name: str, clock: Clock, **seconds: float) -> None:
        super().__init__()
        self.name, self.clock, self.seconds = name, clock, seconds
        self.conv = nn.Conv2d(2, 2, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Moves the clock."""
        assert torch.is_inference_mode_enabled()
        assert not self.training
        form = "contiguous" if x.is_contiguous() else "channels_last"
        assert self.conv.weight.is_contiguous(memory_format=FORMATS[form])
        self.clock.runs.append((self.name, len(x), form))
        hiccup = 1.0 if len(self.clock.runs) % 50 == 0 else 0.0
        self.clock.now += self.seconds[form] * len(x) + hiccup
        return x


def test_medians_of_interleaved_runs_in_the_better_format() -> None:
    """Dense and compact take turns; each is reported in the format that suits it, with the median in ms."""
    clock = Clock()
    dense = Timed("dense", clock, contiguous=0.002, channels_last=0.001)
    compact = Timed("compact", clock, contiguous=0.0005, channels_last=0.003)
    found = measure(dense, compact, (IMAGES,), 1, clock=clock)
    assert [entry.batch for entry in found.entries] == [1, 64]
    one = found.entries[0]
    assert (one.dense_format, one.compact_format) == ("channels_last", "contiguous")
    assert (one.dense_ms, one.compact_ms) == pytest.approx((1.0, 0.5))
    measured = clock.runs[8 : 8 + 4 * one.runs]
    for start in range(0, len(measured), 4):
        turn = measured[start : start + 4]
        assert set(turn) == {(name, 1, form) for name in ("dense", "compact") for form in FORMATS}


def test_time_is_bounded_but_five_runs_are_made() -> None:
    """Slow networks are not measured at length in the format that is worse, and no longer than needed."""
    clock = Clock()
    dense = Timed("dense", clock, contiguous=0.02, channels_last=0.01)
    compact = Timed("compact", clock, contiguous=0.01, channels_last=0.02)
    found = measure(dense, compact, (IMAGES,), 1, clock=clock)
    slow = found.entries[1]
    assert slow.runs == MIN_RUNS
    assert slow.dense_format == "channels_last"
    tried = [run for run in clock.runs if run[:2] == ("dense", 64)]
    assert tried.count(("dense", 64, "contiguous")) == 1
    assert tried.count(("dense", 64, "channels_last")) == 1 + MIN_RUNS


def test_as_many_runs_as_time_allows() -> None:
    """Between five runs and a hundred, the time decides."""
    clock = Clock()
    networks = [Timed(name, clock, contiguous=0.03, channels_last=0.03) for name in ("dense", "compact")]
    first = measure(*networks, (IMAGES,), 1, clock=clock).entries[0]
    hiccups = sum(size == 1 for _, size, _ in clock.runs) // 50
    assert first.runs == pytest.approx((SECONDS - hiccups) / (4 * 0.03), abs=1)


def test_samples_are_repeated_in_turn() -> None:
    """A batch of 64 is made of the samples that there are, the same ones in every input."""
    seen: list[tuple[Tensor, Tensor]] = []

    class Recorder(nn.Module):
        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            seen.append((x, y))
            return x

    measure(Recorder(), Recorder(), (torch.arange(3), torch.arange(3) * 10.0), 1)
    assert {tuple(x.shape) for x, _ in seen} == {(1,), (64,)}
    assert all(torch.equal(x * 10.0, y) for x, y in seen)
    assert seen[-1][0][:5].tolist() == [0, 1, 2, 0, 1]


def test_flat_inputs_have_one_format() -> None:
    """Where no input is an image there is nothing to choose."""
    found = measure(nn.Linear(3, 300), nn.Linear(3, 2), (torch.randn(2, 3),), 1)
    for entry in found.entries:
        assert isinstance(entry, Latency)
        assert (entry.dense_format, entry.compact_format) == ("contiguous", "contiguous")
        assert entry.compact_ms > 0
        assert MIN_RUNS <= entry.runs <= MAX_RUNS


def test_threads_are_given_and_put_back() -> None:
    """The measurement has its number of threads, the process its own afterwards, also after an error."""
    inside: list[int] = []

    class Recorder(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            inside.append(torch.get_num_threads())
            if len(inside) > 1:
                raise RuntimeError("stop")
            return x

    before = torch.get_num_threads()
    with pytest.raises(RuntimeError, match="stop"):
        measure(Recorder(), Recorder(), (torch.randn(2, 3),), before + 1)
    assert set(inside) == {before + 1}
    assert torch.get_num_threads() == before
    assert measure(nn.Identity(), nn.Identity(), (torch.randn(2, 3),), 1).threads == 1
