"""ResNet-20 on CIFAR-10 at half its multiply-adds: learned gates, and a mask drawn at random.

    python benchmarks/cifar_resnet20.py --dataset ../shared/data/cifar10 --out cifar_resnet20.json

Whole jobs in one process, the defaults of `npn compress resnet20 --max-macs 20M --epochs 30 --augment crop-flip`; on a
GPU with `--device cuda`.
Dense training and a small network from scratch are `cifar_plain.py`'s.  The test split is read once, at the end.
"""

import argparse
from pathlib import Path

import torch
from _jobs import run_job
from _results import save

from npn_core.config import Budget, CatalogueModel, Training


def main() -> None:
    """Run, print a line each, save JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dataset", type=Path, default=Path("../shared/data/cifar10"))
    parser.add_argument("--model", default="resnet20")
    parser.add_argument("--runs", nargs="+", default=["learned", "random"])
    parser.add_argument("--max-macs", type=int, default=20_000_000)
    parser.add_argument("--round-to", type=int, default=1)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    results = []
    for mask in arguments.runs:
        training = Training(
            epochs=arguments.epochs,
            augment="crop-flip",
            seed=arguments.seed,
            threads=arguments.threads,
            round_to=arguments.round_to,
            mask=mask,
        )
        budget = Budget(max_macs=arguments.max_macs)
        model, device = CatalogueModel(name=arguments.model), arguments.device
        found = run_job(model, arguments.dataset, training, budget, say=True, device=device)
        results.append({"run": mask, **found})
        save(arguments.out, results)


if __name__ == "__main__":
    main()
