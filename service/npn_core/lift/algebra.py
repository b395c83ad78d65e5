"""Products, softmax, attention, reductions and casts in one form each."""

from operator import getitem
from typing import Any

import torch
from torch import Tensor, fx

from .builder import Builder
from .layers import affine
from .symbols import shape
from .weights import Weight

aten = torch.ops.aten


def matmul(builder: Builder, old: fx.Node, bound: dict[str, Any]) -> Any:
    """mm, bmm, matmul, mv, dot: a linear layer where the right side is a transposed weight."""
    left = bound["self"]
    right = next(bound[key] for key in ("mat2", "other", "vec", "tensor") if key in bound)
    if isinstance(right, Weight) and right.transposed:
        return affine(builder, old, left, builder.transpose(right), None)
    return builder.emit(aten.matmul.default, left, right, old=old)


def addmm(builder: Builder, old: fx.Node, bound: dict[str, Any]) -> Any:
    """addmm: a linear layer where the right side is a transposed weight and the sum a bias."""
    bias, left, right = bound["self"], bound["mat1"], bound["mat2"]
    plain = bound["beta"] == 1 and bound["alpha"] == 1
    if plain and isinstance(right, Weight) and right.transposed and isinstance(bias, Weight):
        return affine(builder, old, left, builder.transpose(right), bias)
    return _sum(builder, old, bound, builder.emit(aten.matmul.default, left, right, old=old))


def baddbmm(builder: Builder, old: fx.Node, bound: dict[str, Any]) -> Any:
    """baddbmm as a product and a sum."""
    product = builder.emit(aten.matmul.default, bound["batch1"], bound["batch2"], old=old)
    return _sum(builder, old, bound, product)


def _sum(builder: Builder, old: fx.Node, bound: dict[str, Any], product: fx.Node) -> Any:
    if bound["alpha"] != 1:
        product = builder.emit(aten.mul.Tensor, product, bound["alpha"], old=old)
    if bound["beta"] == 0:
        return product
    left = bound["self"]
    if bound["beta"] != 1:
        left = builder.emit(aten.mul.Tensor, left, bound["beta"], old=old)
    return builder.emit(aten.add.Tensor, left, product, old=old)


def softmax(builder: Builder, old: fx.Node, bound: dict[str, Any]) -> Any:
    """softmax and _softmax, log_softmax and _log_softmax; the dimension counted from the front."""
    name = str(old.target.overloadpacket.__name__)  # type: ignore[union-attr]
    target = aten.log_softmax.int if "log" in name else aten.softmax.int
    dim = bound["dim"] % max(len(shape(old)), 1)
    return builder.emit(target, bound["self"], dim, bound.get("dtype"), old=old)


def attention(builder: Builder, old: fx.Node, bound: dict[str, Any]) -> Any:
    """scaled_dot_product_attention; its dropout_p goes to `meta["dropout_p"]`, for who trains the graph."""
    kept = builder.keep(old.target, {**bound, "dropout_p": 0.0}, old)
    kept.meta["dropout_p"] = bound["dropout_p"]
    return kept


def fused_attention(builder: Builder, old: fx.Node, bound: dict[str, Any]) -> tuple[Any, ...]:
    """The kernels behind scaled_dot_product_attention, whose first result alone is read."""
    mask = bound.get("attn_mask", bound.get("attn_bias"))
    args = (bound["query"], bound["key"], bound["value"], mask, 0.0, bound["is_causal"])
    scale = {} if bound.get("scale") is None else {"scale": bound["scale"]}
    attended = builder.emit(aten.scaled_dot_product_attention.default, *args, old=old, **scale)
    attended.meta["dropout_p"] = bound["dropout_p"]
    return (attended, None)


def reduction(builder: Builder, old: fx.Node, bound: dict[str, Any]) -> Any:
    """mean, sum and amax over given dimensions, counted from the front."""
    rank = len(shape(old.args[0]))
    dims = bound.get("dim")
    if isinstance(dims, list | tuple) and rank:
        bound = {**bound, "dim": [dim % rank for dim in dims]}
    return builder.keep(old.target, bound, old)


def cast(builder: Builder, old: fx.Node, bound: dict[str, Any]) -> Any:
    """Every way to say `to`: nothing, or aten.to.dtype."""
    before, after = (node.meta["val"].dtype for node in (old.args[0], old))  # type: ignore[union-attr]
    if before == after:
        return bound["self"]
    return builder.emit(aten.to.dtype, bound["self"], after, old=old)


def same(builder: Builder, old: fx.Node, bound: dict[str, Any]) -> Any:
    """What only copies, aliases or lays out anew."""
    return bound["self"]


def detach(builder: Builder, old: fx.Node, bound: dict[str, Any]) -> Any:
    """detach stops the gradient; of a constant there is none."""
    value = bound["self"]
    if isinstance(value, Weight) and not value.tensor.requires_grad:
        return value
    return builder.emit(aten.detach.default, value, old=old)


def glu(builder: Builder, old: fx.Node, bound: dict[str, Any]) -> Any:
    """glu as what it is: a * sigmoid(b) of the two halves, so that its units couple like any split's."""
    sizes = shape(old)
    dim = bound["dim"] % len(sizes)
    half = builder.symbols.static(sizes[dim], old)
    if half is None:
        return builder.keep(old.target, bound, old)
    parts = builder.emit(aten.split_with_sizes.default, bound["self"], [half, half], dim, old=old)
    left, right = (builder.emit(getitem, parts, index, old=old) for index in (0, 1))
    path = builder.stateless(torch.nn.Sigmoid, {}, old)
    return builder.emit(aten.mul.Tensor, left, builder.call(path, right, old=old), old=old)


def scalar(builder: Builder, old: fx.Node, bound: dict[str, Any]) -> Any:
    """add.Scalar and friends as add.Tensor, which takes numbers as well."""
    name = str(old.target.overloadpacket.__name__).rstrip("_")  # type: ignore[union-attr]
    if old.target._overloadname != "Scalar" or not isinstance(old.meta.get("val"), Tensor):  # type: ignore[union-attr]
        return builder.keep(old.target, bound, old)
    target = getattr(aten, name).Tensor
    kwargs = {"alpha": bound["alpha"]} if bound.get("alpha", 1) != 1 else {}
    return builder.emit(target, bound["self"], bound["other"], old=old, **kwargs)


_FUSED = (
    "_scaled_dot_product_flash_attention_for_cpu",
    "_scaled_dot_product_flash_attention",
    "_scaled_dot_product_efficient_attention",
    "_scaled_dot_product_cudnn_attention",
)
_SAME = (
    "clone",
    "contiguous",
    "alias",
    "lift_fresh",
    "lift_fresh_copy",
    "lift",
    "resolve_conj",
    "resolve_neg",
)
_CASTS = ("to", "_to_copy", "type_as", "float", "half", "double")
HANDLERS = {
    **dict.fromkeys(("mm", "bmm", "matmul", "mv", "dot"), matmul),
    "addmm": addmm,
    "baddbmm": baddbmm,
    **dict.fromkeys(("softmax", "_softmax", "log_softmax", "_log_softmax"), softmax),
    "scaled_dot_product_attention": attention,
    **dict.fromkeys(_FUSED, fused_attention),
    **dict.fromkeys(("mean", "sum", "amax", "amin"), reduction),
    **dict.fromkeys(_CASTS, cast),
    **dict.fromkeys(_SAME, same),
    "detach": detach,
    "glu": glu,
    **dict.fromkeys(("add", "sub", "mul", "div"), scalar),
}
