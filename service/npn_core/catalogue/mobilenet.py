"""MobileNetV2 (Sandler et al., arXiv:1801.04381) with strides for CIFAR's 32x32 pixels."""

from torch import Tensor, nn

from .images import chain, check_image, initialise_he

# expansion, channels, blocks, stride of the first: table 2 of the paper.  On 32x32 pixels the stem and the
# second row do not stride, so that 4x4 pixels are left at the end.
_ROWS = (
    (1, 16, 1, 1),
    (6, 24, 2, 1),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
_STEM, _LAST = 32, 1280


class InvertedResidual(nn.Module):
    """Expand by 1x1, filter each channel by 3x3, project by 1x1: (N, C, H, W) -> (N, width, H', W').

    The input is added where the shape stays.
    """

    def __init__(self, channels: int, width: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = expansion * channels
        self.expand = _convolution(channels, inner, 1) if expansion != 1 else nn.Identity()
        self.depthwise = _convolution(inner, inner, 3, stride=stride, groups=inner)
        self.project = chain(conv=nn.Conv2d(inner, width, 1, bias=False), bn=nn.BatchNorm2d(width))
        self.residual = stride == 1 and channels == width

    def forward(self, x: Tensor) -> Tensor:
        """The block's output, not activated."""
        y: Tensor = self.project(self.depthwise(self.expand(x)))
        return x + y if self.residual else y


class MobileNetV2(nn.Module):
    """A stem, the inverted residuals, a last 1x1 convolution, and a linear head on the pooled channels."""

    def __init__(self, channels: int, classes: int, *, multiplier: float, dropout: float) -> None:
        super().__init__()
        width = _rounded(_STEM * multiplier)
        self.stem = _convolution(channels, width, 3)
        blocks: list[nn.Module] = []
        for expansion, base, repeats, first_stride in _ROWS:
            for number in range(repeats):
                wider = _rounded(base * multiplier)
                stride = first_stride if number == 0 else 1
                blocks.append(InvertedResidual(width, wider, stride, expansion))
                width = wider
        self.blocks = nn.Sequential(*blocks)
        last = _rounded(_LAST * max(1.0, multiplier))
        self.last = _convolution(width, last, 1)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()
        self.fc = nn.Linear(last, classes)
        initialise_he(self)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, classes) of images (N, C, H, W)."""
        x = self.pool(self.last(self.blocks(self.stem(x))))
        return self.fc(self.dropout(self.flatten(x)))  # type: ignore[no-any-return]


def _convolution(
    channels: int, width: int, kernel: int, *, stride: int = 1, groups: int = 1
) -> nn.Sequential:
    return chain(
        conv=nn.Conv2d(
            channels, width, kernel, stride=stride, padding=kernel // 2, groups=groups, bias=False
        ),
        bn=nn.BatchNorm2d(width),
        relu=nn.ReLU6(),
    )


def _rounded(width: float) -> int:
    """The multiple of 8 nearest to `width`, at least 8 and not more than a tenth below it."""
    nearest = max(8, int(width + 4) // 8 * 8)
    return nearest if nearest >= 0.9 * width else nearest + 8


def mobilenet_v2(
    input_shape: tuple[int, ...], classes: int, *, multiplier: float, dropout: float
) -> nn.Module:
    """`multiplier` scales every width, the last one only upwards, as in the paper."""
    channels = check_image("mobilenet-v2", input_shape, 8)
    return MobileNetV2(channels, classes, multiplier=multiplier, dropout=dropout)
