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


def faster(device: torch.device, macs: int) -> str:
    """What a network of so many multiply-adds trains faster in on a device: "bfloat16" or "float32"."""
    if device.type == "cuda":
        return "bfloat16"
    capabilities = torch.cpu.get_capabilities()
    computes = any(capabilities.get(name, False) for name in _INSTRUCTIONS)
    return "bfloat16" if computes and macs >= BFLOAT16_FROM else "float32"


def with_precision(training: Training, network: Network, macs: int, x: Inputs) -> Training:
    """With "auto" filled in: the faster one that all of the network's operators take, tried on samples `x`.

    `macs` are the network's.  Raises InvalidInput where bfloat16 is asked for and an operator does not take it.
    """
    wanted = training.precision
    precision = faster(network.device, macs) if wanted == "auto" else wanted
    if precision == "bfloat16" and (refusal := _refusal(network, x)):
        if wanted != "auto":
            raise InvalidInput(
                "training.precision",
                f"an operator of the network does not compute in bfloat16: {refusal}; use float32 or auto",
            )
        precision = "float32"
    return replace(training, precision=precision)


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
