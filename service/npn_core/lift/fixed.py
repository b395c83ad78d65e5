"""A graph whose sizes were fixed to the example's batch, made to follow the batch.

The graph is computed twice without data: at the example's batch size B and at another one, P. A size that
differs between the two follows the batch. At a reshape whose input follows the batch, one of the target's sizes
must follow too; which one is found from the order of the entries in memory, see `_place`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from operator import mul
from typing import Any

import torch
from torch import Tensor, fx

from .shapes import propagate
from .source import refusal

aten = torch.ops.aten
_SIZED = (
    aten.zeros.default,
    aten.ones.default,
    aten.full.default,
    aten.empty.memory_format,
    aten.rand.default,
)
_RANGES = (aten.arange.default, aten.arange.start, aten.arange.start_step)
_NEW = (aten.new_zeros.default, aten.new_ones.default, aten.new_full.default, aten.new_empty.default)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Batch:
    """Where a tensor's batch is: dimension `dim` has outer * batch * inner entries, in this order."""

    dim: int
    outer: int = 1
    inner: int = 1


class _Rewriter:
    """Rewrites sizes while the graph is computed at the batch size `other`."""

    def __init__(
        self, module: fx.GraphModule, before: dict[fx.Node, Any], batch: int, other: int, ranges: bool
    ) -> None:
        self._ranges = ranges
        self._graph = module.graph
        self._before = before
        self._batch, self._other = batch, other
        self._places: dict[fx.Node, _Batch | None] = {}
        self._factors: dict[int, fx.Node] = {}

    def __call__(self, node: fx.Node, values: dict[fx.Node, Any]) -> None:
        """Before each node: replace the sizes that must follow the batch."""
        if node.op != "call_function" or node.target is aten.sym_size.int:
            return
        if node.target is aten.reshape.default:
            self._reshape(node, values)
        elif node.target in (aten.expand.default, aten.repeat.default):
            self._expand(node, values)
        elif node.target in _SIZED:
            self._constructor(node, values, 0)
        elif node.target in _NEW:
            self._constructor(node, values, 1)
        elif self._ranges and node.target in _RANGES and node.args[:2] in ((self._batch,), (0, self._batch)):
            node.update_arg(len(node.args[:2]) - 1, self._factor(1, values))

    def _reshape(self, node: fx.Node, values: dict[fx.Node, Any]) -> None:
        source = node.all_input_nodes[0]
        place = self._find(source, values)
        if place is None:
            return
        target = list(self._before[node].shape)
        found = self._place(node, tuple(self._before[source].shape), place, target)
        self._places[node] = found
        target[found.dim] = self._factor(found.outer * found.inner, values)
        node.args = (source, target)

    def _place(self, node: fx.Node, sizes: Sequence[int], place: _Batch, target: Sequence[int]) -> _Batch:
        """Where the batch is after a reshape.

        Counted through memory, the batch has `outer` entries outside of it and `inner` inside. A target
        dimension can hold the batch if the dimensions behind it divide `inner` and those before it `outer`.
        """
        outer = _product(sizes[: place.dim]) * place.outer
        inner = _product(sizes[place.dim + 1 :]) * place.inner
        fits = []
        for dim in range(len(target)):
            before, behind = _product(target[:dim]), _product(target[dim + 1 :])
            if behind and before and inner % behind == 0 and outer % before == 0:
                fits.append(_Batch(dim=dim, outer=outer // before, inner=inner // behind))
        fits = [fit for fit in fits if fit.outer * fit.inner * self._batch == target[fit.dim]]
        if not fits:
            raise refusal(node, "has a shape in which the batch cannot be told from the example's size")
        return min(fits, key=lambda fit: fit.outer * fit.inner)

    def _expand(self, node: fx.Node, values: dict[fx.Node, Any]) -> None:
        source = node.all_input_nodes[0]
        sizes = list(node.args[1])  # type: ignore[arg-type]
        place = self._find(source, values)
        shift = len(sizes) - self._before[source].dim()
        if node.target is aten.repeat.default and place is not None:
            return
        if place is not None:
            if isinstance(sizes[shift + place.dim], int) and sizes[shift + place.dim] != -1:
                sizes[shift + place.dim] = self._factor(place.outer * place.inner, values)
        elif sizes and sizes[0] == self._batch and (shift > 0 or self._before[source].shape[0] == 1):
            sizes[0] = self._factor(1, values)
        node.args = (source, sizes)

    def _constructor(self, node: fx.Node, values: dict[fx.Node, Any], index: int) -> None:
        sizes = list(node.args[index])  # type: ignore[arg-type]
        if len(sizes) > 1 and sizes[0] == self._batch:
            sizes[0] = self._factor(1, values)
            node.update_arg(index, sizes)

    def _find(self, node: Any, values: dict[fx.Node, Any]) -> _Batch | None:
        """Where the batch is in a node's result; None if the result does not follow it."""
        if not isinstance(node, fx.Node) or not isinstance(values.get(node), Tensor):
            return None
        if node not in self._places:
            self._places[node] = self._locate(node, values)
        return self._places[node]

    def _locate(self, node: fx.Node, values: dict[fx.Node, Any]) -> _Batch | None:
        before, after = tuple(self._before[node].shape), tuple(values[node].shape)
        differing = [dim for dim, pair in enumerate(zip(before, after, strict=True)) if pair[0] != pair[1]]
        if not differing:
            return None
        dim = differing[0]
        times, rest = divmod(before[dim], self._batch)
        if len(differing) > 1 or rest or after[dim] != times * self._other:
            raise refusal(node, "mixes the batch with another dimension")
        if times == 1:
            return _Batch(dim=dim)
        found = {
            (place.outer, place.inner)
            for place in (self._find(source, values) for source in node.all_input_nodes)
            if place is not None and place.outer * place.inner == times
        }
        if len(found) != 1:
            raise refusal(node, "mixes the batch with another dimension")
        outer, inner = found.pop()
        return _Batch(dim=dim, outer=outer, inner=inner)

    def _factor(self, times: int, values: dict[fx.Node, Any]) -> fx.Node:
        """A node for `times` * batch, right behind the inputs."""
        if 1 not in self._factors:
            inputs = [node for node in self._graph.nodes if node.op == "placeholder"]
            with self._graph.inserting_after(inputs[-1]):
                self._factors[1] = self._graph.call_function(aten.sym_size.int, (inputs[0], 0))
            values[self._factors[1]] = self._other
        if times not in self._factors:
            with self._graph.inserting_after(self._factors[1]):
                self._factors[times] = self._graph.call_function(mul, (self._factors[1], times))
            values[self._factors[times]] = times * self._other
        return self._factors[times]


def make_dynamic(
    module: fx.GraphModule,
    inputs: Sequence[tuple[tuple[int, ...], torch.dtype]],
    batch: int,
    *,
    ranges: bool,
) -> None:
    """Replace every size that stands for the example's `batch` by an expression of the batch.

    With `ranges`, a range (`arange`) as long as the example's batch is one over the batch.

    Raises InvalidInput naming the operator at which the batch cannot be told from other sizes.
    """
    other = 7 if batch != 7 else 5
    before = propagate(module, inputs, batch)
    rewriter = _Rewriter(module, before, batch, other, ranges)
    propagate(module, inputs, other, rewriter)


def _product(sizes: Sequence[int]) -> int:
    result = 1
    for size in sizes:
        result *= size
    return result
