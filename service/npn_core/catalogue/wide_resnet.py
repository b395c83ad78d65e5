"""Wide residual networks (Zagoruyko and Komodakis, arXiv:1605.07146)."""

from collections.abc import Iterator

from torch import Tensor, nn

from .images import check_image, initialise_he


class WideBlock(nn.Module):
    """Norm, activation and 3x3 convolution twice: (N, C, H, W) -> (N, width, H / stride, W / stride).

    Where the number of channels changes, the shortcut is a 1x1 convolution of the activated input, as in the
    authors' code.
    """

    def __init__(self, channels: int, width: int, stride: int, dropout: float) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(channels)
        self.relu1 = nn.ReLU()
        self.conv1 = nn.Conv2d(channels, width, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.relu2 = nn.ReLU()
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.shortcut: nn.Module | None = None
        if stride != 1 or channels != width:
            self.shortcut = nn.Conv2d(channels, width, 1, stride=stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """The block's output, not activated."""
        activated = self.relu1(self.bn1(x))
        residual = self.relu2(self.bn2(self.conv1(activated)))
        residual = self.conv2(self.dropout(residual))
        return residual + (x if self.shortcut is None else self.shortcut(activated))  # type: ignore[no-any-return]


class WideResNet(nn.Module):
    """A stem of 16 channels, three stages of `blocks` blocks, and a linear head on the pooled channels."""

    def __init__(
        self, channels: int, classes: int, *, blocks: int, widths: tuple[int, ...], dropout: float
    ) -> None:
        super().__init__()
        stem = 16
        self.conv1 = nn.Conv2d(channels, stem, 3, padding=1, bias=False)
        self.layer1 = nn.Sequential(*_stage(stem, widths[0], blocks, stride=1, dropout=dropout))
        self.layer2 = nn.Sequential(*_stage(widths[0], widths[1], blocks, stride=2, dropout=dropout))
        self.layer3 = nn.Sequential(*_stage(widths[1], widths[2], blocks, stride=2, dropout=dropout))
        self.bn = nn.BatchNorm2d(widths[2])
        self.relu = nn.ReLU()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.fc = nn.Linear(widths[2], classes)
        initialise_he(self)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, classes) of images (N, C, H, W)."""
        x = self.layer3(self.layer2(self.layer1(self.conv1(x))))
        x = self.pool(self.relu(self.bn(x)))
        return self.fc(self.flatten(x))  # type: ignore[no-any-return]


def _stage(channels: int, width: int, blocks: int, *, stride: int, dropout: float) -> Iterator[WideBlock]:
    yield WideBlock(channels, width, stride, dropout)
    for _ in range(blocks - 1):
        yield WideBlock(width, width, 1, dropout)


def wide_resnet(
    input_shape: tuple[int, ...], classes: int, *, depth: int, widen: float, dropout: float
) -> nn.Module:
    """`depth` is 6 n + 4 for n blocks a stage; `widen` multiplies 16, 32 and 64 channels."""
    return WideResNet(
        check_image("wide-resnet-28-10", input_shape, 8),
        classes,
        blocks=(depth - 4) // 6,
        widths=tuple(max(1, round(widen * width)) for width in (16, 32, 64)),
        dropout=dropout,
    )
