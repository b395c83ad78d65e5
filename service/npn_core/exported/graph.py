"""The graph of an archive: every name, operator, argument and size is checked before torch builds anything from it.

The functions change the schema's dataclasses in place: devices become the processor, symbolic sizes sympy objects,
metadata the part that is kept.
"""

from collections.abc import Iterable
from typing import Any

from torch._export.serde import schema

from npn_core.errors import InvalidInput

from .metadata import keep_metadata, source_of
from .names import check_value_name
from .operators import arguments_of
from .refusal import refuse, shown
from .symbols import Symbols

MAX_NODES = 20_000
MAX_ITEMS = 10_000
MAX_STRING = 200
_DEVICES = frozenset({"cpu", "cuda", "mps", "xpu"})

_PLAIN = frozenset(
    {"as_none", "as_int", "as_ints", "as_float", "as_floats", "as_bool", "as_bools"}
    | {"as_scalar_type", "as_memory_format", "as_complex"}
)
_NAMED = frozenset({"as_sym_int", "as_sym_float", "as_sym_bool"})
_NAMED_LISTS = frozenset({"as_sym_ints", "as_sym_floats", "as_sym_bools"})
_OUTPUTS = frozenset({"as_tensor", "as_tensors", "as_none"}) | _NAMED
_FORBIDDEN = {
    "as_graph": ("MODEL_OPERATOR", "holds another graph (a higher-order operator such as torch.cond)"),
    "as_custom_obj": ("MODEL_PICKLED", "is a script object; keep tensors alone"),
    "as_operator": ("MODEL_UNSAFE", "is an operator"),
}


def check_graph(graph: schema.Graph) -> None:
    """Raises InvalidInput; see the module's docstring."""
    if graph.custom_obj_values:
        name = next(iter(graph.custom_obj_values))
        raise refuse("MODEL_PICKLED", f"the model holds the script object {shown(name)}; keep tensors alone")
    if graph.is_single_tensor_return:
        raise refuse("MODEL_NOT_PT2", "the graph is a part of another one; export the whole module")
    if len(graph.nodes) > MAX_NODES:
        raise refuse(
            "MODEL_TOO_LARGE", f"the graph has {len(graph.nodes):,} operators; at most {MAX_NODES:,}"
        )
    _check_values(graph)
    defined: set[str] = set()
    for argument in graph.inputs:
        defined.update(_input_name(argument))
    for node in graph.nodes:
        try:
            _check_node(node, defined)
        except InvalidInput as error:
            place = f"{node.target} of {node.name}"[:200] if node.name else node.target[:200]
            source = source_of(node.metadata) or "an unknown line of the source"
            message = f"{error.message}; at {shown(place, 200)}, from {source}"
            raise refuse(error.reason, message) from None
        node.metadata = keep_metadata(node.metadata)
    for argument in graph.outputs:
        check_argument(argument, defined)


def check_argument(argument: schema.Argument, defined: set[str] | None) -> None:
    """An argument of an operator, an input or an output; what it names must be in `defined`."""
    kind, value = argument.type, argument.value
    if isinstance(value, list) and len(value) > MAX_ITEMS:
        raise refuse("MODEL_TOO_LARGE", f"an argument has {len(value):,} items; at most {MAX_ITEMS:,}")
    if kind in _FORBIDDEN:
        reason, message = _FORBIDDEN[kind]
        raise refuse(reason, f"an argument {message}")
    if kind in _PLAIN:
        return
    if kind in ("as_string", "as_strings"):
        _check_strings([value] if kind == "as_string" else value)
    elif kind == "as_device":
        check_device(value)
    elif kind == "as_layout":
        if value != schema.Layout.Strided:
            raise refuse("MODEL_OPERATOR", "an argument asks for a sparse tensor; only dense ones are read")
    else:
        names = names_in(argument)
        for name in names:
            check_value_name(name)
            if defined is not None and name not in defined:
                raise refuse("MODEL_NOT_PT2", f"the graph uses {shown(name)} before it is computed")


