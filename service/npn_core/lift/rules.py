"""What the rules that tidy a lifted graph share: sizes of results, and how a node is replaced."""

from typing import Any

import torch
from torch import Tensor, fx, nn

from .builder import Builder

aten = torch.ops.aten
Sizes = tuple[tuple[int, ...], ...]


class Rewriting:
    """A lifted graph with every node's sizes at several batch sizes, which rules change step by step."""

    def __init__(self, builder: Builder, values: list[dict[fx.Node, Any]]) -> None:
        self.builder = builder
        self.module = builder.tree.module
        self.graph = self.module.graph
        self._sizes: dict[fx.Node, Sizes] = {}
        for node in values[0]:
            results = [value[node] for value in values]
            if all(isinstance(result, Tensor) for result in results):
                self._sizes[node] = tuple(tuple(result.shape) for result in results)
        self._constant: dict[fx.Node, bool] = {}

    def sizes(self, node: Any) -> Sizes | None:
        """The sizes of the node's result at each batch size; None if it is no tensor."""
        return self._sizes.get(node) if isinstance(node, fx.Node) else None

    def rank(self, node: Any) -> int:
        """The number of the result's dimensions; -1 if it is no tensor."""
        sizes = self.sizes(node)
        return len(sizes[0]) if sizes is not None else -1

    def tails(self, node: Any, count: int) -> Sizes | None:
        """The last `count` sizes at each batch size."""
        sizes = self.sizes(node)
        return None if sizes is None else tuple(size[len(size) - count :] for size in sizes)

    def leads(self, node: Any, behind: int) -> Sizes | None:
        """All sizes but the last `behind` at each batch size."""
        sizes = self.sizes(node)
        return None if sizes is None else tuple(size[: len(size) - behind] for size in sizes)

    def constant(self, node: fx.Node) -> bool:
        """Is the result made of weights alone?"""
        if node not in self._constant:
            inputs = node.all_input_nodes
            weights = node.op == "get_attr" or (bool(inputs) and all(self.constant(item) for item in inputs))
            self._constant[node] = weights and node.op != "placeholder"
        return self._constant[node]

    def call(
        self, before: fx.Node, like: fx.Node, sizes: Sizes, target: Any, *args: Any, **kwargs: Any
    ) -> fx.Node:
        """A new call in front of `before`, described like `like`; a text as target is a module's path."""
        with self.graph.inserting_before(before):
            if isinstance(target, str):
                node = self.graph.call_module(target, args, kwargs)
            else:
                node = self.graph.call_function(target, args, kwargs)
        node.meta = dict(like.meta)
        self._sizes[node] = sizes
        return node

    def replace(self, old: fx.Node, new: fx.Node) -> None:
        """Let everyone read `new` where they read `old`."""
        old.replace_all_uses_with(new)
        self.graph.erase_node(old)

    def kind(self, node: Any) -> type[nn.Module] | None:
        """The class of the module that the node calls."""
        if not isinstance(node, fx.Node) or node.op != "call_module":
            return None
        return type(self.module.get_submodule(str(node.target)))


def calls(node: Any, *targets: Any) -> bool:
    """Does the node call one of these operators?"""
    return isinstance(node, fx.Node) and node.op == "call_function" and node.target in targets
