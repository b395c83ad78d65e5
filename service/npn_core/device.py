"""Where a network trains: its weights and its data lie there; gates, costs and masks stay on the CPU.

Random numbers are drawn on the CPU, too, so that a job draws the same ones on any device.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

CPU = torch.device("cpu")


def device_of(module: nn.Module) -> torch.device:
    """The device of the module's parameters."""
    return next((parameter.device for parameter in module.parameters()), CPU)


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
