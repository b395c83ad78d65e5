"""Steps that are compared take turns, so that what else the machine does slows all of them."""

import statistics
import time
from collections.abc import Callable, Mapping


def medians(steps: Mapping[str, Callable[[], object]], *, rounds: int, warm: int) -> dict[str, float]:
    """Seconds of each step, of so many rounds after `warm` that do not count."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(warm + rounds):
        for name, run in steps.items():
            started = time.perf_counter()
            run()
            if turn >= warm:
                times[name].append(time.perf_counter() - started)
    return {name: statistics.median(values) for name, values in times.items()}
