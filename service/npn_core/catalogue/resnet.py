"""Residual networks for CIFAR (He et al., arXiv:1512.03385, section 4.2)."""

from collections.abc import Iterator

from torch import Tensor, nn

from .images import chain, check_image, initialise_he


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut: (N, C, H, W) -> (N, width, H / stride, W / stride).

    Where the shape changes, the shortcut is a 1x1 convolution with BatchNorm (option B of the paper).
    """

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or channels != width:
            self.shortcut = chain(
                conv=nn.Conv2d(channels, width, 1, stride=stride, bias=False), bn=nn.BatchNorm2d(width)
            )
        self.relu2 = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """The block's output."""
        residual = self.relu1(self.bn1(self.conv1(x)))
        residual = self.bn2(self.conv2(residual))
        return self.relu2(residual + self.shortcut(x))  # type: ignore[no-any-return]


class ResNet(nn.Module):
    """A stem, three stages of `blocks` basic blocks each, and a linear head on the pooled channels."""

    def __init__(self, channels: int, classes: int, *, blocks: int, widths: tuple[int, ...]) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, widths[0], 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        self.relu1 = nn.ReLU()
        self.layer1 = nn.Sequential(*_stage(widths[0], widths[0], blocks, stride=1))
        self.layer2 = nn.Sequential(*_stage(widths[0], widths[1], blocks, stride=2))
        self.layer3 = nn.Sequential(*_stage(widths[1], widths[2], blocks, stride=2))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.fc = nn.Linear(widths[2], classes)
        initialise_he(self)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, classes) of images (N, C, H, W)."""
        x = self.relu1(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.fc(self.flatten(self.pool(x)))  # type: ignore[no-any-return]


def _stage(channels: int, width: int, blocks: int, *, stride: int) -> Iterator[BasicBlock]:
    yield BasicBlock(channels, width, stride)
    for _ in range(blocks - 1):
        yield BasicBlock(width, width, 1)


def resnet20(input_shape: tuple[int, ...], classes: int, *, widths: tuple[int, ...]) -> nn.Module:
    """Three blocks a stage."""
    return ResNet(check_image("resnet20", input_shape, 8), classes, blocks=3, widths=widths)


def resnet56(input_shape: tuple[int, ...], classes: int, *, widths: tuple[int, ...]) -> nn.Module:
    """Nine blocks a stage."""
    return ResNet(check_image("resnet56", input_shape, 8), classes, blocks=9, widths=widths)
