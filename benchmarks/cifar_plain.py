"""Networks of the catalogue on CIFAR-10 in plain PyTorch: what a compressed one is compared with.

    python benchmarks/cifar_plain.py --dataset ../shared/data/cifar10 --out cifar_dense.json
    python benchmarks/cifar_plain.py --dataset ../shared/data/cifar10 --params widths=11,22,45 --out cifar_small.json

None of the project's training code: Parquet read with pyarrow and Pillow, crops and flips, SGD (Nesterov momentum 0.9,
weight decay 5e-4) or Adam with a half cosine from `--lr` to 0, batches of 128, the last epoch; in bfloat16 on a GPU
(`--device cuda`), as the service.  A seeded tenth of the training images is left out, as the service leaves it out for
validation, so both see equally many.  The test images are read once.
"""

import argparse
import io
import json
import math
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import torch
import torch.nn.functional as F
from _machine import machine
from PIL import Image
from torch import Tensor

from npn_core.catalogue import build

OPTIMIZERS = {
    "sgd": partial(torch.optim.SGD, momentum=0.9, nesterov=True, weight_decay=5e-4, fused=True),
    "adam": partial(torch.optim.Adam, fused=True),
}


def read(folder: Path, split: str) -> tuple[Tensor, Tensor]:
    """uint8 images (N, 3, 32, 32) and labels (N,) of a split."""
    table = pyarrow.parquet.read_table(sorted(str(p) for p in folder.glob(f"{split}-*.parquet")))
    images = [np.asarray(Image.open(io.BytesIO(row["bytes"]))) for row in table["img"].to_pylist()]
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2), torch.tensor(table["label"].to_pylist())


def crop_flip(x: Tensor, generator: torch.Generator) -> Tensor:
    """A crop of each image padded by 4 black pixels, mirrored or not."""
    n, _, height, width = x.shape
    padded = F.pad(x, (4, 4, 4, 4))
    top, left = (torch.randint(9, (n, 1), generator=generator) for _ in range(2))
    columns = torch.arange(width) + left
    flipped = torch.rand(n, 1, generator=generator) < 0.5
    columns = torch.where(flipped, columns.flip(1), columns)
    rows = torch.arange(height) + top
    which = torch.arange(n)[:, None, None]
    return padded[which, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def train(arguments: argparse.Namespace) -> dict[str, Any]:
    """Train, then measure on the test split."""
    images, labels = read(arguments.dataset, "train")
    generator = torch.Generator().manual_seed(arguments.seed)
    order = torch.randperm(len(images), generator=generator)[len(images) // 10 :]
    images, labels = images[order], labels[order]
    mean, std = (f(images.float(), (0, 2, 3)).view(1, 3, 1, 1) for f in (torch.mean, torch.std))
    params = dict(pair.split("=") for pair in arguments.params)
    module = build(arguments.model, params, input_shape=(3, 32, 32), classes=10, seed=arguments.seed)
    device = torch.device(arguments.device)
    module.to(device, memory_format=torch.channels_last)
    mean, std = mean.to(device), std.to(device)
    optimizer = OPTIMIZERS[arguments.optimizer](module.parameters(), lr=arguments.lr)
    steps, step, started = arguments.epochs * math.ceil(len(images) / 128), 0, time.perf_counter()
    for epoch in range(arguments.epochs):
        for chosen in torch.randperm(len(images), generator=generator).split(128):
            x = (crop_flip(images[chosen], generator).to(device).float() - mean) / std
            x, y = x.contiguous(memory_format=torch.channels_last), labels[chosen].to(device)
            optimizer.param_groups[0]["lr"] = arguments.lr * 0.5 * (1 + math.cos(math.pi * step / steps))
            optimizer.zero_grad()
            with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
                loss = F.cross_entropy(module(x), y)
            loss.backward()
            optimizer.step()
            step += 1
        print(epoch + 1, f"{loss.item():.3f}", f"{time.perf_counter() - started:.0f} s", flush=True)
    seconds = time.perf_counter() - started
    module.eval()
    x, y = read(arguments.dataset, "test")
    with torch.no_grad():
        right = sum(
            int((module((a.to(device).float() - mean) / std).argmax(1).cpu() == b).sum())
            for a, b in zip(x.split(500), y.split(500), strict=True)
        )
    return {
        "model": arguments.model,
        "params": params,
        "parameters": sum(p.numel() for p in module.parameters()),
        "seed": arguments.seed,
        "epochs": arguments.epochs,
        "optimizer": arguments.optimizer,
        "lr": arguments.lr,
        "test": right / len(y),
        "seconds": seconds,
        "samples_per_second": len(images) * arguments.epochs / seconds,
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
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    result = train(arguments)
    print(json.dumps(result), flush=True)
    if arguments.out:
        arguments.out.write_text(json.dumps({"machine": machine(), "results": [result]}, indent=2))


if __name__ == "__main__":
    main()
