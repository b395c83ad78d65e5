"""In-place operators: which can be replaced one by one, and which need the whole program rewritten."""

from torch import fx

from . import schema

# Give the tensor itself, or a view of it, without saying so in their schema.
_MAY_ALIAS = (
    "reshape",
    "contiguous",
    "to",
    "flatten",
    "dropout",
    "feature_dropout",
    "type_as",
    "pad",
    "alias",
)


def needs_functions(module: fx.GraphModule) -> bool:
    """Is a tensor read, under another name, after an operator changed it in place?"""
    graphs = [child.graph for child in module.modules() if isinstance(child, fx.GraphModule)]
    return any(_needs(graph) for graph in graphs)


def _needs(graph: fx.Graph) -> bool:
    position = {node: index for index, node in enumerate(graph.nodes)}
    group: dict[fx.Node, list[fx.Node]] = {}
    for node in graph.nodes:
        origin = _origin(node)
        group[node] = group[origin] if origin is not None else []
        group[node].append(node)
    for node in graph.nodes:
        if not schema.mutated(node.target) or schema.name(node.target).lstrip("_").startswith("native_batch"):
            continue
        changed = node.args[0] if node.args else None
        if not isinstance(changed, fx.Node) or changed.op == "placeholder":
            continue
        # A name taken before the change and read after it would show the old value.
        earlier = [
            other for other in group[changed] if position[other] < position[node] and other is not changed
        ]
        if any(position[user] > position[node] for other in earlier for user in other.users):
            return True
    return False


def memory(node: fx.Node) -> fx.Node:
    """The node whose memory this one is a view of, by the operators' schemas."""
    while (source := _viewed(node)) is not None:
        node = source
    return node


def _origin(node: fx.Node) -> fx.Node | None:
    """The node whose memory this one shares, or may share."""
    first = node.args[0] if node.args else None
    if isinstance(first, fx.Node) and schema.name(node.target) in _MAY_ALIAS:
        return first
    return _viewed(node)


def _viewed(node: fx.Node) -> fx.Node | None:
    first = node.args[0] if node.args else None
    if not isinstance(first, fx.Node) or node.op != "call_function":
        return None
    if getattr(node.target, "__name__", "") == "getitem":
        return first
    if schema.name(node.target) in _MAY_ALIAS:
        return None
    returns = getattr(getattr(node.target, "_schema", None), "returns", ())
    return first if any(item.alias_info is not None for item in returns) else None
