"""What benchmarks save: every run, the mean of each kind of run over its seeds, and where they were made."""

import json
import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from _machine import machine
from scipy.stats import t

KIND = ("run", "k", "limits", "widths")  # what runs that differ by their seeds alone have in common
MEANS = ("params", "macs", "seconds")


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Mean, and half of its 95 % interval (Student's t); nan where one value says nothing of it."""
    mean, count = statistics.fmean(values), len(values)
    if count == 1:
        return mean, math.nan
    return mean, float(t.ppf(0.975, count - 1)) * statistics.stdev(values) / math.sqrt(count)


def kinds(results: Sequence[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """The runs of each kind, which differ by their seeds alone."""
    found: dict[str, list[dict[str, Any]]] = {}
    for one in results:
        found.setdefault(json.dumps([one.get(key) for key in KIND]), []).append(one)
    return list(found.values())


def mean_of(own: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Of the runs of one kind: seeds, test error in percent with half of its interval, mean size and time."""
    error, half = interval([100 * (1 - one["test"]) for one in own])
    means = {key: statistics.fmean(one[key] for one in own) for key in MEANS if key in own[0]}
    return {
        **{key: own[0][key] for key in KIND if key in own[0]},
        "seeds": len(own),
        "error_percent": error,
        "interval": None if math.isnan(half) else half,
        **means,
    }


def summary(results: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The mean of each kind of run."""
    return [mean_of(own) for own in kinds(results)]


def save(path: Path | None, results: Sequence[dict[str, Any]]) -> None:
    """Print the last result, and write all of them where a path is given."""
    print(json.dumps(results[-1]), flush=True)
    if path is not None:
        document = {"machine": machine(), "summary": summary(results), "results": list(results)}
        path.write_text(json.dumps(document, indent=2, allow_nan=False) + "\n")


def print_ratios(results: Sequence[dict[str, Any]], bases: Sequence[str]) -> None:
    """The time of the jobs with learned gates as ratios to that of other runs of the same seed."""
    by_seed = {(one["run"], one["seed"]): one["seconds"] for one in results}
    for base in bases:
        ratios = [
            seconds / by_seed[base, seed]
            for (run, seed), seconds in by_seed.items()
            if run == "learned" and (base, seed) in by_seed
        ]
        if ratios:
            print(f"job / {base} training time: {', '.join(f'{ratio:.2f}' for ratio in ratios)}")
