"""What the catalogue says of each architecture.  No torch here."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from npn_core.progress import Cost

from .params import ArchitectureParam, decimal, depth, flag, numbers, probability, whole


@dataclass(frozen=True, kw_only=True, slots=True)
class ArchitectureInfo:
    """An architecture.  `dense` is its cost with default parameters on the example's shape and classes."""

    name: str
    description: str
    params: tuple[ArchitectureParam, ...]
    example_input_shape: tuple[int, ...]
    example_classes: int
    dense: Cost


def _dropout(what: str) -> ArchitectureParam:
    return ArchitectureParam(
        name="dropout",
        description=f"Probability of dropping {what}.",
        default_value="0",
        parse=probability,
    )


def _resnet(name: str, blocks: int, dense: Cost) -> ArchitectureInfo:
    return ArchitectureInfo(
        name=name,
        description=f"CIFAR's ResNet, 3 stages of {blocks} basic blocks; 1x1 convolutions as shortcuts.",
        params=(
            ArchitectureParam(
                name="widths",
                description="Channels of the three stages; the first is the stem's too.",
                default_value="16,32,64",
                parse=numbers(3),
            ),
        ),
        example_input_shape=(3, 32, 32),
        example_classes=10,
        dense=dense,
    )


_CONVNEXT = ArchitectureInfo(
    name="convnext-tiny-cifar",
    description="ConvNeXt-T with a stem of 2x2 patches: depthwise 7x7 convolutions, LayerNorm, MLPs on pixels.",
    params=(
        ArchitectureParam(
            name="patch",
            description="Side of the stem's patches, in pixels.",
            default_value="2",
            parse=whole(1, 16),
        ),
        ArchitectureParam(
            name="depths",
            description="Blocks of each of the four stages.",
            default_value="3,3,9,3",
            parse=numbers(4, noun="depths", largest=48),
        ),
        ArchitectureParam(
            name="dims",
            description="Channels of each of the four stages.",
            default_value="96,192,384,768",
            parse=numbers(4),
        ),
    ),
    example_input_shape=(3, 32, 32),
    example_classes=10,
    dense=Cost(params=27_824_362, macs=362_777_088, bytes=111_297_448),
)

_DENSENET = ArchitectureInfo(
    name="densenet-bc",
    description="CIFAR's DenseNet with bottlenecks and compression: each layer reads all before it.",
    params=(
        ArchitectureParam(
            name="depth",
            description="Layers in all, 6 n + 4: n bottleneck layers in each of three blocks.",
            default_value="100",
            parse=depth,
        ),
        ArchitectureParam(
            name="growth",
            description="Channels that each layer adds.",
            default_value="12",
            parse=whole(1, 512),
        ),
        ArchitectureParam(
            name="compression",
            description="Share of the channels that a transition keeps.",
            default_value="0.5",
            parse=decimal(0.05, 1),
        ),
        _dropout("what a layer adds"),
    ),
    example_input_shape=(3, 32, 32),
    example_classes=10,
    dense=Cost(params=769_162, macs=287_929_692, bytes=3_173_392),
)

_LENET5_CAFFE = ArchitectureInfo(
    name="lenet5-caffe",
    description="LeNet-5 as in Caffe's MNIST example: two 5x5 convolutions and two linear layers.",
    params=(
        ArchitectureParam(
            name="widths",
            description="Channels of conv1 and conv2, and neurons of fc1.",
            default_value="20,50,500",
            parse=numbers(3),
        ),
    ),
    example_input_shape=(1, 28, 28),
    example_classes=10,
    dense=Cost(params=431_080, macs=2_293_000, bytes=1_724_320),
)

_MLP = ArchitectureInfo(
    name="mlp",
    description="Linear layers with ReLU between them; images are flattened.",
    params=(
        ArchitectureParam(
            name="hidden",
            description="Neurons of each hidden layer.",
            default_value="300,100",
            parse=numbers(None),
        ),
        ArchitectureParam(
            name="batch_norm",
            description="Whether each hidden layer has a BatchNorm before its ReLU.",
            default_value="false",
            parse=flag,
        ),
        _dropout("a hidden activation"),
    ),
    example_input_shape=(1, 28, 28),
    example_classes=10,
    dense=Cost(params=266_610, macs=266_200, bytes=1_066_440),
)

