"""One old node after another: what it becomes in the lifted graph."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, fx
from torch._ops import HigherOrderOperator, OpOverload
from torch.utils import _pytree as pytree

from npn_core.errors import InvalidInput

from . import algebra, layers, reshaping, schema, stateless
from .builder import Builder
from .inplace import memory
from .source import describe, refusal
from .weights import Weight

Handler = Callable[[Builder, fx.Node, dict[str, Any]], Any]
aten = torch.ops.aten
HANDLERS: dict[str, Handler] = {
    **layers.HANDLERS,
    **stateless.HANDLERS,
    **reshaping.HANDLERS,
    **algebra.HANDLERS,
}
_DROPPED = (
    *("_assert_tensor_metadata", "_assert_async", "_assert_scalar", "_functional_assert_async"),
    *("sym_constrain_range", "sym_constrain_range_for_size", "_functional_sym_constrain_range"),
)
_REFUSED = ("lstm", "gru", "rnn_tanh", "rnn_relu", "mkldnn_rnn_layer", "_thnn_fused_lstm_cell")
# Python's own operators, on sizes and on operators' results.
_PYTHON = frozenset(
    [
        *("getitem", "eq", "ne", "le", "ge", "lt", "gt", "neg", "pos", "and_", "or_", "not_"),
        *("add", "sub", "mul", "floordiv", "truediv", "mod", "pow", "trunc", "ceil", "floor"),
        *("sym_not", "sym_int", "sym_float", "sym_ite", "sym_max", "sym_min", "sym_sqrt", "sym_sum"),
    ]
)
_SETS_GRAD = "wrap_with_set_grad_enabled"
_AUTOCAST = "wrap_with_autocast"


def run(builder: Builder, module: fx.GraphModule, nodes: Sequence[fx.Node]) -> None:
    """Lower the nodes in order; `module` holds the subgraphs that they call."""
    for node in nodes:
        if node.op in ("placeholder", "output"):
            continue
        try:
            builder.values[node] = _value(builder, module, node)
        except InvalidInput:
            raise
        except Exception as error:  # a graph from outside may hold anything: say where it went wrong
            raise refusal(node, f"cannot be lifted as it is used here ({type(error).__name__})") from error


def _value(builder: Builder, module: fx.GraphModule, node: fx.Node) -> Any:
    if node.op == "call_function":
        return _call(builder, module, node)
    part = getattr(module, str(node.target), None) if node.op == "get_attr" else None
    if not isinstance(part, fx.GraphModule):
        raise refusal(node, "is not supported")
    return part


def _call(builder: Builder, module: fx.GraphModule, node: fx.Node) -> Any:
    target = node.target
    if isinstance(target, HigherOrderOperator):
        return _subgraph(builder, node)
    if not isinstance(target, OpOverload):
        return _python(builder, node)
    if schema.name(target) == "sym_size":
        return _size(builder, node)
    if target.namespace != "aten":
        raise refusal(node, "is not one of PyTorch's own operators (aten)")
    return _operator(builder, node, target)


def _operator(builder: Builder, node: fx.Node, target: OpOverload) -> Any:
    name = schema.name(target)
    if name in _DROPPED:
        return None
    handler = HANDLERS.get(name)
    bound = schema.bind(target, builder.lookup(node.args), builder.lookup(node.kwargs))
    if schema.mutated(target) and name not in layers.UPDATING:
        return _in_place(builder, node, target, bound)
    _check_shape(builder, node)
    if handler is not None:
        return handler(builder, node, bound)
    if name in _REFUSED:
        raise refusal(node, "is not supported: recurrent layers cannot be taken apart into units")
    _check(node, target)
    return builder.keep(target, bound, node)


def _check_shape(builder: Builder, node: fx.Node) -> None:
    for value in pytree.tree_leaves(node.meta.get("val")):
        for size in value.shape if isinstance(value, Tensor) else ():
            builder.symbols.static(size, node)


def _check(node: fx.Node, target: OpOverload) -> None:
    if torch.Tag.nondeterministic_seeded in target.tags:
        raise refusal(node, "draws random numbers, which of all operators dropout alone may")
    dynamic = (torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape)
    if any(tag in target.tags for tag in dynamic) and target is not aten.index.Tensor:
        raise refusal(node, "depends on the data's values for its shape or its course")


def _in_place(builder: Builder, node: fx.Node, target: OpOverload, bound: dict[str, Any]) -> Any:
    if schema.name(target) == "detach_":  # changes who may ask for a gradient, not the values
        return algebra.detach(builder, node, bound)
    written = schema.mutated(target)
    other = schema.functional(target)
    if other is None or len(written) > 1 or not isinstance(node.args[0], fx.Node):
        raise refusal(node, "changes a tensor in place and has no counterpart that does not")
    root = memory(node.args[0])
    state = builder.values[root]
    if root.op == "placeholder" and isinstance(state, Weight):
        if state.tensor.requires_grad or builder.values[node.args[0]] is not state:
            raise refusal(node, f"changes {state.name!r} in place")
        builder.mutations += [(name, node) for name in builder.weights.names(state)]
        return state
    if root.op == "placeholder":
        raise refusal(node, "changes an input of the model in place")
    result = _replaced(builder, node, other, bound)
    builder.values[node.args[0]] = result
    return result


def _replaced(builder: Builder, node: fx.Node, target: OpOverload, bound: dict[str, Any]) -> Any:
    handler = HANDLERS.get(schema.name(target))
    names = [argument.name for argument in target._schema.arguments]
    arguments = {name: bound[name] for name in names if name in bound}
    arguments = schema.bind(target, (), arguments)
    if handler is not None:
        return handler(builder, node, arguments)
    _check(node, target)
    return builder.keep(target, arguments, node)


def _size(builder: Builder, node: fx.Node) -> Any:
    value = node.meta.get("val")
    if isinstance(value, int | torch.SymInt) and not builder.symbols.follows(value):
        return builder.symbols.static(value, node)
    x, dim = builder.lookup(node.args)
    return builder.emit(aten.sym_size.int, x, dim, old=node)


def _python(builder: Builder, node: fx.Node) -> Any:
    args = builder.lookup(node.args)
    name = getattr(node.target, "__name__", "")
    if name not in _PYTHON or getattr(node.target, "__module__", "") not in ("_operator", "math", "torch"):
        # sym_int and friends live in torch; whatever else an archive may name is not called
        raise refusal(node, "is no operator of PyTorch")
    if name == "getitem" and isinstance(args[0], tuple | list):
        return args[0][args[1]]
    if isinstance(node.meta.get("val"), Tensor) or _holds_node(args):
        return builder.emit(node.target, *args, old=node, **builder.lookup(node.kwargs))
    return node.target(*args, **node.kwargs)  # type: ignore[operator]


def _holds_node(args: Any) -> bool:
    if isinstance(args, list | tuple):
        return any(_holds_node(arg) for arg in args)
    return isinstance(args, fx.Node)


def _subgraph(builder: Builder, node: fx.Node) -> Any:
    name = str(getattr(node.target, "__name__", node.target))
    args = builder.lookup(node.args)
    submodule = next((arg for arg in args if isinstance(arg, fx.GraphModule)), None)
    # Lifted modules run on the CPU, where another device's autocast does nothing.
    inline = name == _SETS_GRAD or (name == _AUTOCAST and (args[2] is False or args[0] != "cpu"))
    if submodule is None or not inline:
        raise _unsupported(node, submodule)
    inputs = args[args.index(submodule) + 1 :]
    nodes = list(submodule.graph.nodes)
    for placeholder, value in zip((n for n in nodes if n.op == "placeholder"), inputs, strict=True):
        builder.values[placeholder] = value
    run(builder, submodule, nodes)
    results = builder.lookup(nodes[-1].args[0])
    if name == _SETS_GRAD and args[0] is False:
        results = [_without_gradient(builder, node, value) for value in results]
    return results


def _unsupported(node: fx.Node, submodule: fx.GraphModule | None) -> InvalidInput:
    if submodule is not None and "stack_trace" not in node.meta:
        inner = [other for other in submodule.graph.nodes if "stack_trace" in other.meta]
        for other in inner[:1]:
            node.meta["source"] = describe(other)
    return refusal(node, "is not supported")


def _without_gradient(builder: Builder, node: fx.Node, value: Any) -> Any:
    if isinstance(value, fx.Node) and value.op != "placeholder":
        return builder.emit(aten.detach.default, value, old=node)
    return value
