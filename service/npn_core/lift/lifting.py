"""An exported program as a module that trains."""

import warnings
from typing import Any

import torch
from torch import Tensor, fx
from torch.export import ExportedProgram
from torch.export.graph_signature import ConstantArgument, InputKind, OutputKind
from torch.utils import _pytree as pytree

from npn_core.errors import InvalidInput

from . import operators
from .batch import follow_batch
from .builder import Builder
from .folding import fold, fold_weights
from .inplace import needs_functions
from .shapes import propagate
from .source import refusal
from .symbols import Symbols

_NOTES = ("source", "dropout_p")  # what readers of the graph are told of a node


def lift(program: ExportedProgram) -> fx.GraphModule:
    """The program as a graph of standard `nn` modules that trains.

    Parameters and buffers keep the user's names and are the program's own tensors, not copies. BatchNorm and
    dropout follow train() and eval() in whichever mode the program was exported; the module comes in train
    mode.  The dropout of a `scaled_dot_product_attention` is its node's `meta["dropout_p"]`: who trains the graph
    applies it.
    Any batch size works. Every node's `meta["source"]` says where in the user's code it comes from.

    Raises InvalidInput: with reason MODEL_OPERATOR it names the operator that cannot be lifted and its source
    line; MODEL_INPUT, MODEL_OUTPUT and MODEL_GRAPH say what is wrong with inputs, outputs or the whole.

    Lost at export already, and not brought back: dropout of a program exported in eval mode and then decomposed
    (or one that writes into views, which is rewritten here), and attention's dropout in any eval export.
    """
    try:
        return _lift(program)
    except InvalidInput:
        raise
    except Exception as error:  # what comes from outside may be a graph that torch.export never makes
        what = f"the archive's graph is not one that torch.export makes ({type(error).__name__}: {error})"
        raise InvalidInput("model.uri", what[:300], reason="MODEL_GRAPH") from error


def _lift(program: ExportedProgram) -> fx.GraphModule:
    if needs_functions(program.graph_module):
        program = _functional(program)
    nodes = list(program.graph.nodes)
    inputs = _inputs(program, nodes)
    builder = Builder(program, Symbols([node for node, _ in inputs]))
    _place_inputs(builder, program, inputs, nodes)
    operators.run(builder, program.graph_module, nodes)
    _place_outputs(builder, program, nodes[-1])
    _check_mutations(builder, program)
    return _finish(builder, inputs)


def _functional(program: ExportedProgram) -> ExportedProgram:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch 2.13 about its own tree specs
        functional: ExportedProgram = program.run_decompositions({})
    return functional


def _inputs(program: ExportedProgram, nodes: list[fx.Node]) -> list[tuple[fx.Node, str]]:
    specs = program.graph_signature.input_specs
    placeholders = [node for node in nodes if node.op == "placeholder"]
    users = [
        node
        for node, spec in zip(placeholders, specs, strict=True)
        if spec.kind is InputKind.USER_INPUT and isinstance(node.meta.get("val"), Tensor)
    ]
    if not users:
        raise InvalidInput("model.uri", "the model has no tensor among its inputs", reason="MODEL_INPUT")
    return [(node, str(node.target)) for node in users]


def _place_inputs(
    builder: Builder, program: ExportedProgram, inputs: list[tuple[fx.Node, str]], nodes: list[fx.Node]
) -> None:
    names = dict(inputs)
    placeholders = [node for node in nodes if node.op == "placeholder"]
    for node, spec in zip(placeholders, program.graph_signature.input_specs, strict=True):
        if node in names:
            new = builder.graph.placeholder(names[node])
            new.meta["source"] = ""
            builder.values[node] = new
        elif spec.kind is InputKind.USER_INPUT:
            builder.values[node] = _constant(node, spec.arg)
        elif spec.target in builder.weights:
            builder.values[node] = builder.weights[str(spec.target)]
        else:
            raise InvalidInput(
                "model.uri", f"the model holds {spec.target!r}, which is no tensor", reason="MODEL_OPERATOR"
            )


def _constant(node: fx.Node, argument: Any) -> Any:
    """An input that is no tensor has the example's value, if the program was made for that one value."""
    if isinstance(argument, ConstantArgument):
        return argument.value
    raise InvalidInput(
        "model.uri", f"the model's input {node.name!r} is no tensor and may vary", reason="MODEL_INPUT"
    )


def _place_outputs(builder: Builder, program: ExportedProgram, output: fx.Node) -> None:
    values: list[Any] = []
    old_values = output.args[0]
    for spec, old in zip(program.graph_signature.output_specs, old_values, strict=True):  # type: ignore[arg-type]
        if spec.kind is OutputKind.BUFFER_MUTATION:
            builder.mutations.append((str(spec.target), old))
        elif spec.kind is OutputKind.USER_OUTPUT:
            values.append(_output(builder, old, output))
        else:
            what = "changes an input of the model in place"
            raise refusal(old, what) if isinstance(old, fx.Node) else _bad_output("is of an unknown kind")
    specs = program.call_spec.out_spec
    tree = _plain(specs, iter(values)) if specs is not None else tuple(values)
    builder.graph.output(tree).meta["source"] = ""


def _output(builder: Builder, old: Any, output: fx.Node) -> Any:
    value = builder.concrete(builder.lookup(old), old if isinstance(old, fx.Node) else output)
    if value is None or isinstance(value, fx.Node):
        return value
    raise _bad_output(f"is {value!r}, which is no tensor")


def _bad_output(what: str) -> InvalidInput:
    return InvalidInput("model.uri", f"an output of the model {what}", reason="MODEL_OUTPUT")


def _plain(spec: pytree.TreeSpec, values: Any) -> Any:
    """The outputs in plain containers: a class with named fields becomes a dict."""
    if spec.type is None or spec.is_leaf():
        return next(values)
    children = [_plain(child, values) for child in spec.children()]
    if spec.type is list:
        return children
    context = spec.context
    named = isinstance(context, list | tuple) and len(context) == len(children)
    if spec.type is not tuple and named and all(isinstance(key, str) for key in context):
        return dict(zip(context, children, strict=True))
    return tuple(children)


def _check_mutations(builder: Builder, program: ExportedProgram) -> None:
    for name, node in builder.mutations:
        if name not in builder.tracked:
            raise refusal(node, f"changes the buffer {name!r} in place; only BatchNorm's may change")


def _finish(builder: Builder, inputs: list[tuple[fx.Node, str]]) -> fx.GraphModule:
    module = builder.tree.module
    module.graph = builder.graph
    module.graph.eliminate_dead_code()
    shapes = [_example(builder, node) for node, _ in inputs]
    batch = builder.symbols.batch
    if batch is not None:
        fold_weights(builder, propagate(module, shapes, batch))
    fold(builder, follow_batch(module, shapes, batch))
    module.graph.eliminate_dead_code()
    for node in module.graph.nodes:
        node.meta = {"source": ""} | {key: node.meta[key] for key in _NOTES if key in node.meta}
    module.graph.lint()
    module.recompile()
    return module.train()


def _example(builder: Builder, node: fx.Node) -> tuple[tuple[int, ...], torch.dtype]:
    """Sizes behind the batch, and type."""
    value = node.meta["val"]
    rest = [builder.symbols.static(size, node) for size in value.shape[1:]]
    if None in rest:
        raise InvalidInput(
            "model.uri", f"the input {node.name!r} has the batch in two dimensions", reason="MODEL_INPUT"
        )
    return tuple(size for size in rest if size is not None), value.dtype
