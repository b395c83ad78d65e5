"""Augmentation on the fly: random crops and flips of a batch of images, drawn from the order's generator."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from npn_core.errors import InvalidInput
from npn_core.progress import DatasetInfo

PADDING = 4


def image_input(info: DatasetInfo) -> int:
    """Position of the one input that crop-flip is for; raises InvalidInput where the dataset is not for it."""
    images = [
        at
        for at, one in enumerate(info.inputs)
        if len(one.shape) == 3 and (one.dtype == "uint8" or one.dtype.startswith("float"))
    ]
    if len(images) != 1:
        shapes = ", ".join(str(one.shape) for one in info.inputs[:5])
        raise InvalidInput(
            "training.augment",
            f"augment crop-flip is for datasets with one input of images C,H,W; samples have shape {shapes}",
        )
    if len(info.target_shape) > 1 or (info.target == "classes" and info.target_shape):
        raise InvalidInput(
            "training.augment",
            f"augment crop-flip moves pixels, and targets of shape {info.target_shape} would stay in place",
        )
    return images[0]


def check_augment(info: DatasetInfo, augment: str) -> None:
    """Raise InvalidInput on "training.augment" where `augment` is not for this dataset."""
    if augment != "none":
        image_input(info)


@dataclass(frozen=True, kw_only=True, slots=True)
class CropFlip:
    """Where each of n images is cropped, and whether it is flipped: (n,) each."""

    top: Tensor
    left: Tensor
    flipped: Tensor

    @classmethod
    def draw(cls, n: int, generator: torch.Generator) -> "CropFlip":
        """At random."""
        top, left = torch.randint(0, 2 * PADDING + 1, (2, n), generator=generator)
        return cls(top=top, left=left, flipped=torch.rand(n, generator=generator) < 0.5)

    def to(self, device: torch.device) -> "CropFlip":
        """The same for images on `device`."""
        return CropFlip(top=self.top.to(device), left=self.left.to(device), flipped=self.flipped.to(device))

    def of(self, x: Tensor) -> Tensor:
        """Each image of `x` (N,C,H,W) padded by 4 raw zeros, cropped back, and flipped or not.

        The padding is 0 before standardising: black for uint8, the mean for floats that are standardised already
        (He et al., "Deep Residual Learning", arXiv:1512.03385, section 4.2).
        """
        n, _, height, width = x.shape
        windows = F.pad(x, [PADDING] * 4).unfold(2, height, 1).unfold(3, width, 1)
        cropped = windows[torch.arange(n, device=x.device), :, self.top, self.left]
        return torch.where(self.flipped.view(-1, 1, 1, 1), cropped.flip(3), cropped)
