"""Tidies a lifted graph: linear layers on tensors of any rank, no reshapes that change nothing.

Decomposed programs flatten a linear layer's input to a matrix, or expand its weight to a batch of matrices.
Folding these back gives decomposed and other exports the same form, which later steps read.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import fx, nn

from .attention import restore_attention
from .builder import Builder
from .rules import Rewriting, calls
from .source import describe

aten = torch.ops.aten
_PASSES = 8
Rule = Callable[[Rewriting, fx.Node], bool]


def fold(builder: Builder, values: list[dict[fx.Node, Any]]) -> None:
    """Apply the rules until none of them applies; `values` are every node's results at several batch sizes."""
    _apply(Rewriting(builder, values), _RULES)


def fold_weights(builder: Builder, values: dict[fx.Node, Any]) -> None:
    """Undo what spread weights over the example's batch, or over as many tokens; `values` are for one size."""
    _apply(Rewriting(builder, [values]), (_same_reshape, _spread_weight))


def _apply(rewriting: Rewriting, rules: Sequence[Rule]) -> None:
    for _ in range(_PASSES):
        changed = False
        for node in list(rewriting.graph.nodes):
            if node._erased or (not node.users and node.op not in ("output", "placeholder")):
                continue
            changed |= any(rule(rewriting, node) for rule in rules)
        rewriting.graph.eliminate_dead_code()
        if not changed:
            return


def _nothing(rewriting: Rewriting, node: fx.Node) -> bool:
    """A reshape or expand to the sizes that the tensor has."""
    if not calls(node, aten.reshape.default, aten.expand.default, aten.flatten.using_ints):
        return False
    source = node.all_input_nodes[0]
    if rewriting.sizes(node) != rewriting.sizes(source):
        return False
    rewriting.replace(node, source)
    return True


def _same_reshape(rewriting: Rewriting, node: fx.Node) -> bool:
    """A reshape to the sizes that the tensor has; an expand may only look so at the example's size."""
    return calls(node, aten.reshape.default) and _nothing(rewriting, node)


def _reshape_twice(rewriting: Rewriting, node: fx.Node) -> bool:
    """A reshape of a reshape is one."""
    source = node.args[0] if node.args else None
    if not calls(node, aten.reshape.default) or not calls(source, aten.reshape.default):
        return False
    node.update_arg(0, source.args[0])  # type: ignore[union-attr]
    return True


def _permute_twice(rewriting: Rewriting, node: fx.Node) -> bool:
    """A permutation of a permutation is one, or none."""
    source: Any = node.args[0] if node.args else None
    if not calls(node, aten.permute.default) or not calls(source, aten.permute.default):
        return False
    order = [source.args[1][dim] for dim in node.args[1]]  # type: ignore[union-attr]
    if order == sorted(order):
        rewriting.replace(node, source.args[0])
    else:
        node.args = (source.args[0], order)
    return True


def _spread_weight(rewriting: Rewriting, node: fx.Node) -> bool:
    """x @ W, with W expanded to as many copies as x has matrices."""
    right: Any = node.args[1] if len(node.args) > 1 else None
    if not calls(node, aten.matmul.default) or not calls(right, aten.expand.default):
        return False
    weight = right.args[0]
    if rewriting.rank(weight) != 2 or rewriting.leads(node.args[0], 2) != rewriting.leads(right, 2):
        return False
    node.update_arg(1, weight)
    return True


def _product_with_weight(rewriting: Rewriting, node: fx.Node) -> bool:
    """x @ W.T of a weight W is aten.linear."""
    right: Any = node.args[1] if len(node.args) > 1 else None
    if not calls(node, aten.matmul.default) or not calls(right, aten.permute.default):
        return False
    weight = right.args[0]
    if rewriting.rank(weight) != 2 or rewriting.rank(node.args[0]) < 2 or not rewriting.constant(weight):
        return False
    sizes = rewriting.sizes(node) or ()
    linear = rewriting.call(node, node, sizes, aten.linear.default, node.args[0], weight, None)
    rewriting.replace(node, linear)
    return True


def _sum_with_bias(rewriting: Rewriting, node: fx.Node) -> bool:
    """A weight added to aten.linear's result is its bias."""
    if not calls(node, aten.add.Tensor) or node.kwargs:
        return False
    pair: Any = node.args
    for linear, bias in (pair, pair[::-1]):
        if not calls(linear, aten.linear.default) or len(linear.users) > 1 or linear.args[2] is not None:
            continue
        if not isinstance(bias, fx.Node) or not rewriting.constant(bias):
            continue
        if rewriting.sizes(bias) != rewriting.tails(linear, 1):
            continue
        sizes = rewriting.sizes(node) or ()
        new = rewriting.call(node, linear, sizes, aten.linear.default, *linear.args[:2], bias)
        rewriting.replace(node, new)
        return True
    return False


def _module(rewriting: Rewriting, node: fx.Node) -> bool:
    """aten.linear with the weights of an nn.Linear."""
    if not calls(node, aten.linear.default):
        return False
    x, weight, bias = node.args
    builder = rewriting.builder
    states: list[Any] = [weight] if bias is None else [weight, bias]
    if any(state.op != "get_attr" for state in states):
        return False
    held = [builder.weights[str(state.target)] for state in states]
    if held[0].tensor.dim() != 2:
        return False
    outputs, inputs = held[0].tensor.shape
    settings = {"in_features": inputs, "out_features": outputs, "bias": bias is not None}
    roles = {"weight": held[0], "bias": held[1] if bias is not None else None}
    path = builder.layer(nn.Linear, settings, roles, node.meta["old"])
    if path is None:
        return False
    new = rewriting.call(node, node, rewriting.sizes(node) or (), path, x)
    new.meta["source"] = describe(node.meta["old"], path)
    rewriting.replace(node, new)
    return True


