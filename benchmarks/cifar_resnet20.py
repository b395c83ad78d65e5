"""ResNet-20 on CIFAR-10 at half its multiply-adds: learned gates, a mask drawn at random, and dense training.

    python benchmarks/cifar_resnet20.py --dataset ../shared/data/cifar10 --out cifar_resnet20.json
    python benchmarks/cifar_resnet20.py --epochs 40 --runs learned dense --seeds 0 1 2 --threads 2 --out cifar_half.json

Whole jobs in one process, the defaults of `npn compress resnet20 --max-macs 20M --epochs 30 --augment crop-flip`; on a
GPU with `--device cuda`.
"dense" is the whole network as `cifar_plain.py` trains it, for as many epochs; a small one from scratch is that one's.
The test split is read once, at the end.
"""

import argparse
from pathlib import Path
from typing import Any

import torch
from _cifar import plain
from _jobs import run_job
from _results import print_ratios, save

from npn_core.config import Budget, CatalogueModel, Training


def dense(arguments: argparse.Namespace, seed: int) -> dict[str, Any]:
    """The whole network in plain PyTorch."""
    options = {"epochs": arguments.epochs, "optimizer": "sgd", "lr": 0.1}
    return plain(arguments.model, {}, arguments.dataset, seed=seed, device=arguments.device, **options)


def job(arguments: argparse.Namespace, mask: str, seed: int) -> dict[str, Any]:
    """A job with the method's defaults, but for the mask."""
    training = Training(
        epochs=arguments.epochs,
        augment="crop-flip",
        seed=seed,
        threads=arguments.threads,
        round_to=arguments.round_to,
        mask=mask,
    )
    budget, model = Budget(max_macs=arguments.max_macs), CatalogueModel(name=arguments.model)
    return run_job(model, arguments.dataset, training, budget, say=True, device=arguments.device)


def main() -> None:
    """Run, print a line each, save JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dataset", type=Path, default=Path("../shared/data/cifar10"))
    parser.add_argument("--model", default="resnet20")
    parser.add_argument("--runs", nargs="+", default=["learned", "random", "dense"])
    parser.add_argument("--max-macs", type=int, default=20_000_000)
    parser.add_argument("--round-to", type=int, default=1)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    results = []
    for seed in arguments.seeds:
        for run in arguments.runs:
            found = dense(arguments, seed) if run == "dense" else job(arguments, run, seed)
            results.append({"run": run, **found})
            save(arguments.out, results)
    print_ratios(results, ("dense",))


if __name__ == "__main__":
    main()
