"""What the catalogue says of each architecture, and how it reads their parameters.  No torch here."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from npn_core.errors import InvalidInput
from npn_core.progress import Cost

MAX_WIDTH = 65_536
MAX_LAYERS = 64

Value = tuple[int, ...] | float | bool


@dataclass(frozen=True, kw_only=True, slots=True)
class ArchitectureParam:
    """A parameter of an architecture.  `parse` reads its value and raises ValueError saying what is right."""

    name: str
    description: str
    default_value: str
    parse: Callable[[str], Value]

    def read(self, text: str) -> Value:
        """The value in `text`; raises InvalidInput naming the parameter."""
        try:
            return self.parse(text)
        except ValueError as error:
            raise InvalidInput(
                f"model.architecture.params[{self.name}]",
                f"{self.name} is {text!r:.80}; {error}",
                reason="ARCHITECTURE_PARAM_INVALID",
            ) from None


@dataclass(frozen=True, kw_only=True, slots=True)
class ArchitectureInfo:
    """An architecture.  `dense` is its cost with default parameters on the example's shape and classes."""

    name: str
    description: str
    params: tuple[ArchitectureParam, ...]
    example_input_shape: tuple[int, ...]
    example_classes: int
    dense: Cost


def _widths(count: int | None) -> Callable[[str], tuple[int, ...]]:
    """A reader of comma-separated layer widths: exactly `count`, or 1 to MAX_LAYERS of them."""

    def parse(text: str) -> tuple[int, ...]:
        parts = [part.strip() for part in text.split(",")] if len(text) <= 10 * MAX_LAYERS else []
        how_many = str(count) if count else f"1 to {MAX_LAYERS}"
        fits = len(parts) == count if count else 1 <= len(parts) <= MAX_LAYERS
        widths = [int(part) if re.fullmatch("[0-9]{1,5}", part, re.ASCII) else 0 for part in parts]
        if not fits or not all(1 <= width <= MAX_WIDTH for width in widths):
            raise ValueError(f"it must be {how_many} widths from 1 to {MAX_WIDTH}, separated by commas")
        return tuple(widths)

    return parse


def _probability(text: str) -> float:
    if not re.fullmatch(r"(0(\.[0-9]{0,6})?|\.[0-9]{1,6})", text, re.ASCII):
        raise ValueError("it must be a decimal number from 0 to below 1, for example 0.5")
    return float(text)


def _flag(text: str) -> bool:
    if text not in ("true", "false"):
        raise ValueError("it must be true or false")
    return text == "true"


_LENET5_CAFFE = ArchitectureInfo(
    name="lenet5-caffe",
    description="LeNet-5 as in Caffe's MNIST example: two 5x5 convolutions and two linear layers.",
    params=(
        ArchitectureParam(
            name="widths",
            description="Channels of conv1 and conv2, and neurons of fc1.",
            default_value="20,50,500",
            parse=_widths(3),
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
            parse=_widths(None),
        ),
        ArchitectureParam(
            name="batch_norm",
            description="Whether each hidden layer has a BatchNorm before its ReLU.",
            default_value="false",
            parse=_flag,
        ),
        ArchitectureParam(
            name="dropout",
            description="Probability of dropping a hidden activation.",
            default_value="0",
            parse=_probability,
        ),
    ),
    example_input_shape=(1, 28, 28),
    example_classes=10,
    dense=Cost(params=266_610, macs=266_200, bytes=1_066_440),
)

_RESNET_WIDTHS = ArchitectureParam(
    name="widths",
    description="Channels of the three stages; the first is the stem's too.",
    default_value="16,32,64",
    parse=_widths(3),
)

_RESNET20 = ArchitectureInfo(
    name="resnet20",
    description="CIFAR's ResNet with 3 basic blocks in each of 3 stages; 1x1 convolutions as shortcuts.",
    params=(_RESNET_WIDTHS,),
    example_input_shape=(3, 32, 32),
    example_classes=10,
    dense=Cost(params=272_474, macs=40_813_184, bytes=1_096_336),
)

_RESNET56 = ArchitectureInfo(
    name="resnet56",
    description="CIFAR's ResNet with 9 basic blocks in each of 3 stages; 1x1 convolutions as shortcuts.",
    params=(_RESNET_WIDTHS,),
    example_input_shape=(3, 32, 32),
    example_classes=10,
    dense=Cost(params=855_770, macs=125_747_840, bytes=3_440_560),
)

ARCHITECTURES: Mapping[str, ArchitectureInfo] = MappingProxyType(
    {info.name: info for info in (_LENET5_CAFFE, _MLP, _RESNET20, _RESNET56)}
)
