"""Where a network trains: its weights and its data lie there; gates, costs and masks stay on the CPU.

Random numbers are drawn on the CPU, too, so that a job draws the same ones on any device.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import nn

CPU = torch.device("cpu")


def device_of(module: nn.Module) -> torch.device:
    """The device of the module's parameters."""
    return next((parameter.device for parameter in module.parameters()), CPU)


def mixed_precision(device: torch.device, precision: str) -> AbstractContextManager[object]:
    """Convolutions and products in bfloat16, where `precision` says so.

    Weights, their gradients and statistics stay in float32, and bfloat16 has float32's range: no loss is scaled
    (Kalamkar et al., "A Study of BFLOAT16 for Deep Learning Training", arXiv:1905.12322).
    """
    if precision != "bfloat16":
        return nullcontext()
    return torch.autocast("cuda" if device.type == "cuda" else "cpu", torch.bfloat16)


def name_of(device: torch.device) -> str:
    """What a person calls it."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


@contextmanager
def full_precision() -> Iterator[None]:
    """Convolutions in float32 to the last bit: what is measured is the network that the user gets.

    Training lets cuDNN round their inputs to TF32, as torch does unless told otherwise.
    """
    with torch.backends.cudnn.flags(allow_tf32=False):
        yield
