"""What benchmarks save: every run, the mean of each kind of run over its seeds, and where they were made."""

import json
import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from _machine import machine
from scipy.stats import t

KIND = ("run", "k", "limits")  # what runs that differ by their seeds alone have in common


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Mean, and half of its 95 % interval (Student's t); nan where one value says nothing of it."""
    count = len(values)
    spread = statistics.stdev(values) / math.sqrt(count) if count > 1 else math.nan
    return statistics.fmean(values), float(t.ppf(0.975, count - 1)) * spread if count > 1 else math.nan


def summary(results: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """For each kind of run: seeds, test error in percent with half of its interval, mean size and time."""
    kinds: dict[str, list[dict[str, Any]]] = {}
    for one in results:
        kinds.setdefault(json.dumps({key: one[key] for key in KIND if key in one}), []).append(one)
    rows = []
    for kind, own in kinds.items():
        error, half = interval([100 * (1 - one["test"]) for one in own])
        means = {
            key: statistics.fmean(one[key] for one in own)
            for key in ("params", "macs", "seconds")
            if key in own[0]
        }
        rows.append(
            json.loads(kind)
            | {
                "seeds": len(own),
                "error_percent": error,
                "interval": None if math.isnan(half) else half,
            }
            | means
        )
    return rows


def save(path: Path | None, results: Sequence[dict[str, Any]]) -> None:
    """Print the last result, and write all of them where a path is given."""
    print(json.dumps(results[-1]), flush=True)
    if path is not None:
        document = {"machine": machine(), "summary": summary(results), "results": list(results)}
        path.write_text(json.dumps(document, indent=2) + "\n")
