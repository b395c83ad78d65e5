"""Networks of the catalogue on CIFAR-10 in plain PyTorch: what a compressed one is compared with.

    python benchmarks/cifar_plain.py --dataset ../shared/data/cifar10 --out cifar_dense.json
    python benchmarks/cifar_plain.py --dataset ../shared/data/cifar10 --params widths=11,22,46 --out cifar_small.json

None of the project's training code: Parquet read with pyarrow and Pillow, crops and flips, SGD (Nesterov momentum 0.9,
weight decay 5e-4) or Adam with a half cosine from `--lr` to 0, batches of 128, the last epoch; in the precision
that is faster, as the service.  A seeded tenth of the training images is left out, as the service leaves it out for
validation, so both see equally many.  The test images are read once.  `--uncropped` ends the crops before the training,
as the service does.
"""

import argparse
from pathlib import Path

import torch
from _cifar import OPTIMIZERS, plain
from _results import save

from npn_core.config import PRECISIONS


def main() -> None:
    """Run, print, save JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dataset", type=Path, default=Path("../shared/data/cifar10"))
    parser.add_argument("--model", default="resnet20")
    parser.add_argument("--params", nargs="*", default=[])
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--optimizer", choices=OPTIMIZERS, default="sgd")
    parser.add_argument("--lr", type=float, default=0.1)
    parser.add_argument("--uncropped", type=int, default=0, help="The last epochs, with flips alone.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", choices=PRECISIONS, default="auto")
    parser.add_argument("--keep", type=Path, help="The weights, for cifar_pruners.py.")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    names = ("seed", "device", "keep", "epochs", "optimizer", "lr", "uncropped", "precision")
    options = {name: getattr(arguments, name) for name in names}
    params = dict(pair.split("=") for pair in arguments.params)
    run = "small from scratch" if params else "dense"
    save(arguments.out, [{"run": run, **plain(arguments.model, params, arguments.dataset, **options)}])


if __name__ == "__main__":
    main()
