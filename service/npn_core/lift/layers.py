"""Operators with weights: convolution, linear, normalisation, embedding."""

from typing import Any

import torch
from torch import fx, nn

from .builder import Builder
from .source import enclosing, refusal
from .symbols import shape
from .weights import Weight

aten = torch.ops.aten
_CONV = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_INSTANCE = {3: nn.InstanceNorm1d, 4: nn.InstanceNorm2d, 5: nn.InstanceNorm3d}


def plain(weight: Any) -> bool:
    """A weight as it is stored, or none at all."""
    return weight is None or (isinstance(weight, Weight) and not weight.transposed)


def convolution(builder: Builder, old: fx.Node, bound: dict[str, Any]) -> fx.Node:
    """aten.convolution, conv1d to conv3d, conv_transpose1d to 3d."""
    weight, bias = bound["weight"], bound["bias"]
    rank = len(shape(old)) - 2
    unbatched = len(shape(old.args[0])) != rank + 2
    name = old.target.overloadpacket.__name__  # type: ignore[union-attr]
    transposed = bound.get("transposed", "transpose" in name)
    each = {key: _repeat(bound[key], rank) for key in ("stride", "padding", "dilation")}
    extra = _repeat(bound.get("output_padding", 0), rank)
    if isinstance(weight, Weight) and plain(weight) and plain(bias) and not unbatched:
        path = _install_conv(builder, old, weight, bias, transposed, bound["groups"], each, extra)
        if path is not None:
            return builder.call(path, bound["input"], old=old)
    if isinstance(bound["padding"], str):
        return builder.keep(old.target, bound, old)
    stride, padding, dilation = each["stride"], each["padding"], each["dilation"]
    args = (bound["input"], weight, bias, stride, padding, dilation, transposed, extra, bound["groups"])
    return builder.emit(aten.convolution.default, *args, old=old)


def _install_conv(
    builder: Builder,
    old: fx.Node,
    weight: Weight,
    bias: Weight | None,
    transposed: bool,
    groups: int,
    each: dict[str, Any],
    extra: Any,
) -> str | None:
    sizes = weight.tensor.shape
    channels = (sizes[0], sizes[1] * groups) if transposed else (sizes[1] * groups, sizes[0])
    settings = {
        "in_channels": channels[0],
        "out_channels": channels[1],
        "kernel_size": tuple(sizes[2:]),
        "groups": groups,
        "bias": bias is not None,
        **each,
    }
    if transposed:
        settings["output_padding"] = extra
    kind = (_TRANSPOSED if transposed else _CONV)[len(sizes) - 3]
    return builder.layer(kind, settings, {"weight": weight, "bias": bias}, old)


def _repeat(value: Any, rank: int) -> Any:
    if isinstance(value, str):
        return value
    values = tuple(value) if isinstance(value, list | tuple) else (value,)
    return values * rank if len(values) == 1 else values


def linear(builder: Builder, old: fx.Node, bound: dict[str, Any]) -> fx.Node:
    """aten.linear."""
    return affine(builder, old, bound["input"], bound["weight"], bound["bias"])


def affine(builder: Builder, old: fx.Node, x: Any, weight: Any, bias: Any) -> fx.Node:
    """x @ weight.T + bias, as nn.Linear where the weights are one's own."""
    if isinstance(weight, Weight) and plain(weight) and plain(bias) and weight.tensor.dim() == 2:
        outputs, inputs = weight.tensor.shape
        settings = {"in_features": inputs, "out_features": outputs, "bias": bias is not None}
        path = builder.layer(nn.Linear, settings, {"weight": weight, "bias": bias}, old)
        if path is not None:
            return builder.call(path, x, old=old)
    return builder.emit(aten.linear.default, x, weight, bias, old=old)


def batch_norm(builder: Builder, old: fx.Node, bound: dict[str, Any]) -> fx.Node:
    """aten.batch_norm."""
    node: fx.Node = native_batch_norm(builder, old, bound)[0]
    return node


