"""How each node of a lifted graph is computed from the tensors of a pass, whatever their widths.

Modules with weights take theirs from the pass; dropout takes its noise; all else is computed as it stands.
"""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from .graph import (
    ALPHA_DROPOUTS,
    CONVOLUTIONS,
    DROPOUTS,
    INSTANCE_NORMS,
    NORMS,
    TRANSPOSED,
    IndexSelect,
    Shape,
    makes_tensor,
    module_of,
    operator_name,
    source,
)

if TYPE_CHECKING:
    from .gated import Network, Pass

# Numbers in a vector of this CPU.  Where a layer with a kernel of 1 and a stride reads fewer channels, channels last,
# the gradient of its weights by oneDNN (torch 2.13) writes beyond its memory: seen from 2 channels to 7 on AVX2.
VECTOR = 16 if torch.backends.cpu.get_cpu_capability().startswith("AVX512") else 8

Kernel = Callable[[Any, Any, "Pass"], Any]
"""(arguments, keyword arguments, pass) -> the node's value."""

_CONVOLVE: dict[type[nn.Module], Callable[..., Tensor]] = {
    nn.Conv1d: F.conv1d,
    nn.Conv2d: F.conv2d,
    nn.Conv3d: F.conv3d,
    nn.ConvTranspose1d: F.conv_transpose1d,
    nn.ConvTranspose2d: F.conv_transpose2d,
    nn.ConvTranspose3d: F.conv_transpose3d,
}


def kernel_of(network: "Network", node: fx.Node) -> Kernel:
    """What computes the node."""
    if node.op == "get_attr":
        return _attribute(network, node)
    if node.op == "call_function":
        return _function(network, node)
    module = module_of(network.graph, node)
    if isinstance(module, nn.Linear):
        return _linear(network, node)
    if isinstance(module, (*CONVOLUTIONS, *TRANSPOSED)):
        return _convolution(network, node, module)
    if isinstance(module, NORMS):
        return _batch_norm(network, node, module)
    if isinstance(module, (*DROPOUTS, *ALPHA_DROPOUTS)):
        return _dropout(network, node, module)
    if isinstance(module, INSTANCE_NORMS):
        return _instance_norm(network, node, module)
    if isinstance(module, IndexSelect):
        return _selection(network, node, module)
    if module is not None and next(module.parameters(), None) is not None:
        return _with_weights(network, node, module)
    return _plain(module)


def _plain(module: nn.Module | None) -> Kernel:
    if module is None:
        raise TypeError("the node calls no module")
    return lambda args, kwargs, one: module(*args, **kwargs)


def _attribute(network: "Network", node: fx.Node) -> Kernel:
    name = str(node.target)
    if name in network.names:
        return lambda args, kwargs, one: network.tensor(name, one)
    path, _, attribute = name.rpartition(".")
    constant = getattr(network.graph.get_submodule(path), attribute)
    if isinstance(constant, Tensor):
        constant = constant.to(network.device)
    return lambda args, kwargs, one: constant


def _function(network: "Network", node: fx.Node) -> Kernel:
    target: Callable[..., Any] = node.target  # type: ignore[assignment]
    name = operator_name(node)
    if name.startswith("aten.scaled_dot_product_attention"):
        return _attention(network, node)
    if name.startswith(("aten.linear", "aten.conv")):
        return _layer_function(target, node.meta["shape"], name.startswith("aten.linear"))
    if makes_tensor(node):  # a constant, which lies where the network does
        return lambda args, kwargs, one: target(*args, **{**kwargs, "device": network.device})
    return lambda args, kwargs, one: target(*args, **kwargs)


def _layer_function(target: Callable[..., Any], shape: Shape, linear: bool) -> Kernel:
    def run(args: Any, kwargs: Any, one: "Pass") -> Tensor:
        x, weight = args[:2]
        if weight.numel():
            result: Tensor = target(*args, **kwargs)
            return result
        bias = args[2] if len(args) > 2 else None
        if linear:
            return _of_nothing([*x.shape[:-1], weight.shape[0]], x.dim() - 1, x, bias)
        return _of_nothing([x.shape[0], weight.shape[0], *(d.size for d in shape[2:])], 1, x, bias)

    return run


def _of_nothing(sizes: list[int], channel: int, x: Tensor, bias: Tensor | None) -> Tensor:
    """What a layer gives when nothing that it reads is awake: its bias.

    torch's convolution of no input channels silently gives no output.
    """
    zeros = x.new_zeros(sizes)
    return (
        zeros if bias is None else zeros + bias.view([-1 if d == channel else 1 for d in range(len(sizes))])
    )


