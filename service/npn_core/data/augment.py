"""Augmentation on the fly: random crops and flips of a batch of images, drawn from the order's generator.

Crops show a network images moved, with a black edge, and validation shows it none of that.  The last epochs go without
them, and what it learned from them stays (Ge et al., "YOLOX", arXiv:2107.08430, end theirs so; docs/results.md).
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from npn_core.errors import InvalidInput
from npn_core.progress import DatasetInfo

PADDED = 8  # images are padded by this part of their sides before they are cropped: by 4 of 32 pixels
WITHOUT_CROPS = {"crop": "none", "crop-flip": "flip"}
FLIPS = frozenset({"flip", "crop-flip"})


def at_last(augment: str) -> str:
    """What is left of an augmentation in the last epochs."""
    return WITHOUT_CROPS.get(augment, augment)


def padding_of(augment: str, height: int, width: int) -> tuple[int, int]:
    """Above and below, left and right: so many pixels are added before an image is cropped."""
    if augment not in WITHOUT_CROPS:
        return 0, 0
    return max(1, height // PADDED), max(1, width // PADDED)


def image_input(info: DatasetInfo, augment: str) -> int:
    """Position of the one input that `augment` is for; raises InvalidInput where the dataset is not for it."""
    images = [
        at
        for at, one in enumerate(info.inputs)
        if len(one.shape) == 3 and (one.dtype == "uint8" or one.dtype.startswith("float"))
    ]
    if len(images) != 1:
        shapes = ", ".join(str(one.shape) for one in info.inputs[:5])
        raise InvalidInput(
            "training.augment",
            f"augment {augment} is for datasets with one input of images C,H,W; samples have shape {shapes}",
        )
    if len(info.target_shape) > 1 or (info.target == "classes" and info.target_shape):
        raise InvalidInput(
            "training.augment",
            f"augment {augment} moves pixels, and targets of shape {info.target_shape} would stay in place",
        )
    return images[0]


def check_augment(info: DatasetInfo, augment: str) -> None:
    """Raise InvalidInput on "training.augment" where `augment` is not for this dataset."""
    if augment != "none":
        image_input(info, augment)


@dataclass(frozen=True, kw_only=True, slots=True)
class CropFlip:
    """Where each of n images, padded by `padding` pixels, is cropped, and whether it is flipped: (n,) each."""

    top: Tensor
    left: Tensor
    flipped: Tensor
    padding: tuple[int, int]

    @classmethod
    def draw(cls, n: int, generator: torch.Generator, augment: str, shape: tuple[int, ...]) -> "CropFlip":
        """At random, for images of `shape` C,H,W."""
        _, height, width = shape
        rows, columns = padding_of(augment, height, width)
        top = torch.randint(2 * rows + 1, (n,), generator=generator)
        left = torch.randint(2 * columns + 1, (n,), generator=generator)
        flipped = (torch.rand(n, generator=generator) < 0.5) & (augment in FLIPS)
        return cls(top=top, left=left, flipped=flipped, padding=(rows, columns))

    def to(self, device: torch.device) -> "CropFlip":
        """The same for images on `device`."""
        top, left, flipped = (one.to(device) for one in (self.top, self.left, self.flipped))
        return CropFlip(top=top, left=left, flipped=flipped, padding=self.padding)

    def of(self, x: Tensor) -> Tensor:
        """Each image of `x` (N,C,H,W) padded by raw zeros, cropped back, and flipped or not.

        The padding is 0 before standardising: black for uint8, the mean for floats that are standardised already
        (He et al., "Deep Residual Learning", arXiv:1512.03385, section 4.2).
        """
        n, _, height, width = x.shape
        rows, columns = self.padding
        padded = F.pad(x, (columns, columns, rows, rows))
        windows = padded.unfold(2, height, 1).unfold(3, width, 1)
        cropped = windows[torch.arange(n, device=x.device), :, self.top, self.left]
        return torch.where(self.flipped.view(-1, 1, 1, 1), cropped.flip(3), cropped)
