"""What training passes compute convolutions and products in."""

from dataclasses import replace

import torch
from torch import Generator, Tensor

from .config import Training
from .errors import InvalidInput
from .gated import Network, Noise
from .step import Inputs, Sliced

BFLOAT16_FROM = 1_000_000  # multiply-adds of a sample; below, casts may cost a CPU what they save
_INSTRUCTIONS = ("avx512_bf16", "amx_bf16")


def bfloat16_is_faster(device: torch.device, macs: int) -> bool:
    """Whether a network of so many multiply-adds trains faster in it on a device."""
    if device.type == "cuda":
        return True
    capabilities = torch.cpu.get_capabilities()
    return macs >= BFLOAT16_FROM and any(capabilities.get(name, False) for name in _INSTRUCTIONS)


def with_precision(training: Training, network: Network, macs: int, x: Inputs) -> Training:
    """With "auto" filled in, for a network of so many multiply-adds and samples `x`.

    Raises InvalidInput where bfloat16 is asked for and an operator does not take it.
    """
    if training.precision == "auto":
        # for classes: values may have to be right to more than eight bits
        gains = training.loss == "cross_entropy" and bfloat16_is_faster(network.device, macs)
        takes = gains and not _refusal(network, x)
        return replace(training, precision="bfloat16" if takes else "float32")
    if training.precision == "bfloat16" and (refusal := _refusal(network, x)):
        raise InvalidInput(
            "training.precision",
            f"an operator of the network does not compute in bfloat16: {refusal}; use float32 or auto",
        )
    return training


def _refusal(network: Network, x: Inputs) -> str:
    """What an operator says that does not compute in bfloat16, in its first line; "" where all do."""
    runner = Sliced(network, _any_loss, precision="bfloat16")
    noise = Noise(generator=Generator())
    try:
        runner.backward(x, None, network.everything, noise, update_stats=False)
    except RuntimeError as error:
        return str(error).partition("\n")[0]
    return ""


def _any_loss(outputs: tuple[Tensor, ...], _: None) -> Tensor:
    return torch.stack([output.float().square().mean() for output in outputs]).sum()
