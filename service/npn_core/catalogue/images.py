"""What the networks for images share: checks of the samples' shape, named chains, initialisation."""

from collections import OrderedDict

from torch import nn

from npn_core.errors import InvalidInput


def check_image(name: str, input_shape: tuple[int, ...], smallest: int, *, multiple: int = 1) -> int:
    """The channels of `input_shape` (C, H, W).

    Raises InvalidInput where the samples are no images of at least `smallest` x `smallest` pixels, or where
    a side is no multiple of `multiple`.
    """
    fits = len(input_shape) == 3 and min(input_shape[1:]) >= smallest
    if not fits or any(side % multiple for side in input_shape[1:]):
        sides = f" with sides divisible by {multiple}" if multiple > 1 else ""
        raise InvalidInput(
            "model.architecture.name",
            f"{name} takes images of at least {smallest}x{smallest}{sides}; the dataset's samples have shape "
            f"{input_shape}; use mlp or other images",
            reason="ARCHITECTURE_UNFIT",
        )
    return input_shape[0]


def chain(**layers: nn.Module) -> nn.Sequential:
    """`layers` one after the other, each a child of its own name."""
    return nn.Sequential(OrderedDict(layers))


def initialise_he(module: nn.Module) -> None:
    """Convolutions normal with variance 2 / fan_out (He et al., arXiv:1502.01852, eq. 14), biases zero.

    Norms keep PyTorch's own start, weight 1 and bias 0, and so do linear layers.
    """
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def initialise_truncated(module: nn.Module) -> None:
    """Convolutions and linear layers normal with deviation 0.02, cut at two of them; biases zero.

    What ViT and ConvNeXt are trained from (arXiv:2010.11929, arXiv:2201.03545).
    """
    for layer in module.modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            nn.init.trunc_normal_(layer.weight, std=0.02, a=-0.04, b=0.04)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
