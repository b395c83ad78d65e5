"""What of a graph is a weight, an input or an output, and how inputs and outputs are nested."""

import keyword
from collections.abc import Mapping
from typing import Any

import torch
from torch._export.serde import schema

from .graph import check_argument
from .names import check_fqn, check_value_name
from .refusal import refuse, shown
from .symbols import check_symbol_name
from .treespec import positional_inputs, read_inputs, read_outputs

MAJOR_VERSION = 8
_DIALECTS = (["TRAINING"], ["ATEN"])
_MEMBER_INPUTS = {
    "parameter": "parameter_name",
    "buffer": "buffer_name",
    "tensor_constant": "tensor_constant_name",
}
_MUTATIONS = {
    "buffer_mutation": "buffer_name",
    "parameter_mutation": "parameter_name",
    "user_input_mutation": "user_input_name",
}

Tensors = Mapping[str, torch.Tensor]


def check_header(program: schema.ExportedProgram) -> None:
    """Versions, dialect and ranges; forgets guards, which torch would evaluate."""
    version = program.schema_version
    if version.major != MAJOR_VERSION:
        raise refuse(
            "MODEL_VERSION",
            f"the archive has version {version.major}.{version.minor} of torch.export's schema; "
            f"{MAJOR_VERSION} is read: save it again with torch 2.10 or newer",
        )
    if program.verifiers not in _DIALECTS:
        raise refuse(
            "MODEL_VERSION",
            f"the graph is of the dialect {shown(program.verifiers)}; use torch.export.export alone",
        )
    for name, bounds in program.range_constraints.items():
        check_symbol_name(name)
        if bounds.min_val is not None and bounds.max_val is not None and bounds.min_val > bounds.max_val:
            raise refuse("MODEL_NOT_PT2", f"the symbolic size {name} has the range of nothing")
    program.guards_code = []
    program.graph_module.metadata = {}
    program.graph_module.treespec_namedtuple_fields = {}


def check_signature(module: schema.GraphModule, weights: Tensors, constants: Tensors) -> None:
    """Every weight that the graph names is in the archive; inputs and outputs fit their nesting."""
    signature, graph = module.signature, module.graph
    if len(signature.input_specs) != len(graph.inputs) or len(signature.output_specs) != len(graph.outputs):
        raise refuse(
            "MODEL_NOT_PT2", "the graph and its signature differ in their numbers of inputs or outputs"
        )
    members: set[str] = set()
    for input_spec in signature.input_specs:
        member = _check_input(input_spec, weights, constants)
        if member in members:
            raise refuse("MODEL_NOT_PT2", f"two inputs of the graph are the member {shown(member)}")
        members.update([member] if member else [])
    for output_spec in signature.output_specs:
        _check_output(output_spec)
    inputs = sum(spec.type in ("user_input", "constant_input") for spec in signature.input_specs)
    outputs = sum(spec.type == "user_output" for spec in signature.output_specs)
    _check_calls(module, inputs, outputs)


def _check_input(spec: Any, weights: Tensors, constants: Tensors) -> str | None:
    """The name of the weight that the input is, if it is one."""
    value = spec.value
    if spec.type in _MEMBER_INPUTS:
        check_value_name(value.arg.name)
        name = check_fqn(getattr(value, _MEMBER_INPUTS[spec.type]))
        constant = spec.type == "tensor_constant" or (spec.type == "buffer" and not value.persistent)
        tensor = (constants if constant else weights).get(name)
        if tensor is None:
            raise refuse("MODEL_NOT_PT2", f"the archive has no values of {shown(name)}")
        if isinstance(tensor, torch.nn.Parameter) != (spec.type == "parameter"):
            raise refuse("MODEL_NOT_PT2", f"{shown(name)} is a parameter in one place and none in another")
        return name
    if spec.type == "user_input":
        check_argument(value.arg, None)
    elif spec.type == "constant_input":
        check_value_name(value.name)
        if value.value.type == "as_string" and not value.value.value.isidentifier():
            raise refuse("MODEL_UNSAFE", f"an input is the constant text {shown(value.value.value)}")
    else:
        raise refuse("MODEL_PICKLED", "the model has an input that is a script object or a token")
    return None


def _check_output(spec: Any) -> None:
    value = spec.value
    if spec.type == "user_output":
        check_argument(value.arg, None)
        return
    if spec.type not in _MUTATIONS:
        raise refuse(
            "MODEL_NOT_PT2",
            f"the graph has an output of the kind {shown(spec.type)}; export the forward pass",
        )
    check_value_name(value.arg.name)
    target = getattr(value, _MUTATIONS[spec.type])
    if spec.type == "user_input_mutation":
        check_value_name(target)
    else:
        check_fqn(target)


def _check_calls(module: schema.GraphModule, inputs: int, outputs: int) -> None:
    """Keep the signature of the whole module; of submodules the names alone."""
    calls = module.module_call_graph
    if not calls or calls[0].fqn != "" or calls[0].signature is None:
        raise refuse("MODEL_NOT_PT2", "the archive does not say how the model is called")
    for call in calls[1:]:
        # torch names further calls of one module "name@1"
        check_fqn(call.fqn.partition("@")[0] if call.fqn.partition("@")[2].isdigit() else call.fqn)
        call.signature = None
    signature = calls[0].signature
    for argument in (*signature.inputs, *signature.outputs):
        check_argument(argument, None)
    signature.in_spec, input_leaves, keywords = read_inputs(signature.in_spec)
    signature.out_spec, output_leaves = read_outputs(signature.out_spec)
    if input_leaves != inputs or output_leaves != outputs:
        raise refuse("MODEL_NOT_PT2", "the nesting of inputs or outputs does not fit their number")
    _check_argument_names(signature, keywords)


def _check_argument_names(signature: schema.ModuleCallSignature, keywords: list[str]) -> None:
    """torch writes these names into the head of a function in Python."""
    names = signature.forward_arg_names
    for name in (*(names or ()), *keywords):
        if keyword.iskeyword(name):
            raise refuse("MODEL_UNSAFE", f"an input has the name {shown(name)}")
        check_value_name(name)
    if names is not None and (
        len(set(names)) != len(names) or len(names) != positional_inputs(signature.in_spec) + len(keywords)
    ):
        signature.forward_arg_names = None