def native_batch_norm(builder: Builder, old: fx.Node, bound: dict[str, Any]) -> tuple[Any, ...]:
    """The variants behind aten.batch_norm; the results are (output, -, -, running mean, running variance)."""
    roles = {key: bound.get(key) for key in ("weight", "bias", "running_mean", "running_var")}
    x, eps = bound["input"], bound.get("eps", bound.get("epsilon"))
    sizes = shape(old.args[0])
    kind = {4: nn.BatchNorm2d, 5: nn.BatchNorm3d}.get(len(sizes), nn.BatchNorm1d)
    momentum = bound.get("momentum", bound.get("exponential_average_factor"))
    settings = {
        "num_features": builder.symbols.static(sizes[1], old),
        "eps": eps,
        # A module with momentum=None, the average over all batches, is exported in eval mode as 0.0.
        "momentum": momentum if momentum else None,
        "affine": roles["weight"] is not None,
        "track_running_stats": roles["running_mean"] is not None,
    }
    # A decomposed instance_norm is a batch_norm without weights over (1, batch * channels, ...).
    own = any(roles.values()) or "BatchNorm" in enclosing(old)[1]
    path = _norm(builder, old, kind, settings, roles) if own and settings["num_features"] else None
    if path is None and roles["running_mean"] is None:
        args = (x, roles["weight"], roles["bias"], None, None, True, 0.0, eps, False)
        return (builder.emit(aten.batch_norm.default, *args, old=old), None, None)
    if path is None:
        raise refusal(old, "must have the weights and statistics of one torch.nn.BatchNorm module")
    for key in ("running_mean", "running_var", "num_batches_tracked"):
        if f"{path}.{key}" in builder.weights:
            builder.tracked.update(builder.weights.names(builder.weights[f"{path}.{key}"]))
    node = builder.call(path, x, old=old)
    return (node, None, None, roles["running_mean"], roles["running_var"])


def _norm(
    builder: Builder, old: fx.Node, kind: type[nn.Module], settings: dict[str, Any], roles: dict[str, Any]
) -> str | None:
    if any(not plain(weight) for weight in roles.values()):
        return None
    if all(weight is None for weight in roles.values()):
        return builder.stateless(kind, settings, old)
    return builder.layer(kind, settings, roles, old)


def layer_norm(builder: Builder, old: fx.Node, bound: dict[str, Any]) -> fx.Node:
    """aten.layer_norm and native_layer_norm's first result."""
    roles = {"weight": bound["weight"], "bias": bound["bias"]}
    sizes = tuple(builder.symbols.static(size, old) for size in bound["normalized_shape"])
    settings = {
        "normalized_shape": sizes,
        "eps": bound["eps"],
        "elementwise_affine": roles["weight"] is not None,
        "bias": roles["bias"] is not None,
    }
    path = _norm(builder, old, nn.LayerNorm, settings, roles)
    if path is not None:
        return builder.call(path, bound["input"], old=old)
    args = (bound["input"], list(sizes), bound["weight"], bound["bias"], bound["eps"])
    return builder.emit(aten.layer_norm.default, *args, old=old)


def native_layer_norm(builder: Builder, old: fx.Node, bound: dict[str, Any]) -> tuple[Any, ...]:
    """The first result; the mean and deviation beside it are for the backward pass alone."""
    return (layer_norm(builder, old, bound), None, None)


def group_norm(builder: Builder, old: fx.Node, bound: dict[str, Any]) -> fx.Node:
    """aten.group_norm and native_group_norm's first result."""
    roles = {"weight": bound["weight"], "bias": bound["bias"]}
    groups = bound["num_groups"] if "num_groups" in bound else bound["group"]
    settings = {
        "num_groups": groups,
        "num_channels": builder.symbols.static(shape(old.args[0])[1], old),
        "eps": bound["eps"],
        "affine": roles["weight"] is not None,
    }
    path = _norm(builder, old, nn.GroupNorm, settings, roles)
    if path is not None:
        return builder.call(path, bound["input"], old=old)
    args = (bound["input"], groups, bound["weight"], bound["bias"], bound["eps"])
    return builder.emit(aten.group_norm.default, *args, old=old)


