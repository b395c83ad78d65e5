"""Convolutional structures."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .structure import Structure, floats

CLASSES = 5


class Residual(nn.Module):
    """A block with an identity shortcut and one with a 1x1 convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.conv1 = nn.Conv2d(8, 10, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(10)
        self.conv2 = nn.Conv2d(10, 8, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(8)
        self.conv3 = nn.Conv2d(8, 12, 3, stride=2, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(12)
        self.shortcut = nn.Conv2d(8, 12, 1, stride=2)
        self.fc = nn.Linear(12, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        x = F.relu(x + self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))))
        x = F.relu(self.bn3(self.conv3(x)) + self.shortcut(x))
        return self.fc(x.mean((2, 3)))


class PaddedShortcut(nn.Module):
    """ResNet's option A: the shortcut skips pixels and pads channels with zeros."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.conv1 = nn.Conv2d(6, 12, 3, stride=2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(12)
        self.conv2 = nn.Conv2d(12, 12, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(12)
        self.fc = nn.Linear(12, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        shortcut = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 3, 3))
        x = F.relu(self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))) + shortcut)
        return self.fc(x.mean((2, 3)))


class Dense(nn.Module):
    """Each layer reads the concatenation of all before it."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(6)
        self.conv1 = nn.Conv2d(6, 4, 3, padding=1)
        self.bn2 = nn.BatchNorm2d(10)
        self.conv2 = nn.Conv2d(10, 4, 3, padding=1)
        self.bn3 = nn.BatchNorm2d(14)
        self.transition = nn.Conv2d(14, 7, 1)
        self.fc = nn.Linear(7, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        features = [self.stem(x)]
        features.append(self.conv1(F.relu(self.bn1(torch.cat(features, 1)))))
        features.append(self.conv2(F.relu(self.bn2(torch.cat(features, 1)))))
        x = self.transition(F.relu(self.bn3(torch.cat(features, 1))))
        return self.fc(F.avg_pool2d(x, 2).mean((2, 3)))


class UNet(nn.Module):
    """A skip across a pooling and a transposed convolution; gives a map of classes."""

    def __init__(self) -> None:
        super().__init__()
        self.down1 = nn.Conv2d(3, 6, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(6)
        self.down2 = nn.Conv2d(6, 10, 3, padding=1)
        self.up = nn.ConvTranspose2d(10, 7, 2, stride=2)
        self.merge = nn.Conv2d(13, 8, 3, padding=1)
        self.bn2 = nn.BatchNorm2d(8)
        self.head = nn.Conv2d(8, CLASSES, 1)

    def forward(self, x: Tensor) -> Tensor:
        skip = F.relu(self.bn1(self.down1(x)))
        x = F.relu(self.down2(F.max_pool2d(skip, 2)))
        x = torch.cat([skip, self.up(x)], dim=1)
        return self.head(F.relu(self.bn2(self.merge(x))))


class SplitChunk(nn.Module):
    """Channels split unevenly and merged again; halves that gate each other."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.left = nn.Conv2d(3, 6, 3, padding=1)
        self.right = nn.Conv2d(5, 6, 1)
        self.gated = nn.Conv2d(12, 14, 1)
        self.fc = nn.Linear(7, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        left, right = torch.split(F.relu(self.stem(x)), [3, 5], dim=1)
        x = torch.cat([F.relu(self.left(left)), self.right(right)], dim=1)
        value, gate = self.gated(x).chunk(2, dim=1)
        return self.fc((value * torch.sigmoid(gate)).mean((2, 3)))


class ChannelShuffle(nn.Module):
    """ShuffleNet's unit: grouped 1x1 convolutions with the channels of the groups interleaved between."""

    groups = 2

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.squeeze = nn.Conv2d(8, 12, 1, groups=self.groups)
        self.depthwise = nn.Conv2d(12, 12, 3, padding=1, groups=12)
        self.bn = nn.BatchNorm2d(12)
        self.widen = nn.Conv2d(12, 8, 1, groups=self.groups)
        self.fc = nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        y = F.relu(self.squeeze(x))
        batch, channels, height, width = y.shape
        y = y.view(batch, self.groups, channels // self.groups, height, width)
        y = y.transpose(1, 2).contiguous().view(batch, channels, height, width)
        y = self.widen(self.bn(self.depthwise(y)))
        return self.fc(F.relu(x + y).mean((2, 3)))


class DepthwiseGrouped(nn.Module):
    """A separable convolution with two filters a channel, and a grouped one as in ResNeXt."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.depthwise = nn.Conv2d(6, 12, 3, padding=1, groups=6)
        self.pointwise = nn.Conv2d(12, 12, 1)
        self.bn = nn.BatchNorm2d(12)
        self.grouped = nn.Conv2d(12, 8, 3, padding=1, groups=4)
        self.out = nn.Conv2d(8, 10, 1)
        self.fc = nn.Linear(10, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        x = F.relu(self.bn(self.pointwise(F.relu(self.depthwise(x)))))
        return self.fc(F.relu(self.out(F.relu(self.grouped(x)))).mean((2, 3)))


class SqueezeExcite(nn.Module):
    """Channels scaled by a gate computed from all of them."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.bn = nn.BatchNorm2d(8)
        self.squeeze = nn.Conv2d(8, 4, 1)
        self.excite = nn.Conv2d(4, 8, 1)
        self.conv = nn.Conv2d(8, 6, 3, padding=1)
        self.fc = nn.Linear(6, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = F.silu(self.bn(self.stem(x)))
        scale = self.excite(F.silu(self.squeeze(F.adaptive_avg_pool2d(x, 1))))
        x = F.relu(self.conv(x * torch.sigmoid(scale)))
        return self.fc(x.mean((2, 3)))


class GroupNormed(nn.Module):
    """GroupNorm beside a residual add: channels of a norm's group share statistics."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.norm1 = nn.GroupNorm(4, 8)
        self.conv1 = nn.Conv2d(8, 12, 3, padding=1)
        self.norm2 = nn.GroupNorm(4, 12)
        self.conv2 = nn.Conv2d(12, 8, 3, padding=1)
        self.fc = nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = x + self.conv2(F.relu(self.norm2(self.conv1(F.relu(self.norm1(x))))))
        return self.fc(F.relu(x).mean((2, 3)))


class Temporal(nn.Module):
    """Dilated Conv1d beside a shortcut; strided, then flattened."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv1d(2, 6, 3, padding=1)
        self.conv1 = nn.Conv1d(6, 8, 3, padding=2, dilation=2)
        self.bn = nn.BatchNorm1d(8)
        self.conv2 = nn.Conv1d(8, 6, 1)
        self.down = nn.Conv1d(6, 4, 4, stride=4)
        self.fc = nn.Linear(4 * 5, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        x = F.relu(x + self.conv2(F.relu(self.bn(self.conv1(x)))))
        return self.fc(torch.flatten(F.relu(self.down(x)), 1))


class Volume(nn.Module):
    """Conv3d with BatchNorm3d and pooling."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv3d(1, 6, 3, padding=1)
        self.bn1 = nn.BatchNorm3d(6)
        self.pool = nn.MaxPool3d(2)
        self.conv2 = nn.Conv3d(6, 8, 3, padding=1)
        self.head = nn.AdaptiveAvgPool3d(1)
        self.fc = nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(F.relu(self.bn1(self.conv1(x))))
        return self.fc(self.head(F.relu(self.conv2(x))).flatten(1))


_IMAGE = floats((3, 8, 8))

CONVOLUTIONS = (
    Structure(name="residual", coupling="residual adds", build=Residual, inputs=_IMAGE),
    Structure(
        name="padded-shortcut", coupling="shortcut padded with zeros", build=PaddedShortcut, inputs=_IMAGE
    ),
    Structure(name="dense-block", coupling="concatenation", build=Dense, inputs=_IMAGE),
    Structure(name="u-net", coupling="skip concatenated, transposed convolution", build=UNet, inputs=_IMAGE),
    Structure(
        name="split-chunk", coupling="split, chunk, product of halves", build=SplitChunk, inputs=_IMAGE
    ),
    Structure(name="channel-shuffle", coupling="channel shuffle", build=ChannelShuffle, inputs=_IMAGE),
    Structure(
        name="depthwise-grouped", coupling="depthwise and grouped", build=DepthwiseGrouped, inputs=_IMAGE
    ),
    Structure(
        name="squeeze-excite", coupling="product with a gate per channel", build=SqueezeExcite, inputs=_IMAGE
    ),
    Structure(name="group-norm", coupling="statistics over groups", build=GroupNormed, inputs=_IMAGE),
    Structure(name="conv1d", coupling="Conv1d, flatten", build=Temporal, inputs=floats((2, 20))),
    Structure(name="conv3d", coupling="Conv3d", build=Volume, inputs=floats((1, 4, 8, 8))),
)