def names_in(argument: schema.Argument) -> list[str]:
    """The values that an argument names."""
    kind, value = argument.type, argument.value
    if kind == "as_tensor":
        return [value.name]
    if kind == "as_tensors":
        return [item.name for item in value]
    if kind in _NAMED:
        return _sym_name(value)
    if kind in _NAMED_LISTS:
        return [name for item in value for name in _sym_name(item)]
    if kind == "as_optional_tensors":
        return [item.value.name for item in value if item.type == "as_tensor"]
    raise refuse("MODEL_NOT_PT2", f"an argument of the kind {shown(kind)} is not read")


def check_device(device: schema.Device) -> None:
    """Move what was exported on an accelerator to the processor."""
    if device.type not in _DEVICES:
        raise refuse("MODEL_NOT_PT2", f"the model was exported on {shown(device.type)}; export it on the cpu")
    device.type, device.index = "cpu", None


def _sym_name(value: Any) -> list[str]:
    return [value.as_name] if value.type == "as_name" else []


def _check_strings(values: Iterable[str]) -> None:
    for value in values:
        if len(value) > MAX_STRING or not value.isprintable():
            raise refuse("MODEL_UNSAFE", f"an argument is the text {shown(value)}")


def _input_name(argument: schema.Argument) -> list[str]:
    if argument.type in ("as_tensor", "as_sym_int"):
        names = names_in(argument)
        if len(names) != 1:
            raise refuse("MODEL_NOT_PT2", "an input of the graph has no name")
        return [check_value_name(names[0])]
    if argument.type == "as_string":
        _check_strings([argument.value])
    elif argument.type not in ("as_none", "as_int", "as_float", "as_bool"):
        reason, message = _FORBIDDEN.get(argument.type, ("MODEL_NOT_PT2", f"is {shown(argument.type)}"))
        raise refuse(reason, f"an input of the graph {message}")
    return []


def _check_node(node: schema.Node, defined: set[str]) -> None:
    if node.name is not None:
        check_value_name(node.name)
    arguments = arguments_of(node.target)
    for named in node.inputs:
        check_argument(named.arg, defined)
    if arguments is not None:
        names = [named.name for named in node.inputs]
        if len(set(names)) != len(names) or not set(names) <= set(arguments):
            raise refuse("MODEL_OPERATOR", f"{shown(node.target)} has arguments that it does not take")
    elif len(node.outputs) != 1 or node.outputs[0].type not in _NAMED:
        raise refuse("MODEL_OPERATOR", f"{shown(node.target)} gives one number")
    for output in node.outputs:
        if output.type not in _OUTPUTS:
            raise refuse(
                "MODEL_OPERATOR", f"{shown(node.target)} gives an output of the kind {shown(output.type)}"
            )
        if output.type == "as_none":
            continue
        for name in names_in(output):
            if name in defined:
                raise refuse("MODEL_NOT_PT2", f"the graph computes {shown(name)} twice")
            defined.add(check_value_name(name))


def _check_values(graph: schema.Graph) -> None:
    symbols = Symbols()
    for name, meta in graph.tensor_values.items():
        check_value_name(name)
        if meta.layout != schema.Layout.Strided:
            raise refuse("MODEL_NOT_PT2", f"{shown(name)} is sparse; only dense tensors are read")
        check_device(meta.device)
        for number in (*meta.sizes, *meta.strides, meta.storage_offset):
            _read_symbol(number, symbols)
            if number.type == "as_int" and number.as_int < 0:
                raise refuse("MODEL_NOT_PT2", f"{shown(name)} has a negative size, stride or offset")
    for values in (graph.sym_int_values, graph.sym_float_values, graph.sym_bool_values):
        for name, value in values.items():
            check_value_name(name)
            _read_symbol(value, symbols)


def _read_symbol(value: Any, symbols: Symbols) -> None:
    """Put a sympy object where the text was: torch then has nothing to parse."""
    if value.type == "as_expr":
        expression = value.as_expr
        expression.expr_str = symbols.read(expression.expr_str)
