"""Growing and shrinking to a budget: LeNet-5-Caffe and an MLP on MNIST, one hidden layer on Moons.

    python benchmarks/expand.py --task lenet --dataset ../shared/data/mnist.npz --out expand_lenet.json
    python benchmarks/expand.py --task mlp --dataset ../shared/data/mnist.npz --out expand_mlp.json
    python benchmarks/expand.py --task moons --dataset ../shared/data/moons.npz --seeds 0 1 2 --out expand_moons.json
    python benchmarks/expand.py --task moons --dataset ../shared/data/moons.npz --k 0 0.5 1 2 7 50 inf --out k.json

"expand" begins with 3-3-3 (LeNet), with 10 and 10 neurons (MLP), or with 3 of 100 inputs and 3 of 80 neurons awake
(Moons); "sparsify" with the whole network.  `--k` holds the plasticity of stage 2 at each of its values.  Whole jobs in
one process; the test split is read once, at the end.
"""

import argparse
import itertools
import math
from dataclasses import dataclass
from pathlib import Path

import torch
from _jobs import run_job
from _results import save, summary

from npn_core.config import Budget, CatalogueModel, Expansion, KSchedule, Training


@dataclass(frozen=True, kw_only=True, slots=True)
class Task:
    """A network to shrink, one to grow and what of it starts awake, the budget in parameters each way."""

    large: CatalogueModel
    small: CatalogueModel
    awake: dict[str, int]
    budgets: dict[str, Budget]
    epochs: int
    batch_size: int
    lr: float | None = None  # the default


BC_GHS = Budget(max_params=2_700, max_macs=158_000)  # what its network has
MOONS = CatalogueModel(name="mlp", params={"hidden": "80"})
TASKS = {
    "mlp": Task(
        large=CatalogueModel(name="mlp", params={"hidden": "300,100"}),
        small=CatalogueModel(name="mlp", params={"hidden": "10,10"}),
        awake={},
        budgets={"expand": Budget(max_params=20_000), "sparsify": Budget(max_params=20_000)},
        epochs=60,
        batch_size=128,
    ),
    "lenet": Task(
        large=CatalogueModel(name="lenet5-caffe"),
        small=CatalogueModel(name="lenet5-caffe", params={"widths": "3,3,3"}),
        awake={},
        budgets={"expand": BC_GHS, "sparsify": BC_GHS},
        epochs=60,
        batch_size=128,
    ),
    "moons": Task(
        large=MOONS,
        small=MOONS,
        awake={"fc1.in": 3, "fc1": 3},
        # at most 150 and 100 weights beside the biases
        budgets={"expand": Budget(max_params=159), "sparsify": Budget(max_params=108)},
        epochs=2_000,
        batch_size=128,
        lr=1e-2,  # the inputs are small, and go in as they are: their deviation is 0.12
    ),
}


def main() -> None:
    """Run, print a line each, save JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--task", choices=TASKS, required=True)
    parser.add_argument("--dataset", type=Path, required=True)
    parser.add_argument("--runs", nargs="+", default=["expand", "sparsify"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, help="Default: 60 on MNIST, 2,000 on Moons.")
    parser.add_argument("--k", type=float, nargs="+", default=[None])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    task, results = TASKS[arguments.task], []
    for seed in arguments.seeds:
        for run, k in itertools.product(arguments.runs, arguments.k):
            training = Training(
                epochs=arguments.epochs or task.epochs,
                batch_size=task.batch_size,
                lr=task.lr,
                seed=seed,
                threads=arguments.threads,
                k=KSchedule() if k is None else KSchedule(start=k, end=k),
            )
            grows = run == "expand"
            found = run_job(
                task.small if grows else task.large,
                arguments.dataset,
                training,
                task.budgets[run],
                expansion=Expansion(awake=task.awake) if grows else None,
            )
            results.append({"run": run, "k": "inf" if k == math.inf else k, **found})
            save(arguments.out, results)
    for row in summary(results):
        print(row)


if __name__ == "__main__":
    main()
