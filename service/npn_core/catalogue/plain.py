"""Plain chains of layers, as Sequentials with named children: `mlp`, `lenet5-caffe` and `vgg16-bn`."""

import math

from torch import nn

from .images import chain, check_image, initialise_he


def mlp(
    input_shape: tuple[int, ...], classes: int, *, hidden: tuple[int, ...], batch_norm: bool, dropout: float
) -> nn.Module:
    """Linear layers with ReLU between them; images are flattened."""
    layers: dict[str, nn.Module] = {}
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
    return chain(**layers)


def lenet5_caffe(input_shape: tuple[int, ...], classes: int, *, widths: tuple[int, ...]) -> nn.Module:
    """ReLU follows each pooling, as in the L0 literature's LeNet-5-Caffe; Caffe's own file has none there."""
    # 16 pixels leave one after two 5x5 convolutions, each pooled by 2
    channels = check_image("lenet5-caffe", input_shape, 16)
    conv1, conv2, fc1 = widths
    height, width = (((side - 4) // 2 - 4) // 2 for side in input_shape[1:])
    return chain(
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


def vgg16_bn(
    input_shape: tuple[int, ...], classes: int, *, widths: tuple[int, ...], hidden: int
) -> nn.Module:
    """VGG-16 (arXiv:1409.1556, column D) in its CIFAR form (Li et al., arXiv:1608.08710, section 4.1).

    A BatchNorm follows each of the 13 convolutions; one hidden linear layer instead of two.
    """
    channels = check_image("vgg16-bn", input_shape, 32)
    layers: dict[str, nn.Module] = {}
    numbers = iter(range(1, 14))
    for stage, convolutions in enumerate((2, 2, 3, 3, 3), start=1):
        for _ in range(convolutions):
            number = next(numbers)
            width = widths[number - 1]
            layers[f"conv{number}"] = nn.Conv2d(channels, width, 3, padding=1, bias=False)
            layers[f"bn{number}"] = nn.BatchNorm2d(width)
            layers[f"relu{number}"] = nn.ReLU()
            channels = width
        layers[f"pool{stage}"] = nn.MaxPool2d(2)
    pixels = math.prod(side // 32 for side in input_shape[1:])
    layers["flatten"] = nn.Flatten()
    layers["fc1"] = nn.Linear(channels * pixels, hidden)
    layers["relu14"] = nn.ReLU()
    layers["fc2"] = nn.Linear(hidden, classes)
    network = chain(**layers)
    initialise_he(network)
    return network
