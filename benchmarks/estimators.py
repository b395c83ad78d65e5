"""Gradient estimators of the gates: bias and variance by enumeration, and what a job reaches with each.

    python benchmarks/estimators.py --out estimators.json

First eight gates, every k of --ks and every seed: see `_moments.py`.  Then an MLP on scikit-learn's digits under a
limit on parameters, by the service's own loop.  Stage 2 has the same budget of evaluations for all: those that need
one evaluation a step have twice the epochs there.
"""

import argparse
import json
import math
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from _machine import ROOT, machine
from _moments import measure
from _relaxed import HardConcreteTrainer, RelaxedTrainer
from _results import interval
from torch import Tensor

from npn_core.config import Budget, CatalogueModel, KSchedule, Training
from npn_core.cost import cost_model
from npn_core.data import Batch, inspect_dataset, load_dataset, load_test
from npn_core.gated import Network
from npn_core.objective import Outputs
from npn_core.prepare import prepare
from npn_core.progress import Stage
from npn_core.state import Trained
from npn_core.train import Trainer

sys.path.insert(0, str(ROOT / "scripts"))
from demo import write_digits

DENSE, PLASTIC, FINE_TUNE = 4, 6, 6
ONE_EVALUATION = ("ar", "straight-through", "straight-through, in phi", "hard concrete")
NAMES = ("disarm", "arm", "rloo", "ugc", *ONE_EVALUATION)


class Counting:
    """Mixed into a trainer: counts the evaluations of stage 2."""

    evaluations = 0
    state: Any

    def loss(self) -> Callable[[Outputs, Any], Tensor]:
        """What the present stage minimises."""
        inner: Callable[[Outputs, Any], Tensor] = super().loss()  # type: ignore[misc]
        if self.state.stage is not Stage.PLASTIC:
            return inner

        def counted(outputs: Outputs, target: Any) -> Tensor:
            self.evaluations += 1
            return inner(outputs, target)

        return counted


TRAINERS: dict[str, type[Trainer]] = {
    "straight-through, in phi": type("InPhi", (Counting, RelaxedTrainer), {}),
    "hard concrete": type("HardConcrete", (Counting, HardConcreteTrainer), {}),
}


def job(name: str, dataset: Path, max_params: int, seed: int) -> dict[str, Any]:
    """One job up to its compact network: loss and size when its gates harden, and on the test split at the end."""
    plastic = PLASTIC * (2 if name in ONE_EVALUATION else 1)
    epochs = DENSE + plastic + FINE_TUNE
    k = KSchedule(dense_fraction=DENSE / epochs, plastic_fraction=plastic / epochs)
    estimator = name if name not in TRAINERS else "disarm"
    training = Training(epochs=epochs, batch_size=32, k=k, estimator=estimator, seed=seed, threads=1)
    prepared = prepare(
        CatalogueModel(name="mlp", params={"hidden": "300,100"}), inspect_dataset(dataset), training
    )
    network = Network(prepared.graph, prepared.coupling)
    costs = cost_model(network.graph, network.coupling)
    data = load_dataset(dataset, layout="", preprocessing=training.preprocessing, seed=seed)
    trainer = TRAINERS.get(name, type("Counted", (Counting, Trainer), {}))(
        network=network,
        costs=costs,
        data=data,
        objective=prepared.objective,
        budget=Budget(max_params=max_params),
        training=training,
        trained=False,
        should_stop=lambda: False,
    )
    started = time.process_time()
    trained, said = finish(trainer)
    seconds = time.process_time() - started
    hardening = trained.hardening
    last = [one for one in said if one.stage is Stage.PLASTIC][-1]
    test = load_test(dataset, layout="", preprocessing=data.preprocessing)
    measured = prepared.objective.measure(answers(trained, test.batches()))
    return {
        "estimator": name,
        "seed": seed,
        "cpu_seconds": seconds,
        "evaluations": trainer.evaluations,  # type: ignore[attr-defined]
        "hardened_validation_loss": {m.name: m.value for m in last.metrics}["validation_loss"],
        "max_params": max_params,
        "params_before_repair": hardening.hardened.before.params,
        "params": hardening.hardened.cost.params,
        "units_changed": hardening.hardened.changed,
        **{f"test_{metric.name}": metric.value for metric in measured},
    }


