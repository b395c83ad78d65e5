"""Attention that a decomposition wrote out, as scaled_dot_product_attention again."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn

from .rules import Rewriting, calls

aten = torch.ops.aten


@dataclass(frozen=True, kw_only=True, slots=True)
class _Scores:
    query: fx.Node
    turned: fx.Node  # the keys, their last two axes swapped
    mask: Any
    scale: float


def restore_attention(rewriting: Rewriting, node: fx.Node) -> bool:
    """The decomposition of scaled_dot_product_attention, whose root is the product with the values.

    PyTorch writes softmax(a*q @ (a*k).T + mask) with zeros where a row is masked altogether; the operator
    means the same (`torch._safe_softmax`).
    """
    if not calls(node, aten.matmul.default) or rewriting.rank(node) != 4:
        return False
    weights: Any = node.args[0]
    dropout = weights if rewriting.kind(weights) is nn.Dropout else None
    inner: Any = weights if dropout is None else weights.args[0]
    safe = _safe_softmax(inner)
    scores = _scores(safe) if safe is not None else None
    if scores is None or len(weights.users) > 1 or len(inner.users) > 1:
        return False
    p = 0.0 if dropout is None else rewriting.module.get_submodule(dropout.target).p
    width = (rewriting.tails(scores.query, 1) or ((0,),))[0][0]
    scale = {} if math.isclose(scores.scale, width**-0.5, rel_tol=1e-12) else {"scale": scores.scale}
    args = (scores.query, _key(rewriting, node, scores.turned), node.args[1], scores.mask, 0.0, False)
    sizes = rewriting.sizes(node) or ()
    new = rewriting.call(node, node, sizes, aten.scaled_dot_product_attention.default, *args, **scale)
    new.meta["dropout_p"] = p
    rewriting.replace(node, new)
    if dropout is not None:
        rewriting.graph.erase_node(dropout)
        if not any(other.target == dropout.target for other in rewriting.graph.nodes):
            rewriting.builder.tree.remove(dropout.target)
    return True


def _key(rewriting: Rewriting, place: fx.Node, turned: fx.Node) -> fx.Node:
    source: Any = turned.args[0]
    first, second, third, last = list(turned.args[1])  # type: ignore[arg-type]
    order = [first, second, last, third]
    if order == [0, 1, 2, 3]:
        key: fx.Node = source
        return key
    sizes = tuple(tuple(size[dim] for dim in order) for size in rewriting.sizes(source) or ())
    return rewriting.call(place, turned, sizes, aten.permute.default, source, order)


def _safe_softmax(node: Any) -> fx.Node | None:
    """The scores s if `node` is softmax(s) with zeros for rows that are -inf throughout."""
    if not calls(node, aten.where.self):
        return None
    masked, zero, soft = node.args
    if (
        not calls(soft, aten.softmax.int)
        or soft.args[1] != 3
        or not calls(zero, aten.full_like.default, aten.zeros_like.default)
    ):
        return None
    for target in (aten.logical_not.default, aten.any.dim, aten.logical_not.default, aten.eq.Scalar):
        if not calls(masked, target):
            return None
        rest, masked = masked.args[1:], masked.args[0]
    scores = soft.args[0]
    same = (
        masked is scores
        and rest == (-math.inf,)
        and (calls(zero, aten.zeros_like.default) or zero.args[1] == 0)
    )
    return scores if same else None


def _scores(node: fx.Node) -> _Scores | None:
    """The parts of a*q @ (b*k).T + mask."""
    mask = None
    if calls(node, aten.add.Tensor) and not node.kwargs:
        node, mask = node.args  # type: ignore[assignment]
    if not calls(node, aten.matmul.default):
        return None
    query, left = _scaled(node.args[0])
    turned, right = _scaled(node.args[1])
    if not calls(turned, aten.permute.default) or len(turned.args[1]) != 4:
        return None
    return _Scores(query=query, turned=turned, mask=mask, scale=left * right)


def _scaled(node: Any) -> tuple[Any, float]:
    if calls(node, aten.mul.Tensor) and isinstance(node.args[1], int | float):
        return node.args[0], float(node.args[1])
    return node, 1.0
