"""What a network gives: tensors, whatever holds them, and their names."""

from typing import Any

from torch import Tensor, fx
from torch.utils import _pytree as pytree


def output_tensors(outputs: object) -> tuple[Tensor, ...]:
    """The tensors of an output in order, whatever holds them."""
    return tuple(leaf for leaf in pytree.tree_leaves(outputs) if isinstance(leaf, Tensor))


def output_nodes(graph: fx.GraphModule) -> tuple[fx.Node, ...]:
    """The nodes that give the graph's output tensors, in the order of `output_tensors`."""
    leaves = pytree.tree_leaves(graph.graph.output_node().args[0])
    return tuple(leaf for leaf in leaves if isinstance(leaf, fx.Node))


def output_names(outputs: Any) -> tuple[str, ...]:
    """A name for each tensor (or node) of an output: the keys of a dict, "output_0" and so on in a list or tuple.

    A single one is "output"; parts of nested containers are joined by a dot ("output_1.logits").
    """
    leaves, _ = pytree.tree_flatten_with_path(outputs)
    return tuple(_name(path) for path, leaf in leaves if isinstance(leaf, Tensor | fx.Node))


def _name(path: tuple[object, ...]) -> str:
    return ".".join(_part(key) for key in path) or "output"


def _part(key: object) -> str:
    if isinstance(key, pytree.MappingKey):
        return str(key.key)
    return f"output_{key.idx}" if isinstance(key, pytree.SequenceKey) else str(key).lstrip(".")
