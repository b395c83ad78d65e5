"""Single weights as units on MNIST: the MLP 784-300-100 and LeNet-5-Caffe under budgets of parameters.

    python benchmarks/weights_mnist.py --model mlp --max-params 3918 --out weights_mlp.json
    python benchmarks/weights_mnist.py --model lenet5-caffe --max-params 1540 --out weights_lenet.json

"learned" against masks of the same budget by weight magnitude, by stage 1's saliency and at random, and "coupled",
where channels, neurons and features leave instead.  Whole jobs with the defaults, one process, the last epoch; the
test split is read once, at the end.
"""

import argparse
from pathlib import Path

import torch
from _jobs import run_job
from _results import save, summary

from npn_core.config import Budget, CatalogueModel, Training


def main() -> None:
    """Run, print a line each, save JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dataset", type=Path, default=Path("../shared/data/mnist.npz"))
    parser.add_argument("--model", choices=["mlp", "lenet5-caffe"], required=True)
    parser.add_argument("--max-params", type=int, required=True)
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument(
        "--runs", nargs="+", default=["learned", "magnitude", "saliency", "random", "coupled"]
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    model, budget = CatalogueModel(name=arguments.model), Budget(max_params=arguments.max_params)
    results = []
    for seed in arguments.seeds:
        for run in arguments.runs:
            coupled = run == "coupled"
            training = Training(
                epochs=arguments.epochs,
                seed=seed,
                threads=arguments.threads,
                units="coupled" if coupled else "weights",
                mask="learned" if coupled else run,
            )
            results.append({"run": run, **run_job(model, arguments.dataset, training, budget)})
            save(arguments.out, results)
    for row in summary(results):
        print(row)


if __name__ == "__main__":
    main()
