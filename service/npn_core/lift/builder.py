"""Builds the lifted graph: values of the old graph's nodes, new nodes, modules."""

from dataclasses import replace
from typing import Any

import torch
from torch import fx, nn
from torch.export import ExportedProgram

from . import schema, source
from .symbols import Symbols
from .tree import Tree
from .weights import Weight, Weights

aten = torch.ops.aten


class Builder:
    """The lifted graph under construction.

    `values` says what each node of the program became: a node of the new graph, a `Weight`, a number, or a
    tuple of these for an operator with several results.
    """

    def __init__(self, program: ExportedProgram, symbols: Symbols) -> None:
        self.weights = Weights(program)
        self.symbols = symbols
        self.tree = Tree(self.weights, [entry.fqn for entry in program.module_call_graph])
        self.graph = fx.Graph()
        self.values: dict[fx.Node, Any] = {}
        self.tracked: set[str] = set()  # buffers that a lifted BatchNorm keeps up to date itself
        self.mutations: list[tuple[str, fx.Node]] = []
        self._attributes: dict[str, fx.Node] = {}

    def lookup(self, value: Any) -> Any:
        """The argument of an old node with every old node replaced by its value."""
        if isinstance(value, fx.Node):
            return self.values[value]
        if isinstance(value, list | tuple):
            return [self.lookup(item) for item in value]
        if isinstance(value, dict):
            return {key: self.lookup(item) for key, item in value.items()}
        return value

    def concrete(self, value: Any, old: fx.Node) -> Any:
        """The value with every `Weight` in it as a node."""
        if isinstance(value, Weight):
            return self._attribute(value, old)
        if isinstance(value, list | tuple):
            return [self.concrete(item, old) for item in value]
        return value

    def emit(self, target: Any, *args: Any, old: fx.Node, **kwargs: Any) -> fx.Node:
        """A new call of `target`, which comes from the old node `old`."""
        node = self.graph.call_function(
            target,
            tuple(self.concrete(arg, old) for arg in args),
            {key: self.concrete(value, old) for key, value in kwargs.items()},
        )
        node.meta.update(source=source.describe(old), old=old)
        return node

    def keep(self, target: Any, bound: dict[str, Any], old: fx.Node) -> fx.Node:
        """The operator as it is, but not in place; its arguments in the order of its schema."""
        target = schema.functional(target) or target
        args, kwargs = schema.spread(target, bound)
        return self.emit(target, *args, old=old, **kwargs)

    def layer(
        self, kind: type[nn.Module], settings: dict[str, Any], roles: dict[str, Weight | None], old: fx.Node
    ) -> str | None:
        """Path of the module of that kind that holds the given weights under the given names.

        None where the user's state has no such module: the weights have other names, or more is beside them.
        """
        for path in self._places(roles, old):
            if self.tree.install(path, kind, {**settings, "device": "meta"}):
                return path
        return None

    def stateless(
        self, kind: type[nn.Module], settings: dict[str, Any], old: fx.Node, title: str = ""
    ) -> str:
        """Path of a module without state: the user's own where the node is the whole of one.

        Elsewhere it is named `title`, or like the operator, in the module that the node was called in.
        """
        path, name = source.enclosing(old)
        own = name == f"{kind.__module__}.{kind.__qualname__}"
        if own and self.tree.install(path, kind, settings):
            return path
        title = title or schema.name(old.target).strip("_") or kind.__name__.lower()
        joint = "_" if self.tree.has(path) or own else "."
        path = self.tree.free(f"{path}{joint}{title}" if path else title)
        self.tree.install(path, kind, settings)
        return path

    def call(self, path: str, *args: Any, old: fx.Node) -> fx.Node:
        """A new call of the module at `path`."""
        node = self.graph.call_module(path, tuple(self.concrete(arg, old) for arg in args))
        node.meta.update(source=source.describe(old, path), old=old)
        return node

    def transpose(self, weight: Weight) -> Weight:
        """The weight with its two axes swapped."""
        return replace(weight, transposed=not weight.transposed)

    def _places(self, roles: dict[str, Weight | None], old: fx.Node) -> list[str]:
        first = next((role, weight) for role, weight in roles.items() if weight is not None)
        found = []
        for name in self.weights.names(first[1]):
            path, _, leaf = name.rpartition(".")
            if leaf == first[0] and path and self._holds(path, roles):
                found.append(path)
        called = source.enclosing(old)[0]
        return sorted(found, key=lambda path: path != called)

    def _holds(self, path: str, roles: dict[str, Weight | None]) -> bool:
        expected = {role for role, weight in roles.items() if weight is not None}
        if set(self.weights.below(path)) - {"num_batches_tracked"} != expected:
            return False
        return all(
            weight is None or self.weights[f"{path}.{role}"].name == weight.name
            for role, weight in roles.items()
        )

    def _attribute(self, weight: Weight, old: fx.Node) -> fx.Node:
        node = self._attributes.get(weight.name)
        if node is None:
            node = self.graph.get_attr(weight.name)
            node.meta["source"] = source.describe(old)
            self._attributes[weight.name] = node
        if weight.transposed:
            return self.emit(aten.permute.default, node, [1, 0], old=old)
        return node
