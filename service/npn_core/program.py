"""A network as a `torch.export` program: the form that leaves the house."""

from typing import Any

import torch
from torch import Tensor, fx, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.export import ExportedProgram
from torch.fx.experimental.symbolic_shapes import DimDynamic, ShapeEnv, StatelessSymbolicContext
from torch.utils import _pytree as pytree

from .copies import fake_copy
from .errors import InvalidInput

# What torch records of the exporting process: source files, and addresses that differ from run to run.
_PROCESS_META = ("stack_trace", "from_node", "custom")


def export(module: nn.Module, example: tuple[Tensor, ...], input_names: tuple[str, ...]) -> ExportedProgram:
    """`module` as a program whose inputs have these names and any batch size in dimension 0.

    `module` is in eval mode, a graph or traceable; `example` is a batch of two samples.  The program shares
    the weights.  It carries no example inputs, which `torch.export.save` would pickle, and no path of this
    machine.  Raises InvalidInput, naming the operator, where the network works for one batch size alone.
    """
    if module.training or any(x.ndim == 0 or x.shape[0] != 2 for x in example):
        raise ValueError("export takes a module in eval mode and a batch of two samples")
    graph = module if isinstance(module, fx.GraphModule) else fx.symbolic_trace(module)
    graph = with_input_names(graph, input_names)
    batch = torch.export.Dim("batch", min=1)
    try:
        program = torch.export.export(graph, example, dynamic_shapes=tuple({0: batch} for _ in example))
    except Exception as error:
        node = _fixes_batch(graph, example)
        if node is None:
            raise
        raise InvalidInput("model.uri", _refusal(node), reason="MODEL_FIXED_BATCH") from error
    program.example_inputs = None
    _give_plain_outputs(program, graph, example)
    for part in program.graph_module.modules():
        if isinstance(part, fx.GraphModule):
            for node in part.graph.nodes:
                for key in _PROCESS_META:
                    node.meta.pop(key, None)
    return program


def _give_plain_outputs(program: ExportedProgram, graph: fx.GraphModule, example: tuple[Tensor, ...]) -> None:
    """Return dicts and lists; the exporter took fx's immutable ones from the graph's output node."""
    signature = program.module_call_graph[0].signature
    if signature is None:
        raise ValueError("a program without a signature of its own")
    with torch.no_grad():
        signature.out_spec = pytree.tree_structure(graph(*example))


def with_input_names(module: fx.GraphModule, names: tuple[str, ...]) -> fx.GraphModule:
    """The same graph over the same tensors, with other names of its inputs."""
    graph = fx.Graph()
    placeholders = module.graph.find_nodes(op="placeholder")
    # Made first, so that no other node has taken their names.
    copies = {node: graph.placeholder(name) for node, name in zip(placeholders, names, strict=True)}
    for node in module.graph.nodes:
        if node not in copies:
            copies[node] = graph.node_copy(node, lambda old: copies[old])
    renamed = fx.GraphModule(module, graph)
    renamed.graph.lint()
    return renamed


class _BatchWatch(fx.Interpreter):
    """Runs a graph on shapes with symbolic batches until one of them has become a number."""

    def __init__(self, module: fx.GraphModule, batches: list[Any], shapes: ShapeEnv) -> None:
        super().__init__(module)
        self.batches = batches
        self.shapes = shapes
        self.current: fx.Node | None = None

    def run_node(self, n: fx.Node) -> object:
        """The node's value; stops at the first node after which a batch is a constant."""
        self.current = n
        value: object = super().run_node(n)
        if any(self.shapes.simplify(size.node.expr).is_number for size in self.batches):
            raise _BatchFixedError
        return value


class _BatchFixedError(Exception):
    """The current node has made the batch a constant."""


def _fixes_batch(graph: fx.GraphModule, example: tuple[Tensor, ...]) -> fx.Node | None:
    """The first node that works for the example's batch size alone, None where there is none."""
    shapes = ShapeEnv()
    mode = FakeTensorMode(allow_non_fake_inputs=True, shape_env=shapes)
    inputs = [
        mode.from_tensor(
            x,
            symbolic_context=StatelessSymbolicContext(
                dynamic_sizes=[DimDynamic.DYNAMIC] + [DimDynamic.STATIC] * (x.ndim - 1)
            ),
        )
        for x in example
    ]
    watch = _BatchWatch(fake_copy(graph, mode), [x.shape[0] for x in inputs], shapes)
    try:
        with torch.no_grad(), mode:
            watch.run(*inputs)
    except _BatchFixedError:
        return watch.current
    except Exception:  # a defect that export's own error tells better
        return None
    return None


def _refusal(node: fx.Node) -> str:
    source = node.meta.get("source")
    where = f" at {source}" if source else ""
    return (
        f"operator {node.target} ({node.name}){where} works for one batch size alone; "
        "take the batch size from the input's shape instead of a constant"
    )
