"""Which code builds each architecture."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import nn

from npn_core.errors import InvalidInput

from .convnext import convnext
from .densenet import densenet_bc
from .mobilenet import mobilenet_v2
from .plain import lenet5_caffe, mlp, vgg16_bn
from .resnet import resnet20, resnet56
from .vit import vit
from .wide_resnet import wide_resnet

MAX_PARAMETERS = 1 << 28  # 1 GiB of float32, before gradients and Adam's two moments

_BUILDERS: Mapping[str, Callable[..., nn.Module]] = MappingProxyType(
    {
        "convnext-tiny-cifar": convnext,
        "densenet-bc": densenet_bc,
        "lenet5-caffe": lenet5_caffe,
        "mlp": mlp,
        "mobilenet-v2": mobilenet_v2,
        "resnet20": resnet20,
        "resnet56": resnet56,
        "vgg16-bn": vgg16_bn,
        "vit-tiny": vit,
        "wide-resnet-28-10": wide_resnet,
    }
)


def build_network(
    name: str, values: Mapping[str, Any], *, input_shape: tuple[int, ...], classes: int, seed: int
) -> nn.Module:
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
