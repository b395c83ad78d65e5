"""How long the dense and the compact network take, side by side."""

import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from .copies import in_format
from .report import Latencies, Latency

BATCHES = (1, 64)
SECONDS = 3.0  # for one batch size, as long as MIN_RUNS fit
MIN_RUNS = 5
MAX_RUNS = 100
_FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}

_Variant = tuple[str, str]  # which network, which memory format


def measure(
    dense: nn.Module,
    compact: nn.Module,
    example: tuple[Tensor, ...],
    threads: int,
    *,
    clock: Callable[[], float] = time.perf_counter,
) -> Latencies:
    """Median latency of both networks, in eval mode, for batches of 1 and 64 samples with `threads` threads.

    `example` is a batch of one or more real samples, repeated as needed.  Runs are interleaved, so that
    what else the machine does meets both.  Takes about 6 seconds, longer where 5 runs do; the process's number
    of threads is as before afterwards.  The networks are not changed; convolution weights are copied once.
    """
    formats = tuple(_FORMATS) if any(x.ndim == 4 for x in example) else ("contiguous",)
    networks = {
        (name, form): in_format(module, _FORMATS[form])
        for name, module in (("dense", dense), ("compact", compact))
        for form in formats
    }
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        entries = tuple(_measure_batch(networks, example, batch, clock) for batch in BATCHES)
    finally:
        torch.set_num_threads(before)
    return Latencies(threads=threads, entries=entries)


def _measure_batch(
    networks: dict[_Variant, nn.Module], example: tuple[Tensor, ...], batch: int, clock: Callable[[], float]
) -> Latency:
    inputs = {form: _batch(example, batch, _FORMATS[form]) for _, form in networks}

    def run(variant: _Variant) -> float:
        started = clock()
        networks[variant](*inputs[variant[1]])
        return clock() - started

    with torch.inference_mode():
        first = {variant: run(variant) for variant in networks}
        if sum(first.values()) < SECONDS:  # that allocated and packed weights, which matters in short runs
            first = {variant: run(variant) for variant in networks}
        variants = list(networks)
        if MIN_RUNS * sum(first.values()) > SECONDS:  # too slow to try each format at length
            variants = [_faster(first, name) for name in ("dense", "compact")]
        times: dict[_Variant, list[float]] = {variant: [] for variant in variants}
        started = clock()
        for done in range(MAX_RUNS):
            if done >= MIN_RUNS and clock() - started > SECONDS:
                break
            for variant in variants:
                times[variant].append(run(variant))
    medians = {variant: statistics.median(runs) for variant, runs in times.items()}
    best = {name: _faster(medians, name) for name in ("dense", "compact")}
    return Latency(
        batch=batch,
        dense_ms=1000 * medians[best["dense"]],
        compact_ms=1000 * medians[best["compact"]],
        dense_format=best["dense"][1],
        compact_format=best["compact"][1],
        runs=len(times[best["dense"]]),
    )


def _faster(seconds: dict[_Variant, float], network: str) -> _Variant:
    return min((variant for variant in seconds if variant[0] == network), key=seconds.__getitem__)


def _batch(example: tuple[Tensor, ...], size: int, form: torch.memory_format) -> tuple[Tensor, ...]:
    """`size` samples, repeated in turn; images in the memory format."""
    batch = [x[torch.arange(size, device=x.device) % x.shape[0]] for x in example]
    return tuple(x.contiguous(memory_format=form) if x.ndim == 4 else x for x in batch)
