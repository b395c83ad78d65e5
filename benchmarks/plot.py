"""Test error against size: what the benchmarks saved, beside what others published.

    pip install matplotlib
    python benchmarks/plot.py --task lenet --results docs/results/lenet.json --out docs/results/lenet.svg

Small points are single runs, large ones means with 95 % intervals, joined from size to size, crosses what others
published.
"""

import argparse
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
from _results import kinds, mean_of
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

# An SVG whose text is text, and which is the same file whenever nothing has changed.
mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "npn", "font.size": 9})


@dataclass(frozen=True, kw_only=True, slots=True)
class Peer:
    """Somebody's network: its `size` in the task's unit, and its error in percent."""

    name: str
    size: float
    error: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Task:
    """What a plot shows, from an error of `floor` percent on; `size` is a cost by its name in the results."""

    title: str
    size: str
    floor: float = 0.0
    peers: tuple[Peer, ...] = ()


TASKS = {
    "lenet": Task(
        title="LeNet-5-Caffe on MNIST",
        size="params",
        peers=(
            Peer(name="BC-GHS", size=2_750, error=1.0),
            Peer(name="constrained L0", size=10_100, error=0.91),
            Peer(name="L0 hard concrete", size=6_200, error=1.0),
            Peer(name="NPN reference code, growing", size=2_509, error=1.78),
            Peer(name="NPN reference code, shrinking", size=150_406, error=0.66),
        ),
    ),
    "mlp": Task(
        title="MLP 784-300-100 on MNIST",
        size="params",
        peers=(  # single weights, as many times fewer as they say of 266,610 (arXiv:1701.05369, table 1)
            Peer(name="sparse variational dropout", size=266_610 / 68, error=1.92),
            Peer(name="dynamic network surgery", size=266_610 / 56, error=1.99),
            Peer(name="soft weight sharing", size=266_610 / 23, error=1.94),
            Peer(name="Han et al.", size=266_610 / 12, error=1.59),
        ),
    ),
    "moons": Task(
        title="Moons, one hidden layer",
        size="params",
        peers=(
            Peer(name="NPN reference code, shrinking", size=4_536, error=0.0),
            Peer(name="NPN reference code, growing", size=4_410, error=0.2),
        ),
    ),
    "resnet20": Task(title="ResNet-20 on CIFAR-10", size="macs", floor=10.0),
}
NAMES = {"params": "parameters", "macs": "multiply-adds of a sample"}


def main() -> None:
    """Read, draw, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--task", choices=TASKS, required=True)
    parser.add_argument("--results", type=Path, nargs="+", required=True)
    parser.add_argument("--runs", nargs="+", help="Kinds of runs to show; all of them by default.")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    results = [
        one
        for path in arguments.results
        for one in json.loads(path.read_text())["results"]
        if not arguments.runs or one["run"] in arguments.runs
    ]
    figure, axes = plt.subplots(figsize=(7, 4.2), layout="constrained")
    draw(axes, TASKS[arguments.task], results)
    figure.savefig(arguments.out, metadata={"Date": None} if arguments.out.suffix == ".svg" else None)


def draw(axes: Axes, task: Task, results: list[dict[str, Any]]) -> None:
    """One plot."""
    for number, run in enumerate(dict.fromkeys(one["run"] for one in results)):
        own = sorted((one for one in results if one["run"] == run), key=lambda one: float(one[task.size]))
        rows, colour = [mean_of(kind) for kind in kinds(own)], f"C{number}"
        sizes, errors = [one[task.size] for one in own], [100 * (1 - one["test"]) for one in own]
        axes.plot(sizes, errors, ".", color=colour, alpha=0.4, clip_on=False)
        axes.errorbar(
            [row[task.size] for row in rows],
            [row["error_percent"] for row in rows],
            yerr=[row["interval"] or 0.0 for row in rows],
            fmt="o-",
            linewidth=1,
            capsize=3,
            color=colour,
            label=run,
        )
    axes.plot(
        [peer.size for peer in task.peers],
        [peer.error for peer in task.peers],
        "x",
        color="0.35",
        clip_on=False,
    )
    axes.set(xscale="log", xlabel=NAMES[task.size], ylabel="test error, %", title=task.title)
    axes.margins(x=0.35, y=0.12)
    axes.set_ylim(bottom=task.floor)
    left, right = axes.get_xlim()
    for number, peer in enumerate(task.peers):
        place = math.log(peer.size / left) / math.log(right / left)
        side = "right" if place > 0.7 else "left"  # of the text, so that it stays inside
        axes.annotate(
            peer.name,
            (peer.size, peer.error),
            xytext=(-5 if side == "right" else 5, (4, -10)[number % 2]),  # neighbours above and below
            textcoords="offset points",
            ha=side,
            color="0.35",
        )
    axes.legend(fontsize=8)
    axes.grid(alpha=0.3)


if __name__ == "__main__":
    main()
