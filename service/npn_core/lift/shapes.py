"""Shapes of every node's result, computed without data."""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from npn_core.errors import InvalidInput

from .source import refusal

Hook = Callable[[fx.Node, dict[fx.Node, Any]], None]


@contextmanager
def _quiet() -> Iterator[None]:
    """Torch logs a shape that does not fit as an error of its own; here it is an answer."""
    logger = logging.getLogger(FakeTensorMode.__module__)
    logger.addFilter(_nothing)
    try:
        yield
    finally:
        logger.removeFilter(_nothing)


def _nothing(record: logging.LogRecord) -> bool:
    return False


class _Shapes(fx.Interpreter):
    """Runs a graph on tensors without data and keeps every result."""

    def __init__(self, module: fx.GraphModule, hook: Hook | None) -> None:
        super().__init__(module, garbage_collect_values=False)
        self.extra_traceback = False  # a refusal says where by itself
        self._hook = hook

    def run_node(self, n: fx.Node) -> Any:
        try:
            if self._hook is not None:
                self._hook(n, self.env)
            return super().run_node(n)
        except InvalidInput:
            raise
        except Exception as error:
            detail = str(error).strip().split("\n", 1)[0][:200]
            raise refusal(n, f"does not work at another batch size: {detail}") from error


class _Run(nn.Module):
    """Holds the graph as a submodule, so that its tensors can be swapped for ones without data."""

    def __init__(self, graph: fx.GraphModule, hook: Hook | None) -> None:
        super().__init__()
        self.graph = graph
        self._hook = hook

    def forward(self, *inputs: Tensor) -> dict[fx.Node, Any]:
        """Every node's result."""
        run = _Shapes(self.graph, self._hook)
        run.run(*inputs, enable_io_processing=False)
        return run.env


def propagate(
    module: fx.GraphModule,
    inputs: Sequence[tuple[tuple[int, ...], torch.dtype]],
    batch: int,
    hook: Hook | None = None,
) -> dict[fx.Node, Any]:
    """Every node's result, in eval mode, for inputs of these sizes behind the batch and of these types.

    `hook` is called before each node with the results so far; it may change the node's arguments.
    Raises InvalidInput naming the operator that does not work at this batch size.
    """
    mode = FakeTensorMode()
    named = {
        **dict(module.named_parameters(remove_duplicate=False)),
        **dict(module.named_buffers(remove_duplicate=False)),
    }
    swapped: dict[int, Tensor] = {}
    state = {}
    for name, tensor in named.items():
        if id(tensor) not in swapped:
            swapped[id(tensor)] = FakeTensor(mode, tensor.detach().to("meta"), torch.device("cpu"))
        state[f"graph.{name}"] = swapped[id(tensor)]
    with mode, _quiet():
        examples = [torch.empty((batch, *sizes), dtype=dtype) for sizes, dtype in inputs]
        training = module.training
        module.eval()
        try:
            with torch.no_grad():
                result: dict[fx.Node, Any] = torch.func.functional_call(
                    _Run(module, hook), state, tuple(examples)
                )
        finally:
            module.train(training)
    return result
