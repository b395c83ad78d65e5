"""One rule for each operation: the labels of its result, from those of what it reads.

A rule merges units that leave together, pins units that the operation mixes, ties the axes of weights, and notes
constants that follow the units.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import fx, nn

from npn_core.axes import Labelling
from npn_core.graph import (
    ALPHA_DROPOUTS,
    CONVOLUTIONS,
    DROPOUTS,
    NORMS,
    TRANSPOSED,
    IndexSelect,
    operator_name,
)

from .between import along_a_dim, attention, channelwise, entrywise, glu, matmul, reduction
from .ends import attribute, fixed, getitem, nothing, output, unknown
from .layers import batch_norm, convolution, embedding, group_norm, layer_norm, linear, prelu, selection
from .layout import (
    cat,
    expand,
    pad,
    permute,
    pixel_shuffle,
    repeat,
    repeat_interleave,
    slice_,
    split,
    squeeze,
    stack,
    unbind,
    unsqueeze,
)
from .reshape import flatten, reshape

__all__ = ["Rule", "rule_for"]

Rule = Callable[[Labelling, fx.Node], Any]

# Act on every entry for itself.
ENTRYWISE_MODULES = (
    *DROPOUTS,
    *ALPHA_DROPOUTS,
    nn.ReLU,
    nn.ReLU6,
    nn.LeakyReLU,
    nn.ELU,
    nn.SELU,
    nn.CELU,
    nn.GELU,
    nn.SiLU,
    nn.Mish,
    nn.Hardswish,
    nn.Hardsigmoid,
    nn.Hardtanh,
    nn.Hardshrink,
    nn.Softshrink,
    nn.Tanhshrink,
    nn.Threshold,
    nn.Sigmoid,
    nn.LogSigmoid,
    nn.Tanh,
    nn.Softplus,
    nn.Softsign,
    nn.Identity,
)
# Act on each channel for itself, along the axes behind it.
CHANNELWISE_MODULES = (
    nn.MaxPool1d,
    nn.MaxPool2d,
    nn.MaxPool3d,
    nn.AvgPool1d,
    nn.AvgPool2d,
    nn.AvgPool3d,
    nn.AdaptiveAvgPool1d,
    nn.AdaptiveAvgPool2d,
    nn.AdaptiveAvgPool3d,
    nn.AdaptiveMaxPool1d,
    nn.AdaptiveMaxPool2d,
    nn.AdaptiveMaxPool3d,
    nn.Upsample,
    nn.ZeroPad2d,
    nn.ReflectionPad2d,
    nn.ReplicationPad2d,
)
_CHANNELWISE = ("max_pool", "avg_pool", "adaptive_avg_pool", "adaptive_max_pool", "upsample_")
_ENTRYWISE = {
    "clone",
    "contiguous",
    "detach",
    "alias",
    "dropout",
    "to",
    "_to_copy",
    "type_as",
    "zeros_like",
    "ones_like",
    "full_like",
    "empty_like",
    "expand_as",
}
_REDUCTIONS = {
    "mean",
    "sum",
    "amax",
    "amin",
    "max",
    "min",
    "var",
    "std",
    "any",
    "all",
    "argmax",
    "argmin",
    "linalg_vector_norm",
    "logsumexp",
    "prod",
}
_ALONG_A_DIM = {"softmax", "_softmax", "log_softmax", "_log_softmax", "cumsum", "cumprod"}
_NEW = {"new_zeros", "new_ones", "new_full", "new_empty"}


def rule_for(labelling: Labelling, node: fx.Node) -> Rule:
    """The rule of a node's operation; `unknown` where there is none."""
    if node.op == "call_module":
        return _module_rule(labelling.module(node))
    if node.op != "call_function":
        return {"placeholder": fixed, "get_attr": attribute, "output": output}[node.op]
    if not isinstance(node.target, torch._ops.OpOverload):
        return getitem if operator_name(node) == "getitem" else nothing
    name = node.target._schema.name.removeprefix("aten::")
    if name in _BY_NAME:
        return _BY_NAME[name]
    if name in _ENTRYWISE or torch.Tag.pointwise in node.target.tags:
        return entrywise
    if name in _REDUCTIONS:
        return reduction
    if name in _ALONG_A_DIM:
        return along_a_dim
    return channelwise if name.startswith(_CHANNELWISE) else unknown


def _module_rule(module: nn.Module | None) -> Rule:
    for kinds, rule in _BY_MODULE:
        if isinstance(module, kinds):
            return rule
    return unknown


_BY_MODULE: tuple[tuple[Any, Rule], ...] = (
    (nn.Linear, linear),
    ((*CONVOLUTIONS, *TRANSPOSED), convolution),
    (nn.Embedding, embedding),
    (NORMS, batch_norm),
    (nn.LayerNorm, layer_norm),
    (nn.GroupNorm, group_norm),
    (nn.PReLU, prelu),
    (IndexSelect, selection),
    (ENTRYWISE_MODULES, entrywise),
    (CHANNELWISE_MODULES, channelwise),
    ((nn.Softmax, nn.LogSoftmax), along_a_dim),
    (nn.GLU, glu),
    (nn.PixelShuffle, pixel_shuffle),
)
_BY_NAME: dict[str, Rule] = (
    {
        "linear": linear,
        "conv1d": convolution,
        "conv2d": convolution,
        "conv3d": convolution,
        "conv_transpose1d": convolution,
        "conv_transpose2d": convolution,
        "conv_transpose3d": convolution,
        "embedding": embedding,
        "layer_norm": layer_norm,
        "group_norm": group_norm,
        "matmul": matmul,
        "bmm": matmul,
        "mm": matmul,
        "scaled_dot_product_attention": attention,
        "reshape": reshape,
        "view": reshape,
        "_unsafe_view": reshape,
        "flatten": flatten,
        "permute": permute,
        "transpose": permute,
        "t": permute,
        "unsqueeze": unsqueeze,
        "squeeze": squeeze,
        "expand": expand,
        "repeat": repeat,
        "repeat_interleave": repeat_interleave,
        "cat": cat,
        "stack": stack,
        "split_with_sizes": split,
        "unbind": unbind,
        "select": unbind,
        "slice": slice_,
        "constant_pad_nd": pad,
        "glu": glu,
        "pixel_shuffle": pixel_shuffle,
        "sym_size": nothing,
    }
    | dict.fromkeys(_NEW, nothing)
    | dict.fromkeys(("arange", "full", "zeros", "ones", "empty", "scalar_tensor", "eye", "linspace"), nothing)
)