def _flat_linear(rewriting: Rewriting, node: fx.Node) -> bool:
    """A linear layer on a tensor that was flattened to a matrix and whose result is reshaped again."""
    if rewriting.kind(node) is not nn.Linear and not calls(node, aten.linear.default):
        return False
    flat: Any = node.args[0]
    users = list(node.users)
    if not calls(flat, aten.reshape.default) or rewriting.rank(flat) != 2:
        return False
    if not users or not all(calls(user, aten.reshape.default) and user.args[0] is node for user in users):
        return False
    source = flat.args[0]
    if rewriting.tails(source, 1) == rewriting.tails(flat, 1):
        leads, width = rewriting.leads(source, 1), rewriting.tails(node, 1)
        sizes = tuple(lead + last for lead, last in zip(leads or (), width or (), strict=True))
        rewriting.replace(node, rewriting.call(node, node, sizes, node.target, source, *node.args[1:]))
        return True
    return _flat_linear_between(rewriting, node, flat, users)


def _flat_linear_between(rewriting: Rewriting, node: fx.Node, flat: fx.Node, users: list[fx.Node]) -> bool:
    """The same where the flattening also merged the last dimensions: keep that part alone."""
    target: Any = users[0].args[1]
    first = rewriting.sizes(users[0]) or ()
    same = all(list(user.args[1]) == list(target) for user in users)  # type: ignore[arg-type]
    if (
        not same
        or rewriting.tails(users[0], 1) != rewriting.tails(node, 1)
        or len(first[0]) < 3
        or -1 in target
    ):
        return False
    width = (rewriting.tails(flat, 1) or ())[0][0]
    leads = rewriting.leads(users[0], 1) or ()
    place = min(users, key=list(rewriting.graph.nodes).index)
    sizes = tuple((*lead, width) for lead in leads)
    shaped = rewriting.call(place, flat, sizes, aten.reshape.default, flat.args[0], [*target[:-1], width])
    new = rewriting.call(place, node, first, node.target, shaped, *node.args[1:])
    for user in users:
        rewriting.replace(user, new)
    return True


def _flat_product(rewriting: Rewriting, node: fx.Node) -> bool:
    """A product of matrices whose leading dimensions were merged before it and are parted again after it."""
    if not calls(node, aten.matmul.default) or rewriting.rank(node) != 3 or not node.users:
        return False
    users = list(node.users)
    if not all(calls(user, aten.reshape.default) for user in users):
        return False
    sizes, leads = rewriting.sizes(users[0]), rewriting.leads(users[0], 2)
    target: Any = users[0].args[1]
    if any(rewriting.sizes(user) != sizes for user in users) or -1 in target:
        return False
    if rewriting.tails(users[0], 2) != rewriting.tails(node, 2) or rewriting.rank(users[0]) < 4:
        return False
    sources = [_parted(rewriting, side, leads) for side in node.args]
    if sources == [None, None]:
        return False
    place = min(users, key=list(rewriting.graph.nodes).index)
    sides: list[fx.Node] = []
    for side, source in zip(node.args, sources, strict=True):
        tails = rewriting.tails(side, 2) or ()
        shape = tuple(lead + tail for lead, tail in zip(leads or (), tails, strict=True))
        again = (aten.reshape.default, side, [*target[:-2], *tails[0]])
        sides.append(source or rewriting.call(place, node, shape, *again))
    new = rewriting.call(place, node, sizes or (), aten.matmul.default, *sides)
    for user in users:
        rewriting.replace(user, new)
    return True


def _parted(rewriting: Rewriting, side: Any, leads: Any) -> fx.Node | None:
    """What `side` was before its leading dimensions were merged, if these were `leads`."""
    source = side.args[0] if calls(side, aten.reshape.default) else None
    same = rewriting.leads(source, 2) == leads and rewriting.tails(source, 2) == rewriting.tails(side, 2)
    return source if same else None


def _silu(rewriting: Rewriting, node: fx.Node) -> bool:
    """x * sigmoid(x), which is how SiLU is written out."""
    if not calls(node, aten.mul.Tensor):
        return False
    pair: Any = node.args
    x, gate = pair if rewriting.kind(pair[1]) is nn.Sigmoid else pair[::-1]
    if rewriting.kind(gate) is not nn.Sigmoid or gate.args != (x,) or len(gate.users) > 1:
        return False
    builder, old = rewriting.builder, node.meta["old"]
    path = str(gate.target)
    if sum(other.target == path for other in rewriting.graph.nodes) > 1:
        return False
    builder.tree.remove(path)
    path = builder.stateless(nn.SiLU, {}, old, "silu")
    new = rewriting.call(node, node, rewriting.sizes(node) or (), path, x)
    new.meta["source"] = describe(old, path)
    rewriting.replace(node, new)
    rewriting.graph.erase_node(gate)
    return True


_RULES: tuple[Rule, ...] = (
    _nothing,
    _spread_weight,
    _product_with_weight,
    _sum_with_bias,
    _module,
    _silu,
    _flat_linear,
    _flat_product,
    restore_attention,
    _permute_twice,
    _reshape_twice,
)
