"""LeNet-5-Caffe on MNIST under a parameter budget: accuracy and time against the dense network and three baselines.

    python benchmarks/lenet_mnist.py --dataset ../shared/data/mnist.npz --out lenet_mnist.json
    python benchmarks/lenet_mnist.py --dataset ../shared/data/mnist.npz --max-params 2700 --max-macs 158000 \
        --epochs 60 --seeds 0 --runs learned dense dense-bfloat16 --out lenet_time.json

For each seed: the job with learned gates, the same job with its mask drawn at random, by weight magnitude, and
by stage 1's saliency alone (equal budget, epochs and fine-tuning), and dense training for as many epochs: plain, in
channels-last format, and in bfloat16, too.  All in one process on `--threads` threads; the test split is read once, at
the end of each run.
"""

import argparse
import time
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from _jobs import run_job
from _results import print_ratios, save, summary

from npn_core.catalogue import build
from npn_core.config import Budget, CatalogueModel, Training
from npn_core.data import load_dataset, load_test
from npn_core.device import CPU, mixed_precision
from npn_core.gated import channels_last

ARCHITECTURE = "lenet5-caffe"
DENSE = ("dense", "dense-channels-last", "dense-bfloat16")


def dense(dataset: Path, training: Training, run: str) -> dict[str, Any]:
    """Plain PyTorch: the whole network, torch's fused Adam, no validation on the way.

    "dense" is what a user writes; "dense-channels-last" has the memory format that the service uses, "dense-bfloat16"
    its precision, too.
    """
    arrange = torch.Tensor.contiguous if run == "dense" else channels_last
    precision = "bfloat16" if run == "dense-bfloat16" else "float32"
    data = load_dataset(dataset, layout="", preprocessing=training.preprocessing, seed=training.seed)
    shape, classes = data.info.input_shape, data.info.classes
    module = build(ARCHITECTURE, {}, input_shape=shape, classes=classes, seed=training.seed)
    optimizer = torch.optim.Adam(module.parameters(), lr=1e-3, fused=True)
    generator = torch.Generator().manual_seed(training.seed)
    started = time.perf_counter()
    for _ in range(training.epochs):
        for batch in data.batches(training.batch_size, generator):
            optimizer.zero_grad()
            with mixed_precision(CPU, precision):
                loss = F.cross_entropy(module(arrange(batch.x[0])), batch.target)
            loss.backward()
            optimizer.step()
    seconds = time.perf_counter() - started
    test = load_test(dataset, layout="", preprocessing=data.preprocessing)
    with torch.no_grad():
        right = sum(int((module(batch.x[0]).argmax(1) == batch.y).sum()) for batch in test.batches())
    return {"seed": training.seed, "seconds": seconds, "test": right / len(test)}


def main() -> None:
    """Run, print a line each, save JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dataset", type=Path, default=Path("../shared/data/mnist.npz"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument(
        "--runs",
        nargs="+",
        default=["learned", *DENSE, "random", "magnitude", "saliency"],
    )
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--max-params", type=int, default=10_000)
    parser.add_argument("--max-macs", type=int)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    results = []
    for seed in arguments.seeds:
        for run in arguments.runs:
            mask = "learned" if run.startswith("dense") else run
            training = Training(epochs=arguments.epochs, seed=seed, threads=arguments.threads, mask=mask)
            budget = Budget(max_params=arguments.max_params, max_macs=arguments.max_macs)
            if run.startswith("dense"):
                found = dense(arguments.dataset, training, run)
            else:
                found = run_job(CatalogueModel(name=ARCHITECTURE), arguments.dataset, training, budget)
            results.append({"run": run, **found})
            save(arguments.out, results)
    for row in summary(results):
        print(row)
    print_ratios(results, DENSE)


if __name__ == "__main__":
    main()
