"""Operators without weights that are standard modules: activations, pooling, dropout."""

from typing import Any

from torch import fx, nn

from .builder import Builder
from .source import enclosing
from .symbols import shape

_POOL = ("kernel_size", "stride", "padding", "dilation", "ceil_mode")
_AVERAGE = ("kernel_size", "stride", "padding", "ceil_mode", "count_include_pad", "divisor_override")
# operator: (module, names of the operator's arguments that are the module's settings)
_MODULES: dict[str, tuple[type[nn.Module], tuple[str, ...]]] = {
    "relu": (nn.ReLU, ()),
    "relu6": (nn.ReLU6, ()),
    "gelu": (nn.GELU, ("approximate",)),
    "silu": (nn.SiLU, ()),
    "mish": (nn.Mish, ()),
    "selu": (nn.SELU, ()),
    "hardswish": (nn.Hardswish, ()),
    "hardsigmoid": (nn.Hardsigmoid, ()),
    "sigmoid": (nn.Sigmoid, ()),
    "tanh": (nn.Tanh, ()),
    "log_sigmoid": (nn.LogSigmoid, ()),
    "leaky_relu": (nn.LeakyReLU, ("negative_slope",)),
    "celu": (nn.CELU, ("alpha",)),
    "softplus": (nn.Softplus, ("beta", "threshold")),
    "hardtanh": (nn.Hardtanh, ("min_val", "max_val")),
    "softshrink": (nn.Softshrink, ("lambd",)),
    "hardshrink": (nn.Hardshrink, ("lambd",)),
    "threshold": (nn.Threshold, ("threshold", "value")),
    "max_pool1d": (nn.MaxPool1d, _POOL),
    "max_pool2d": (nn.MaxPool2d, _POOL),
    "max_pool3d": (nn.MaxPool3d, _POOL),
    "avg_pool1d": (nn.AvgPool1d, _AVERAGE[:-1]),
    "avg_pool2d": (nn.AvgPool2d, _AVERAGE),
    "avg_pool3d": (nn.AvgPool3d, _AVERAGE),
    "adaptive_avg_pool1d": (nn.AdaptiveAvgPool1d, ("output_size",)),
    "adaptive_avg_pool2d": (nn.AdaptiveAvgPool2d, ("output_size",)),
    "adaptive_avg_pool3d": (nn.AdaptiveAvgPool3d, ("output_size",)),
}
# These also return the indices of the maxima.
_WITH_INDICES: dict[str, tuple[type[nn.Module], tuple[str, ...]]] = {
    "max_pool1d_with_indices": (nn.MaxPool1d, _POOL),
    "max_pool2d_with_indices": (nn.MaxPool2d, _POOL),
    "max_pool3d_with_indices": (nn.MaxPool3d, _POOL),
    "adaptive_max_pool1d": (nn.AdaptiveMaxPool1d, ("output_size",)),
    "adaptive_max_pool2d": (nn.AdaptiveMaxPool2d, ("output_size",)),
    "adaptive_max_pool3d": (nn.AdaptiveMaxPool3d, ("output_size",)),
}
_FEATURE_DROPOUTS = {3: nn.Dropout1d, 4: nn.Dropout2d, 5: nn.Dropout3d}
_NAMED_DROPOUTS: dict[str, type[nn.Module]] = {
    f"torch.nn.modules.dropout.{kind.__name__}": kind for kind in (nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)
}


def module(builder: Builder, old: fx.Node, bound: dict[str, Any]) -> fx.Node:
    """An operator that is a module of its own."""
    kind, names = _MODULES[_name(old)]
    settings = _settings(names, bound)
    if kind is nn.Hardtanh and (settings["min_val"], settings["max_val"]) == (0, 6):
        kind, settings = nn.ReLU6, {}
    return builder.call(builder.stateless(kind, settings, old), _input(bound), old=old)


def with_indices(builder: Builder, old: fx.Node, bound: dict[str, Any]) -> Any:
    """Max pooling whose first result alone is used; otherwise the operator stays as it is."""
    if any(user.args[1:] != (0,) for user in old.users if len(user.users)):
        return builder.keep(old.target, bound, old)
    kind, names = _WITH_INDICES[_name(old)]
    path = builder.stateless(kind, _settings(names, bound), old)
    return (builder.call(path, _input(bound), old=old), None)


def elu(builder: Builder, old: fx.Node, bound: dict[str, Any]) -> fx.Node:
    """aten.elu, which is also how SELU and CELU are written out."""
    if (bound["scale"], bound["input_scale"]) != (1, 1):
        return builder.keep(old.target, bound, old)
    return builder.call(builder.stateless(nn.ELU, {"alpha": bound["alpha"]}, old), _input(bound), old=old)


def dropout(builder: Builder, old: fx.Node, bound: dict[str, Any]) -> fx.Node:
    """aten.dropout: follows the module's mode, whichever mode it was exported in."""
    return builder.call(builder.stateless(nn.Dropout, {"p": bound["p"]}, old), _input(bound), old=old)


def native_dropout(builder: Builder, old: fx.Node, bound: dict[str, Any]) -> tuple[Any, ...]:
    """aten.native_dropout, whose mask nobody reads."""
    return (dropout(builder, old, bound), None)


def feature_dropout(builder: Builder, old: fx.Node, bound: dict[str, Any]) -> fx.Node:
    """Dropout of whole channels."""
    by_rank = _FEATURE_DROPOUTS.get(len(shape(old)), nn.Dropout2d)
    kind = _NAMED_DROPOUTS.get(enclosing(old)[1], by_rank)
    return builder.call(builder.stateless(kind, {"p": bound["p"]}, old), _input(bound), old=old)


def alpha_dropout(builder: Builder, old: fx.Node, bound: dict[str, Any]) -> fx.Node:
    """aten.alpha_dropout and feature_alpha_dropout."""
    kind = nn.FeatureAlphaDropout if _name(old).startswith("feature") else nn.AlphaDropout
    return builder.call(builder.stateless(kind, {"p": bound["p"]}, old), _input(bound), old=old)


def _name(old: fx.Node) -> str:
    name = str(old.target.overloadpacket.__name__)  # type: ignore[union-attr]
    return name.rstrip("_").removeprefix("_")


def _input(bound: dict[str, Any]) -> Any:
    return bound["self"] if "self" in bound else bound["input"]


def _settings(names: tuple[str, ...], bound: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in names:
        value = bound[name]
        if name == "stride" and not value:
            continue  # the module's default is the kernel's size
        if isinstance(value, list | tuple):
            value = value[0] if len(set(value)) == 1 else tuple(value)
        found[name] = value
    return found


_DROPOUTS = {
    "dropout": dropout,
    "native_dropout": native_dropout,
    "feature_dropout": feature_dropout,
    "alpha_dropout": alpha_dropout,
    "feature_alpha_dropout": alpha_dropout,
}
HANDLERS = {
    **dict.fromkeys(_MODULES, module),
    **{f"_{name}": module for name in ("adaptive_avg_pool2d", "adaptive_avg_pool3d")},
    **dict.fromkeys(_WITH_INDICES, with_indices),
    **_DROPOUTS,
    "elu": elu,
}
