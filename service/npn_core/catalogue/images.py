"""What the networks for images share: the check of the samples' shape and He's initialisation."""

from torch import nn

from npn_core.errors import InvalidInput


def check_image(name: str, input_shape: tuple[int, ...], smallest: int) -> int:
    """The channels of `input_shape` (C, H, W).

    Raises InvalidInput where the samples are no images of at least `smallest` x `smallest` pixels.
    """
    if len(input_shape) != 3 or min(input_shape[1:]) < smallest:
        raise InvalidInput(
            "model.architecture.name",
            f"{name} takes images of at least {smallest}x{smallest}; the dataset's samples have shape "
            f"{input_shape}; use mlp or larger images",
            reason="ARCHITECTURE_UNFIT",
        )
    return input_shape[0]


def initialise_he(module: nn.Module) -> None:
    """Convolutions normal with variance 2 / fan_out (He et al., arXiv:1502.01852, eq. 14), biases zero.

    Norms keep PyTorch's own start, weight 1 and bias 0, and so do linear layers.
    """
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
