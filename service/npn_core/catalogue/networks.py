"""The networks of the catalogue, as Sequentials with named children."""

import math
from collections import OrderedDict
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import nn

from npn_core.errors import InvalidInput

MAX_PARAMETERS = 1 << 28  # 1 GiB of float32, before gradients and Adam's two moments


def build_network(
    name: str, values: Mapping[str, Any], *, input_shape: tuple[int, ...], classes: int, seed: int
) -> nn.Sequential:
    """The architecture `name` with parsed parameters; see `catalogue.build`."""
    builder = _BUILDERS[name]
    with torch.device("meta"):
        size = sum(p.numel() for p in builder(input_shape, classes, **values).parameters())
    if size > MAX_PARAMETERS:
        raise InvalidInput(
            "model.architecture.params",
            f"{name} would have {size:,} parameters; at most {MAX_PARAMETERS:,} are allowed",
            reason="ARCHITECTURE_TOO_LARGE",
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return builder(input_shape, classes, **values)


def _mlp(
    input_shape: tuple[int, ...], classes: int, *, hidden: tuple[int, ...], batch_norm: bool, dropout: float
) -> nn.Sequential:
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    if len(input_shape) > 1:
        layers["flatten"] = nn.Flatten()
    width = math.prod(input_shape)
    for number, neurons in enumerate(hidden, start=1):
        layers[f"fc{number}"] = nn.Linear(width, neurons)
        if batch_norm:
            layers[f"bn{number}"] = nn.BatchNorm1d(neurons)
        layers[f"relu{number}"] = nn.ReLU()
        if dropout:
            layers[f"dropout{number}"] = nn.Dropout(dropout)
        width = neurons
    layers[f"fc{len(hidden) + 1}"] = nn.Linear(width, classes)
    return nn.Sequential(layers)


def _lenet5_caffe(input_shape: tuple[int, ...], classes: int, *, widths: tuple[int, ...]) -> nn.Sequential:
    """ReLU follows each pooling, as in the L0 literature's LeNet-5-Caffe; Caffe's own file has none there."""
    smallest = 16  # leaves one pixel after two 5x5 convolutions, each pooled by 2
    if len(input_shape) != 3 or min(input_shape[1:]) < smallest:
        raise InvalidInput(
            "model.architecture.name",
            f"lenet5-caffe takes images of at least {smallest}x{smallest}; the dataset's samples have shape "
            f"{input_shape}; use mlp or larger images",
            reason="ARCHITECTURE_UNFIT",
        )
    conv1, conv2, fc1 = widths
    channels, *size = input_shape
    height, width = (((side - 4) // 2 - 4) // 2 for side in size)
    return nn.Sequential(
        OrderedDict[str, nn.Module](
            conv1=nn.Conv2d(channels, conv1, 5),
            pool1=nn.MaxPool2d(2),
            relu1=nn.ReLU(),
            conv2=nn.Conv2d(conv1, conv2, 5),
            pool2=nn.MaxPool2d(2),
            relu2=nn.ReLU(),
            flatten=nn.Flatten(),
            fc1=nn.Linear(conv2 * height * width, fc1),
            relu3=nn.ReLU(),
            fc2=nn.Linear(fc1, classes),
        )
    )


_BUILDERS: Mapping[str, Callable[..., nn.Sequential]] = MappingProxyType(
    {"lenet5-caffe": _lenet5_caffe, "mlp": _mlp}
)
