"""Any batch size: sizes that were fixed to the example's batch, and the check that outputs follow it."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx
from torch.utils import _pytree as pytree

from npn_core.errors import InvalidInput

from .fixed import make_dynamic
from .shapes import propagate
from .source import refusal

Example = tuple[tuple[int, ...], torch.dtype]


def follow_batch(
    module: fx.GraphModule, inputs: Sequence[Example], batch: int | None
) -> list[dict[fx.Node, Any]]:
    """Make a graph with the fixed `batch` follow its inputs; check any graph at the batch sizes 1 and 3.

    Returns every node's results at both, without data. Raises InvalidInput naming the operator that does not
    follow the batch.
    """
    if batch is None:
        return _checked(module, inputs)
    refusals: list[InvalidInput] = []
    written = {node: (node.args, node.kwargs) for node in module.graph.nodes}
    # Only a try shows whether a range as long as the batch counts the samples.
    for ranges in (False, True):
        for node, (args, kwargs) in written.items():
            node.args, node.kwargs = args, kwargs
        try:
            make_dynamic(module, inputs, batch, ranges=ranges)
            return _checked(module, inputs)
        except InvalidInput as error:
            refusals.append(error)
    raise refusals[0]


def _checked(module: fx.GraphModule, inputs: Sequence[Example]) -> list[dict[fx.Node, Any]]:
    return [_check(module, inputs, size) for size in (1, 3)]


def _check(module: fx.GraphModule, inputs: Sequence[Example], size: int) -> dict[fx.Node, Any]:
    values = propagate(module, inputs, size)
    output = module.graph.output_node()
    for node in pytree.tree_leaves(output.args[0]):
        if node is None:
            continue
        value = values[node]
        if not isinstance(value, Tensor):
            raise InvalidInput("model.uri", "an output of the model is no tensor", reason="MODEL_OUTPUT")
        if not value.dim() or value.shape[0] != size:
            shape = tuple(value.shape)
            raise refusal(
                node, f"gives an output of shape {shape} for a batch of {size}: it must lead with the batch"
            )
    return values
