"""A dry run of the graph, without data: it must do what it says.

An archive may be well formed and still hold a graph that cannot run.  Every operator is run on tensors that have
shapes and no values, of the sizes that the export saw, and the result's shape and type are compared with what the
archive says of it.
"""

import math
import re
from typing import Any

import sympy
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind
from torch.fx.experimental.symbolic_shapes import ShapeEnv

from npn_core.errors import InvalidInput

from .metadata import source_of
from .refusal import refuse, shown

MAX_ELEMENTS = 1 << 36  # of any value in the graph
_INT64 = 1 << 63
_MAX_POWER = 64
_PATH = re.compile(r"\S*/\S*")


def check_shapes(program: ExportedProgram) -> None:
    """Run the graph on fake tensors; raises InvalidInput naming the operator and its line."""
    mode = FakeTensorMode(allow_fallback_kernels=False, shape_env=ShapeEnv(), static_shapes=True)
    sizes = _Sizes(program)
    with torch.no_grad(), mode:
        inputs = [
            _fake(node, spec, program, sizes)
            for node, spec in zip(
                program.graph.find_nodes(op="placeholder"), program.graph_signature.input_specs, strict=True
            )
        ]
        _DryRun(program.graph_module, sizes).run(*inputs)


class _Sizes:
    """Numbers for symbolic sizes: those that the export saw, or the smallest allowed ones."""

    def __init__(self, program: ExportedProgram) -> None:
        self._ranges = program.range_constraints
        self._seen: dict[sympy.Symbol, sympy.Integer] = {}

    def of(self, size: int | torch.SymInt) -> int | None:
        """The number; None where it depends on data."""
        if isinstance(size, int):
            return size
        node = size.node
        seen = node.shape_env.backed_var_to_val
        for symbol in node.expr.free_symbols - self._seen.keys():
            if str(symbol).startswith("u"):
                return None
            lower = self._ranges[symbol].lower if symbol in self._ranges else 2
            self._seen[symbol] = sympy.Integer(int(seen.get(symbol, max(lower, 2))))
        value = node.expr.xreplace(self._seen)
        return int(value) if value.is_Integer else None


def _fake(node: torch.fx.Node, spec: Any, program: ExportedProgram, sizes: _Sizes) -> Any:
    """What stands for an input of the graph."""
    value = node.meta["val"]
    if spec.kind != InputKind.USER_INPUT:
        tensor = program.state_dict.get(spec.target, program.constants.get(spec.target))
        if not isinstance(tensor, torch.Tensor):
            raise refuse("MODEL_NOT_PT2", f"the archive has no values of {shown(spec.target)}")
        _compare(tensor, value, sizes, node)
        return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype)
    if not isinstance(value, torch.Tensor):
        return sizes.of(value) if isinstance(value, torch.SymInt) else value
    shape = [sizes.of(size) for size in value.shape]
    known = [size for size in shape if size is not None]
    if len(known) != len(shape) or math.prod(known) > MAX_ELEMENTS:
        raise refuse(
            "MODEL_NOT_PT2", f"the input {shown(node.name)} has the shape {shown(tuple(value.shape))}"
        )
    return torch.empty(known, dtype=value.dtype)


class _DryRun(torch.fx.Interpreter):
    """Runs each operator, and compares the result with the archive's word."""

    def __init__(self, module: torch.fx.GraphModule, sizes: _Sizes) -> None:
        super().__init__(module)
        self._sizes = sizes

    def run_node(self, n: torch.fx.Node) -> Any:
        """The operator's result; any error becomes a refusal that names it."""
        try:
            result = super().run_node(n)
        except (MemoryError, InvalidInput):
            raise
        except Exception as error:
            lines = str(error).splitlines() or [type(error).__name__]
            cause = _PATH.sub("...", shown(lines[0], 160))
            raise refuse("MODEL_OPERATOR", f"{_place(n)} cannot run: {cause}") from None
        if n.op == "call_function":
            _compare(result, n.meta.get("val"), self._sizes, n)
        return result

    def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
        """Arithmetic of sizes must not grow without bound; torch bounds the rest."""
        if not isinstance(target, torch._ops.OpOverload):
            power = getattr(target, "__name__", "") == "pow"
            if power and len(args) == 2 and isinstance(args[1], int) and abs(args[1]) > _MAX_POWER:
                raise OverflowError("a size is raised to a large power")
            result = super().call_function(target, args, kwargs)
            if isinstance(result, int) and abs(result) >= _INT64:
                raise OverflowError("a size has more than 64 bits")
            return result
        return super().call_function(target, args, kwargs)


def _place(node: torch.fx.Node) -> str:
    source = source_of(node.meta | {"nn_module_stack": _stack_text(node)}) or "an unknown line of the source"
    return f"the operator {shown(str(node.target))} of {shown(node.name)}, from {source},"


def _stack_text(node: torch.fx.Node) -> str:
    stack = node.meta.get("nn_module_stack") or {}
    return ";".join(f"{key},{path},{kind}" for key, (path, kind) in stack.items())


def _compare(result: object, told: object, sizes: _Sizes, node: torch.fx.Node) -> None:
    """Shape and dtype of a tensor; lists are compared where their items are taken."""
    if isinstance(result, torch.Tensor) != isinstance(told, torch.Tensor) and not isinstance(
        told, list | tuple
    ):
        raise refuse("MODEL_NOT_PT2", f"{_place(node)} gives another kind of value than the archive says")
    if not isinstance(result, torch.Tensor) or not isinstance(told, torch.Tensor):
        return
    shape = [sizes.of(size) for size in told.shape]
    same = len(shape) == result.dim() and all(
        size is None or not isinstance(real, int) or size == real
        for size, real in zip(shape, result.shape, strict=False)
    )
    if not same or result.dtype != told.dtype:
        raise refuse(
            "MODEL_NOT_PT2",
            f"{_place(node)} gives {shown(tuple(result.shape))} of {result.dtype}, but the archive says "
            f"{shown(tuple(told.shape))} of {told.dtype}",
        )
    elements = math.prod(size for size in result.shape if isinstance(size, int))
    if elements > MAX_ELEMENTS:
        raise refuse("MODEL_TOO_LARGE", f"{_place(node)} gives {elements:,} elements")