def finish(trainer: Trainer) -> tuple[Trained, list[Any]]:
    """Run to the end: what came out, and what was said."""
    run, said = trainer.run(), []
    while True:
        try:
            said.append(next(run))
        except StopIteration as end:
            return end.value, said


def answers(trained: Trained, batches: Iterator[Batch]) -> Iterator[tuple[Outputs, Any]]:
    """What the compact network says."""
    with torch.no_grad():
        for batch in batches:
            yield (trained.compact(*batch.x),), batch.y


def print_moments(rows: list[dict[str, Any]]) -> None:
    """Bias and deviation, a line for each estimator, averaged over seeds."""
    ks = sorted({row["k"] for row in rows})
    print("| estimator | " + " | ".join(f"k={k:g}: bias, deviation, evaluations" for k in ks) + " |")
    by_place = defaultdict(list)
    for row in rows:
        by_place[row["estimator"], row["k"]].append(row)
    for name in dict.fromkeys(row["estimator"] for row in rows):
        cells = []
        for k in ks:
            own = by_place[name, k]
            means = [
                statistics.fmean(row[key] for row in own) for key in ("bias", "deviation", "evaluations")
            ]
            cells.append("{:.2f}, {:.2f}, {:.2f}".format(*means))
        print(f"| {name} | " + " | ".join(cells) + " |")


def print_jobs(results: list[dict[str, Any]]) -> None:
    """Means and 95 % intervals, a line for each estimator; and of the difference to DisARM, seed by seed."""
    print(
        "| estimator | evaluations | loss hardened | off budget % | params | repaired "
        "| test loss | less DisARM's | test % | CPU s |"
    )
    reference = {one["seed"]: one["test_loss"] for one in results if one["estimator"] == "disarm"}
    for name in dict.fromkeys(result["estimator"] for result in results):
        own = [result for result in results if result["estimator"] == name]
        mean = {key: statistics.fmean(one[key] for one in own) for key in own[0] if key != "estimator"}
        hardened, loss = (
            interval([one[key] for one in own]) for key in ("hardened_validation_loss", "test_loss")
        )
        less = interval([one["test_loss"] - reference.get(one["seed"], math.nan) for one in own])
        off = 100 * statistics.fmean(abs(one["params_before_repair"] / one["max_params"] - 1) for one in own)
        right = interval([100 * one["test_accuracy"] for one in own])
        print(
            f"| {name} | {mean['evaluations']:.0f} | {hardened[0]:.3f} ± {hardened[1]:.3f} "
            f"| {off:.1f} | {mean['params']:.0f} | {mean['units_changed']:.1f} "
            f"| {loss[0]:.3f} ± {loss[1]:.3f} | {less[0]:+.3f} ± {less[1]:.3f} "
            f"| {right[0]:.2f} ± {right[1]:.2f} | {mean['cpu_seconds']:.1f} |"
        )


def main() -> None:
    """Measure, print two tables, save JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--ks", type=float, nargs="*", default=[2, 7, 20])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--max-params", type=int, default=1_500)
    parser.add_argument("--names", nargs="*", default=NAMES)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    moments = [
        {"k": k, "seed": seed, "estimator": name, **asdict(found)}
        for k in arguments.ks
        for seed in arguments.seeds
        for name, found in measure(seed, k).items()
    ]
    if moments:
        print_moments(moments)
    results = []
    with tempfile.TemporaryDirectory() as folder:
        dataset = Path(folder) / "digits.npz"
        write_digits(dataset)
        for seed in arguments.seeds:
            for name in arguments.names:
                results.append(job(name, dataset, arguments.max_params, seed))
                print(json.dumps(results[-1]), flush=True)
                if arguments.out:
                    document = {"machine": machine(), "moments": moments, "jobs": results}
                    arguments.out.write_text(json.dumps(document, indent=2))
    print_jobs(results)


if __name__ == "__main__":
    main()