def native_group_norm(builder: Builder, old: fx.Node, bound: dict[str, Any]) -> tuple[Any, ...]:
    """The first result; the mean and deviation beside it are for the backward pass alone."""
    return (group_norm(builder, old, {**bound, "input": bound["input"]}), None, None)


def instance_norm(builder: Builder, old: fx.Node, bound: dict[str, Any]) -> fx.Node:
    """aten.instance_norm."""
    roles = {key: bound[key] for key in ("weight", "bias", "running_mean", "running_var")}
    sizes = shape(old.args[0])
    settings = {
        "num_features": builder.symbols.static(sizes[1], old),
        "eps": bound["eps"],
        "momentum": bound["momentum"],
        "affine": roles["weight"] is not None,
        "track_running_stats": roles["running_mean"] is not None,
    }
    path = _norm(builder, old, _INSTANCE[len(sizes)], settings, roles) if len(sizes) in _INSTANCE else None
    if path is not None:
        for key in ("running_mean", "running_var", "num_batches_tracked"):
            if f"{path}.{key}" in builder.weights:
                builder.tracked.update(builder.weights.names(builder.weights[f"{path}.{key}"]))
        return builder.call(path, bound["input"], old=old)
    if roles["running_mean"] is not None:
        raise refusal(old, "must have the weights and statistics of one torch.nn.InstanceNorm module")
    return builder.keep(old.target, bound, old)


def embedding(builder: Builder, old: fx.Node, bound: dict[str, Any]) -> fx.Node:
    """aten.embedding."""
    weight = bound["weight"]
    if isinstance(weight, Weight) and plain(weight):
        padding = bound["padding_idx"]
        settings = {
            "num_embeddings": weight.tensor.shape[0],
            "embedding_dim": weight.tensor.shape[1],
            "padding_idx": padding if padding >= 0 else None,
            "scale_grad_by_freq": bound["scale_grad_by_freq"],
        }
        path = builder.layer(nn.Embedding, settings, {"weight": weight}, old)
        if path is not None:
            return builder.call(path, bound["indices"], old=old)
    return builder.keep(old.target, bound, old)


def prelu(builder: Builder, old: fx.Node, bound: dict[str, Any]) -> fx.Node:
    """aten.prelu."""
    weight = bound["weight"]
    if isinstance(weight, Weight) and plain(weight) and "PReLU" in enclosing(old)[1]:
        settings = {"num_parameters": weight.tensor.numel()}
        path = builder.layer(nn.PReLU, settings, {"weight": weight}, old)
        if path is not None:
            return builder.call(path, bound["self"], old=old)
    return builder.keep(old.target, bound, old)


UPDATING = ("_native_batch_norm_legit", "_batch_norm_with_update")  # write to running statistics
_BATCH_NORMS = (
    "native_batch_norm",
    "cudnn_batch_norm",
    "_native_batch_norm_legit",
    "_native_batch_norm_legit_functional",
    "_native_batch_norm_legit_no_training",
    "_batch_norm_with_update",
    "_batch_norm_with_update_functional",
    "_batch_norm_no_update",
)
_CONVOLUTIONS = (
    "convolution",
    *("conv1d", "conv2d", "conv3d"),
    *("conv_transpose1d", "conv_transpose2d", "conv_transpose3d"),
)
HANDLERS = {
    **dict.fromkeys(_CONVOLUTIONS, convolution),
    **dict.fromkeys(_BATCH_NORMS, native_batch_norm),
    "batch_norm": batch_norm,
    "linear": linear,
    "layer_norm": layer_norm,
    "native_layer_norm": native_layer_norm,
    "group_norm": group_norm,
    "native_group_norm": native_group_norm,
    "instance_norm": instance_norm,
    "embedding": embedding,
    "prelu": prelu,
}