_MOBILENET = ArchitectureInfo(
    name="mobilenet-v2",
    description="MobileNetV2 with strides for 32x32 pixels: inverted residuals, depthwise convolutions.",
    params=(
        ArchitectureParam(
            name="multiplier",
            description="Scales every width; widths are rounded to multiples of 8.",
            default_value="1.0",
            parse=decimal(0.05, 16),
        ),
        _dropout("a pooled feature"),
    ),
    example_input_shape=(3, 32, 32),
    example_classes=10,
    dense=Cost(params=2_236_682, macs=87_976_448, bytes=9_083_592),
)

_VGG16_BN = ArchitectureInfo(
    name="vgg16-bn",
    description="VGG-16 in its CIFAR form: 13 convolutions with BatchNorm and two linear layers.",
    params=(
        ArchitectureParam(
            name="widths",
            description="Channels of the 13 convolutions; pooling follows the 2nd, 4th, 7th, 10th and 13th.",
            default_value="64,64,128,128,256,256,256,512,512,512,512,512,512",
            parse=numbers(13),
        ),
        ArchitectureParam(
            name="hidden",
            description="Neurons of the hidden linear layer.",
            default_value="512",
            parse=whole(1, 65_536),
        ),
    ),
    example_input_shape=(3, 32, 32),
    example_classes=10,
    dense=Cost(params=14_986_698, macs=313_463_808, bytes=59_980_688),
)

_VIT = ArchitectureInfo(
    name="vit-tiny",
    description="ViT-Ti with patches of 4x4 pixels: pre-norm transformer blocks, a class token.",
    params=(
        ArchitectureParam(
            name="patch",
            description="Side of a patch, in pixels; it divides the images' sides.",
            default_value="4",
            parse=whole(1, 64),
        ),
        ArchitectureParam(
            name="dim", description="Width of a token.", default_value="192", parse=whole(1, 8192)
        ),
        ArchitectureParam(
            name="depth", description="Transformer blocks.", default_value="12", parse=whole(1, 64)
        ),
        ArchitectureParam(
            name="heads",
            description="Heads of an attention; they divide dim.",
            default_value="3",
            parse=whole(1, 256),
        ),
        ArchitectureParam(
            name="mlp_ratio",
            description="Hidden neurons of a block's MLP for each of a token's dim.",
            default_value="4",
            parse=whole(1, 16),
        ),
        _dropout("what a block adds"),
    ),
    example_input_shape=(3, 32, 32),
    example_classes=10,
    dense=Cost(params=5_362_762, macs=365_107_584, bytes=21_451_048),
)

_WIDE_RESNET = ArchitectureInfo(
    name="wide-resnet-28-10",
    description="Wide ResNet for CIFAR: 3 stages of pre-activation blocks of many channels.",
    params=(
        ArchitectureParam(
            name="depth",
            description="Layers in all, 6 n + 4: n blocks in each of three stages.",
            default_value="28",
            parse=depth,
        ),
        ArchitectureParam(
            name="widen",
            description="Multiplies the 16, 32 and 64 channels of the stages.",
            default_value="10",
            parse=decimal(0.05, 64),
        ),
        _dropout("an activation between a block's convolutions"),
    ),
    example_input_shape=(3, 32, 32),
    example_classes=10,
    dense=Cost(params=36_479_194, macs=5_243_328_768, bytes=145_988_784),
)

ARCHITECTURES: Mapping[str, ArchitectureInfo] = MappingProxyType(
    {
        info.name: info
        for info in (
            _CONVNEXT,
            _DENSENET,
            _LENET5_CAFFE,
            _MLP,
            _MOBILENET,
            _resnet("resnet20", 3, Cost(params=272_474, macs=40_813_184, bytes=1_096_336)),
            _resnet("resnet56", 9, Cost(params=855_770, macs=125_747_840, bytes=3_440_560)),
            _VGG16_BN,
            _VIT,
            _WIDE_RESNET,
        )
    }
)
