"""What a module costs, counted on the module itself and independently of the cost model that steered it."""

from collections.abc import Collection

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from .copies import fake_copy, fake_inputs
from .progress import Cost


def payload(module: nn.Module, sparse: Collection[str] = ()) -> dict[str, Tensor]:
    """The tensors of model.safetensors: parameters and persistent buffers by name, shared ones once.

    A tensor with several names has the first.  Instead of one that is `sparse`, and smaller so, there are its entries
    that are not 0, NAME.values, and their places in its flat form, NAME.indices, ascending, int32.
    """
    seen: set[int] = set()
    tensors: dict[str, Tensor] = {}
    for name, tensor in module.state_dict(keep_vars=True).items():
        if id(tensor) not in seen:
            seen.add(id(tensor))
            tensors |= _stored(name, tensor.detach(), sparse=name in sparse)
    return tensors


def _stored(name: str, tensor: Tensor, *, sparse: bool) -> dict[str, Tensor]:
    flat = tensor.flatten()
    places = flat.nonzero().flatten().int() if sparse else None
    if places is None or places.nbytes + flat.itemsize * len(places) >= tensor.nbytes:
        return {name: tensor}
    return {f"{name}.indices": places, f"{name}.values": flat[places]}


def count(module: nn.Module, inputs: tuple[Tensor, ...], sparse: Collection[str] = ()) -> Cost:
    """Elements of parameters (tied ones once), multiply-adds of one sample, bytes of `payload`.

    Of the parameters that are `sparse` those elements that are not 0; multiply-adds with zeros are some, too.
    `inputs` are a batch of one sample, (1, *shape) each, of any device: only shapes and types are read.
    Multiply-adds are those of the convolution, matrix and attention products that PyTorch dispatches, without
    biases; padding and masked positions count, as they are multiplied.
    """
    mode = FakeTensorMode(allow_non_fake_inputs=True)  # a graph may hold constant tensors
    shadow = fake_copy(module, mode)
    # The kernels that fuse attention have no count on the CPU; MATH makes two products of it, as on paper.
    with torch.no_grad(), mode, sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        shadow(*fake_inputs(inputs, mode))
    return Cost(
        params=sum(
            int(parameter.count_nonzero()) if name in sparse else parameter.numel()
            for name, parameter in module.named_parameters()
        ),
        macs=counter.get_total_flops() // 2,
        bytes=sum(tensor.numel() * tensor.element_size() for tensor in payload(module, sparse).values()),
    )