def _linear(network: "Network", node: fx.Node) -> Kernel:
    weight_name, bias_name = network.names[f"{node.target}.weight"], f"{node.target}.bias"

    def run(args: Any, kwargs: Any, one: "Pass") -> Tensor:
        x: Tensor = args[0]
        weight, bias = one.tensors[weight_name], network.tensor(bias_name, one)
        if weight.numel() == 0:
            return _of_nothing([*x.shape[:-1], weight.shape[0]], x.dim() - 1, x, bias)
        return F.linear(x, weight, bias)

    return run


def _convolution(network: "Network", node: fx.Node, module: Any) -> Kernel:
    weight_name, bias_name = network.names[f"{node.target}.weight"], f"{node.target}.bias"
    shape: Shape = node.meta["shape"]
    convolve, transposed = _CONVOLVE[type(module)], isinstance(module, TRANSPOSED)
    depthwise = module.groups > 1 and module.weight.shape[1] == 1 and not transposed
    if getattr(module, "padding_mode", "zeros") != "zeros":
        return _with_weights(network, node, module)
    pointwise = not transposed and {*module.kernel_size} == {1} and {*module.padding} == {0}
    steps: Any = (..., *(slice(None, None, step) for step in module.stride))
    stepping = pointwise and {*module.stride} != {1}

    def run(args: Any, kwargs: Any, one: "Pass") -> Tensor:
        x: Tensor = args[0]
        weight, bias = one.tensors[weight_name], network.tensor(bias_name, one)
        if weight.numel() == 0:
            rows = weight.shape[1] if transposed else weight.shape[0]
            return _of_nothing([x.shape[0], rows, *(d.size for d in shape[2:])], 1, x, bias)
        groups = x.shape[1] if depthwise else module.groups
        if stepping and weight.shape[1] < VECTOR:
            return convolve(x[steps], weight, bias, groups=groups)
        if transposed:
            return convolve(
                x, weight, bias, module.stride, module.padding, module.output_padding, groups, module.dilation
            )
        return convolve(x, weight, bias, module.stride, module.padding, module.dilation, groups)

    return run


def _batch_norm(network: "Network", node: fx.Node, module: Any) -> Kernel:
    target = node.target

    def run(args: Any, kwargs: Any, one: "Pass") -> Tensor:
        momentum = module.momentum
        if momentum is None:  # cumulative average
            tracked = network.tensor(f"{target}.num_batches_tracked", one)
            momentum = 1.0 if tracked is None else 1.0 / (float(tracked) + 1)
        return F.batch_norm(args[0], *_normalisation(network, node, module, one), momentum, module.eps)

    return run


def _normalisation(
    network: "Network", node: fx.Node, module: Any, one: "Pass"
) -> tuple[Tensor | None, Tensor | None, Tensor | None, Tensor | None, bool]:
    """Mean and variance that were gathered, scale, shift, and whether the input's own statistics are taken."""

    def tensor(name: str) -> Tensor | None:
        return network.tensor(f"{node.target}.{name}", one)

    training = one.noise is not None or not module.track_running_stats
    stats = not training or one.update_stats
    gathered = (tensor("running_mean"), tensor("running_var")) if stats else (None, None)
    return *gathered, tensor("weight"), tensor("bias"), training


def _dropout(network: "Network", node: fx.Node, module: Any) -> Kernel:
    p, name = float(module.p), node.name

    def run(args: Any, kwargs: Any, one: "Pass") -> Tensor:
        x: Tensor = args[0]
        if one.noise is None:
            return x
        indices = _positions(network, node, x, one)
        sizes = [
            size if index is None else total for size, (index, total) in zip(x.shape, indices, strict=True)
        ]
        keep = one.noise.keep(name, _drawn(module, sizes), p, network.device)
        for dim, (index, _) in enumerate(indices):
            keep = keep if index is None or keep.shape[dim] == 1 else keep.index_select(dim, index)
        return _alpha_dropped(x, keep > 0, p) if isinstance(module, ALPHA_DROPOUTS) else x * keep

    return run


def _alpha_dropped(x: Tensor, keep: Tensor, p: float) -> Tensor:
    """SELU's lowest value where it is not kept, then mean and variance as before (arXiv:1706.02515)."""
    lowest = -1.7580993408473766
    scale = 0.0 if p == 1 else ((1 - p) * (1 + p * lowest**2)) ** -0.5
    return scale * (torch.where(keep, x, lowest) - p * lowest)


def _instance_norm(network: "Network", node: fx.Node, module: Any) -> Kernel:
    def run(args: Any, kwargs: Any, one: "Pass") -> Tensor:
        normalisation = _normalisation(network, node, module, one)
        return F.instance_norm(args[0], *normalisation, module.momentum or 0.0, module.eps)

    return run


