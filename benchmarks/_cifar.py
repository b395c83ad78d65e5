"""CIFAR-10 in plain PyTorch, without the project's training code: what a compressed network is compared with."""

import io
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from npn_core.catalogue import build
from npn_core.device import mixed_precision
from npn_core.precision import BFLOAT16_FROM, bfloat16_is_faster
from npn_core.recount import count

BATCH, PADDING = 128, 4
OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "sgd": partial(torch.optim.SGD, momentum=0.9, nesterov=True, weight_decay=5e-4, fused=True),
    "adam": partial(torch.optim.Adam, fused=True),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Images:
    """uint8 images (N, 3, 32, 32), labels (N,), and, on a device, the mean and deviation of the set's channels."""

    images: Tensor
    labels: Tensor
    mean: Tensor
    std: Tensor

    def standardised(self, x: Tensor) -> Tensor:
        """Images as a network takes them, channels innermost in memory."""
        x = (x.to(self.mean.device).float() - self.mean) / self.std
        return x.contiguous(memory_format=torch.channels_last)


def read(folder: Path, split: str) -> tuple[Tensor, Tensor]:
    """uint8 images (N, 3, 32, 32) and labels (N,) of a split."""
    table = pyarrow.parquet.read_table(sorted(str(p) for p in folder.glob(f"{split}-*.parquet")))
    images = [np.asarray(Image.open(io.BytesIO(row["bytes"]))) for row in table["img"].to_pylist()]
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2), torch.tensor(table["label"].to_pylist())


def training_images(
    folder: Path, generator: torch.Generator, device: torch.device, samples: int | None = None
) -> Images:
    """The training split less a random tenth, as the service keeps for validation; the first `samples` of it."""
    images, labels = read(folder, "train")
    order = torch.randperm(len(images), generator=generator)[len(images) // 10 :][:samples]
    images, labels = images[order], labels[order]
    mean, std = (f(images.float(), (0, 2, 3)).view(1, 3, 1, 1).to(device) for f in (torch.mean, torch.std))
    return Images(images=images, labels=labels, mean=mean, std=std)


def crop_flip(x: Tensor, generator: torch.Generator, padding: int) -> Tensor:
    """A crop of each image padded by so many black pixels, mirrored or not."""
    n, _, height, width = x.shape
    padded = F.pad(x, (padding,) * 4)
    top, left = (torch.randint(2 * padding + 1, (n, 1), generator=generator) for _ in range(2))
    columns = torch.arange(width) + left
    flipped = torch.rand(n, 1, generator=generator) < 0.5
    columns = torch.where(flipped, columns.flip(1), columns)
    rows = torch.arange(height) + top
    which = torch.arange(n)[:, None, None]
    return padded[which, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def place(module: nn.Module, device: torch.device) -> None:
    """On the device, with the channels of convolutions innermost in memory."""
    module.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]


class Fit:
    """Training by `optimizer` over half a cosine from `lr` to 0: crops, flips, batches of 128.

    The last `uncropped` epochs are with flips alone.  `precision` "auto" is the one that is faster, as the service's.
    """

    def __init__(
        self,
        module: nn.Module,
        data: Images,
        generator: torch.Generator,
        *,
        epochs: int,
        optimizer: str,
        lr: float,
        uncropped: int = 0,
        precision: str = "auto",
    ) -> None:
        self.module, self.data, self.epochs, self.lr = module.train(), data, epochs, lr
        self.uncropped = uncropped
        self.device = next(module.parameters()).device
        gains = precision == "auto" and bfloat16_is_faster(self.device, BFLOAT16_FROM)
        self.precision = "bfloat16" if gains else precision
        self.optimizer = OPTIMIZERS[optimizer](module.parameters(), lr=lr)
        self.generator = generator
        self.steps = epochs * math.ceil(len(data.images) / BATCH)
        self.step = 0

    def run(self) -> float:
        """All epochs, a line each; the seconds that they took."""
        started = time.perf_counter()
        for epoch in range(self.epochs):
            loss = self.epoch(PADDING if epoch < self.epochs - self.uncropped else 0)
            print(epoch + 1, f"{loss:.3f}", f"{time.perf_counter() - started:.0f} s", flush=True)
        return time.perf_counter() - started

    def epoch(self, padding: int) -> float:
        """The loss of the last batch; crops are of images padded by so many pixels."""
        loss = torch.zeros(())
        for chosen in torch.randperm(len(self.data.images), generator=self.generator).split(BATCH):
            x = crop_flip(self.data.images[chosen], self.generator, padding)
            x, y = self.data.standardised(x), self.data.labels[chosen].to(self.device)
            factor = 0.5 * (1 + math.cos(math.pi * self.step / self.steps))
            self.optimizer.param_groups[0]["lr"] = self.lr * factor
            self.optimizer.zero_grad()
            with mixed_precision(self.device, self.precision):
                loss = F.cross_entropy(self.module(x), y)
            loss.backward()
            self.regularise()
            self.optimizer.step()
            self.step += 1
        return loss.item()

    def regularise(self) -> None:
        """What a pruner adds to the gradients; nothing here."""


def test_accuracy(module: nn.Module, data: Images, folder: Path) -> float:
    """The share of the test images that the network in evaluation mode has right."""
    module.eval()
    x, y = read(folder, "test")
    with torch.no_grad():
        batches = zip(x.split(500), y.split(500), strict=True)
        right = sum(int((module(data.standardised(a)).argmax(1).cpu() == b).sum()) for a, b in batches)
    return right / len(y)


def plain(
    model: str,
    params: Mapping[str, str],
    dataset: Path,
    *,
    seed: int,
    device: str = "cpu",
    keep: Path | None = None,
    **options: Any,
) -> dict[str, Any]:
    """A network of the catalogue trained from scratch, and measured on the test split; its weights go to `keep`.

    `options` are those of Fit.
    """
    generator = torch.Generator().manual_seed(seed)
    data = training_images(dataset, generator, torch.device(device))
    module = build(model, params, input_shape=(3, 32, 32), classes=10, seed=seed)
    place(module, torch.device(device))
    fit = Fit(module, data, generator, **options)
    seconds = fit.run()
    if keep is not None:
        torch.save(module.state_dict(), keep)
    cost = count(module.eval(), (torch.zeros(1, 3, 32, 32, device=device),))
    return {
        "model": model,
        "params": cost.params,
        "macs": cost.macs,
        "widths": dict(params),
        "seed": seed,
        **options,
        "precision": fit.precision,
        "test": test_accuracy(module, data, dataset),
        "seconds": seconds,
        "samples_per_second": len(data.images) * fit.epochs / seconds,
    }
