"""Networks of the catalogue on CIFAR-10 in plain PyTorch: what a compressed one is compared with.

    python benchmarks/cifar_plain.py --dataset ../shared/data/cifar10 --out cifar_dense.json
    python benchmarks/cifar_plain.py --dataset ../shared/data/cifar10 --params widths=11,22,45 --out cifar_small.json

None of the project's training code: Parquet read with pyarrow and Pillow, crops and flips, SGD (Nesterov momentum 0.9,
weight decay 5e-4) or Adam with a half cosine from `--lr` to 0, batches of 128, the last epoch; in bfloat16 on a GPU
(`--device cuda`), as the service.  A seeded tenth of the training images is left out, as the service leaves it out for
validation, so both see equally many.  The test images are read once.  `--uncropped` ends the crops before the training,
as the service does.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from _cifar import OPTIMIZERS, Fit, test_accuracy, training_images
from _machine import machine

from npn_core.catalogue import build


def train(arguments: argparse.Namespace) -> dict[str, Any]:
    """Train, then measure on the test split."""
    generator, device = torch.Generator().manual_seed(arguments.seed), torch.device(arguments.device)
    data = training_images(arguments.dataset, generator, device)
    params = dict(pair.split("=") for pair in arguments.params)
    module = build(arguments.model, params, input_shape=(3, 32, 32), classes=10, seed=arguments.seed)
    module.to(device, memory_format=torch.channels_last)
    options = {name: getattr(arguments, name) for name in ("epochs", "optimizer", "lr", "uncropped")}
    seconds = Fit(module, data, generator, **options).run()
    if arguments.save:
        torch.save(module.state_dict(), arguments.save)
    return {
        "model": arguments.model,
        "params": params,
        "parameters": sum(p.numel() for p in module.parameters()),
        "seed": arguments.seed,
        **options,
        "test": test_accuracy(module, data, arguments.dataset),
        "seconds": seconds,
        "samples_per_second": len(data.images) * arguments.epochs / seconds,
    }


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
    parser.add_argument("--save", type=Path, help="The weights, for cifar_pruners.py.")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    result = train(arguments)
    print(json.dumps(result), flush=True)
    if arguments.out:
        arguments.out.write_text(json.dumps({"machine": machine(), "results": [result]}, indent=2))


if __name__ == "__main__":
    main()
