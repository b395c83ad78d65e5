"""ConvNeXt (Liu et al., arXiv:2201.03545) with a stem for CIFAR's 32x32 pixels.

Without stochastic depth, which the paper trains with.
"""

import torch
from torch import Tensor, nn

from .images import chain, check_image, initialise_truncated

EPSILON = 1e-6
LAYER_SCALE = 1e-6


class ChannelNorm(nn.LayerNorm):
    """LayerNorm over the channels of each pixel: (N, C, H, W) to the same shape."""

    def forward(self, x: Tensor) -> Tensor:
        """The normed pixels."""
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Block(nn.Module):
    """A 7x7 depthwise convolution and an MLP on each pixel beside a shortcut; (N, C, H, W) stays."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(width, width, 7, padding=3, groups=width)
        self.norm = nn.LayerNorm(width, eps=EPSILON)
        self.pwconv1 = nn.Linear(width, 4 * width)
        self.act = nn.GELU()
        self.pwconv2 = nn.Linear(4 * width, width)
        self.gamma = nn.Parameter(torch.full((width,), LAYER_SCALE))

    def forward(self, x: Tensor) -> Tensor:
        """The block's output."""
        y: Tensor = self.dwconv(x)
        y = self.norm(y.permute(0, 2, 3, 1))
        y = self.pwconv2(self.act(self.pwconv1(y)))
        return x + (self.gamma * y).permute(0, 3, 1, 2)


class ConvNeXt(nn.Module):
    """Four stages, each after a patch-wise downsampling, and a linear head on the pooled channels."""

    def __init__(
        self, channels: int, classes: int, *, patch: int, depths: tuple[int, ...], dims: tuple[int, ...]
    ) -> None:
        super().__init__()
        self.stem = chain(
            conv=nn.Conv2d(channels, dims[0], patch, stride=patch), norm=ChannelNorm(dims[0], eps=EPSILON)
        )
        stages: list[nn.Module] = []
        for number, (depth, dim) in enumerate(zip(depths, dims, strict=True)):
            blocks = nn.Sequential(*(Block(dim) for _ in range(depth)))
            if number:
                before = dims[number - 1]
                down = chain(norm=ChannelNorm(before, eps=EPSILON), conv=nn.Conv2d(before, dim, 2, stride=2))
                stages.append(chain(down=down, blocks=blocks))
            else:
                stages.append(chain(blocks=blocks))
        self.stages = nn.Sequential(*stages)
        self.norm = nn.LayerNorm(dims[-1], eps=EPSILON)
        self.head = nn.Linear(dims[-1], classes)
        initialise_truncated(self)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, classes) of images (N, C, H, W)."""
        x = self.stages(self.stem(x)).mean([-2, -1])
        return self.head(self.norm(x))  # type: ignore[no-any-return]


def convnext(
    input_shape: tuple[int, ...],
    classes: int,
    *,
    patch: int,
    depths: tuple[int, ...],
    dims: tuple[int, ...],
) -> nn.Module:
    """`patch` is the side of the stem's patches; three more downsamplings by 2 follow."""
    channels = check_image("convnext-tiny-cifar", input_shape, 8 * patch)
    return ConvNeXt(channels, classes, patch=patch, depths=depths, dims=dims)
