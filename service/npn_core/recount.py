"""What a module costs, counted on the module itself and independently of the cost model that steered it."""

import copy

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from .progress import Cost


def payload(module: nn.Module) -> dict[str, Tensor]:
    """The tensors of model.safetensors: parameters and persistent buffers by name, shared ones once."""
    seen: set[int] = set()
    tensors: dict[str, Tensor] = {}
    for name, tensor in module.state_dict(keep_vars=True).items():
        if id(tensor) not in seen:
            seen.add(id(tensor))
            tensors[name] = tensor.detach()
    return tensors


def count(module: nn.Module, input_shape: tuple[int, ...]) -> Cost:
    """Elements of parameters (tied ones once), multiply-adds of one sample, bytes of `payload`.

    `input_shape` is that of one sample.  Multiply-adds are those of the convolution, linear and attention
    products that PyTorch dispatches, without biases; padding counts, as it is multiplied.
    """
    shadow = copy.deepcopy(module).to("meta").eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        shadow(torch.empty(1, *input_shape, device="meta"))
    return Cost(
        params=sum(parameter.numel() for parameter in module.parameters()),
        macs=counter.get_total_flops() // 2,
        bytes=sum(tensor.numel() * tensor.element_size() for tensor in payload(module).values()),
    )
