"""Plain chains of layers, as Sequentials with named children: `mlp` and `lenet5-caffe`."""

import math
from collections import OrderedDict

from torch import nn

from .images import check_image


def mlp(
    input_shape: tuple[int, ...], classes: int, *, hidden: tuple[int, ...], batch_norm: bool, dropout: float
) -> nn.Module:
    """Linear layers with ReLU between them; images are flattened."""
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


def lenet5_caffe(input_shape: tuple[int, ...], classes: int, *, widths: tuple[int, ...]) -> nn.Module:
    """ReLU follows each pooling, as in the L0 literature's LeNet-5-Caffe; Caffe's own file has none there."""
    # 16 pixels leave one after two 5x5 convolutions, each pooled by 2
    channels = check_image("lenet5-caffe", input_shape, 16)
    conv1, conv2, fc1 = widths
    height, width = (((side - 4) // 2 - 4) // 2 for side in input_shape[1:])
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
