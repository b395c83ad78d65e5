"""DenseNet-BC for CIFAR (Huang et al., arXiv:1608.06993)."""

import torch
from torch import Tensor, nn

from .images import check_image, initialise_he


class DenseLayer(nn.Module):
    """Adds `growth` channels, made through a 1x1 bottleneck of four times as many.

    (N, C, H, W) -> (N, C + growth, H, W)
    """

    def __init__(self, channels: int, growth: int, dropout: float) -> None:
        super().__init__()
        inner = 4 * growth
        self.bn1 = nn.BatchNorm2d(channels)
        self.relu1 = nn.ReLU()
        self.conv1 = nn.Conv2d(channels, inner, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(inner)
        self.relu2 = nn.ReLU()
        self.conv2 = nn.Conv2d(inner, growth, 3, padding=1, bias=False)
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """The input's channels, then the new ones."""
        new = self.conv1(self.relu1(self.bn1(x)))
        new = self.conv2(self.relu2(self.bn2(new)))
        return torch.cat([x, self.dropout(new)], 1)


class Transition(nn.Module):
    """Fewer channels by a 1x1 convolution, fewer pixels by pooling: (N, C, H, W) -> (N, width, H/2, W/2)."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU()
        self.conv = nn.Conv2d(channels, width, 1, bias=False)
        self.pool = nn.AvgPool2d(2)

    def forward(self, x: Tensor) -> Tensor:
        """The transition's output."""
        return self.pool(self.conv(self.relu(self.bn(x))))  # type: ignore[no-any-return]


class DenseNet(nn.Module):
    """A stem, three dense blocks of `layers` layers with transitions between them, and a linear head."""

    def __init__(
        self, channels: int, classes: int, *, layers: int, growth: int, compression: float, dropout: float
    ) -> None:
        super().__init__()
        width = 2 * growth
        self.conv1 = nn.Conv2d(channels, width, 3, padding=1, bias=False)
        blocks: list[nn.Module] = []
        for block in range(3):
            if block:
                narrow = max(1, int(compression * width))
                blocks.append(Transition(width, narrow))
                width = narrow
            dense = [DenseLayer(width + number * growth, growth, dropout) for number in range(layers)]
            blocks.append(nn.Sequential(*dense))
            width += layers * growth
        self.block1, self.transition1, self.block2, self.transition2, self.block3 = blocks
        self.bn = nn.BatchNorm2d(width)
        self.relu = nn.ReLU()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.fc = nn.Linear(width, classes)
        initialise_he(self)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, classes) of images (N, C, H, W)."""
        x = self.transition1(self.block1(self.conv1(x)))
        x = self.block3(self.transition2(self.block2(x)))
        x = self.pool(self.relu(self.bn(x)))
        return self.fc(self.flatten(x))  # type: ignore[no-any-return]


def densenet_bc(
    input_shape: tuple[int, ...],
    classes: int,
    *,
    depth: int,
    growth: int,
    compression: float,
    dropout: float,
) -> nn.Module:
    """`depth` is 6 n + 4 for n bottleneck layers a block."""
    return DenseNet(
        check_image("densenet-bc", input_shape, 8),
        classes,
        layers=(depth - 4) // 6,
        growth=growth,
        compression=compression,
        dropout=dropout,
    )