def _drawn(module: nn.Module, sizes: list[int]) -> tuple[int, ...]:
    """The sizes of a dropout's noise: one number for each entry, or for each channel."""
    every = isinstance(module, (nn.Dropout, nn.AlphaDropout))
    return tuple(sizes) if every else (*sizes[:2], *(1 for _ in sizes[2:]))


def _positions(network: "Network", node: fx.Node, x: Tensor, one: "Pass") -> list[tuple[Tensor | None, int]]:
    """For each axis of the node's output `x` the positions that are there, of how many."""
    shape: Shape = node.meta["shape"]
    found: list[tuple[Tensor | None, int]] = []
    for size, dim, index in zip(x.shape, shape, network.indices(node, one), strict=True):
        if index is not None and dim.batched:
            batch = size // len(index)
            rows = torch.arange(batch, device=index.device)[:, None]
            index, total = (rows * dim.size + index).flatten(), batch * dim.size
        else:
            total = dim.size
        found.append((index, total))
    return found


def draw(network: "Network", node: fx.Node, batch: int, one: "Pass") -> None:
    """Dropout's random numbers of a node all of whose units sleep: later nodes and steps see the same ones."""
    if one.noise is None:
        return
    module, shape = module_of(network.graph, node), node.meta["shape"]
    if isinstance(module, (*DROPOUTS, *ALPHA_DROPOUTS)):
        sizes = [dim.size * (batch if dim.batched else 1) for dim in shape]
        one.noise.keep(node.name, _drawn(module, sizes), float(module.p), network.device)
    elif p := float(node.meta.get("dropout_p", 0.0)):
        queries, keys = (source(node, place).meta["shape"][-2].size for place in (0, 1))
        outer = [dim.size * (batch if dim.batched else 1) for dim in shape[:-2]]
        one.noise.keep(node.name, (*outer, queries, keys), p, network.device)


def _selection(network: "Network", node: fx.Node, module: IndexSelect) -> Kernel:
    if node.name not in network.coupling.selects:
        return lambda args, kwargs, one: module(args[0])

    def run(args: Any, kwargs: Any, one: "Pass") -> Tensor:
        picked = one.active.picked_on(network.device, node.name)
        x: Tensor = args[0]
        return x if picked is None else x.index_select(-1, picked)

    return run


def _with_weights(network: "Network", node: fx.Node, module: nn.Module) -> Kernel:
    """Any other module: itself, with the tensors of the pass."""
    names = [name for name, _ in (*module.named_parameters(), *module.named_buffers())]

    def run(args: Any, kwargs: Any, one: "Pass") -> Any:
        tensors = {name: one.tensors[network.names[f"{node.target}.{name}"]] for name in names}
        return torch.func.functional_call(module, tensors, tuple(args), kwargs)

    return run


def _attention(network: "Network", node: fx.Node) -> Kernel:
    target: Callable[..., Tensor] = node.target  # type: ignore[assignment]

    p = float(node.meta.get("dropout_p", 0.0))

    def run(args: Any, kwargs: Any, one: "Pass") -> Tensor:
        if one.noise is None or p == 0:
            return target(*args, **kwargs)
        return _attention_with_dropout(network, node, args, kwargs, one, p)

    return run


def _attention_with_dropout(
    network: "Network", node: fx.Node, args: list[Any], kwargs: Any, one: "Pass", p: float
) -> Tensor:
    """softmax(q k^T / sqrt(d)) v with dropout on the weights, in the formula of torch's documentation."""
    q, k, v, mask = (*args, None)[:4]
    causal = bool(args[5]) if len(args) > 5 else bool(kwargs.get("is_causal", False))
    if k.dim() > 3 and k.shape[-3] != q.shape[-3]:
        k, v = (t.repeat_interleave(q.shape[-3] // t.shape[-3], dim=-3) for t in (k, v))
    scale = kwargs.get("scale") or 1 / math.sqrt(q.shape[-1])
    scores = q @ k.transpose(-2, -1) * scale
    if causal:
        later = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril().logical_not()
        scores = scores.masked_fill(later, -math.inf)
    if mask is not None:
        scores = scores.masked_fill(~mask, -math.inf) if mask.dtype == torch.bool else scores + mask
    shape: Shape = node.meta["shape"]
    size = [*scores.shape]
    heads = network.indices(node, one)[-3]
    if heads is not None:
        size[-3] = shape[-3].size
    keep = one.noise.keep(node.name, tuple(size), p, network.device)  # type: ignore[union-attr]
    keep = keep if heads is None else keep.index_select(-3, heads)
    # as torch's own: a row that is masked altogether gives 0
    attended: Tensor = (torch.ops.aten._safe_softmax(scores, -1) * keep) @ v
    return attended
