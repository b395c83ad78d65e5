"""Residual branches that leave whole: depth, where a budget would leave a branch too thin to be worth its layers.

A branch is what a residual network adds to its stream, y in x + y with y = f(x).  Fewer and wider branches of as many
multiply-adds learn faster than many thin ones, and have fewer operations to wait for (docs/results.md).
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, fx

from .budget import fits, harden
from .config import Budget, Expansion, Training
from .copies import duplicate, on_device
from .cost import cost_model
from .coupling import find_groups
from .device import CPU
from .errors import InvalidInput
from .gated import Network
from .graph import annotate, operator_name
from .groups import Group, units_of
from .progress import InputInfo


@dataclass(frozen=True, kw_only=True, slots=True)
class Branch:
    """What node `addition` adds to node `stream`; the `groups` that lie inside have no units anywhere else."""

    addition: str
    stream: str
    groups: tuple[Group, ...]

    @property
    def name(self) -> str:
        """That of its first group."""
        return self.groups[0].name

    def share(self, mask: Tensor) -> float:
        """Of its units the share that `mask` (G,) keeps, in the group that keeps least."""
        return min(float(mask[group.slice].double().mean()) for group in self.groups)


def check_branches(training: Training, expansion: Expansion | None) -> None:
    """Raises InvalidInput where branches are to leave that cannot."""
    asks = training.thinnest_branch is not None and training.thinnest_branch > 0
    for cannot, why in (
        (expansion is not None, "a network that grows keeps its branches"),
        (training.units == "weights", "where single weights leave every branch keeps its layers"),
    ):
        if asks and cannot:
            raise InvalidInput("training.thinnest_branch", f"{why}: leave thinnest_branch out, or 0")


def find_branches(network: Network) -> tuple[Branch, ...]:
    """The branches of a network that have units of their own, in the order in which they are computed."""
    found = []
    for node in network.graph.graph.nodes:
        if operator_name(node) != "aten.add.Tensor" or node.kwargs or len(node.all_input_nodes) != 2:
            continue
        first, second = node.all_input_nodes
        for stream, branch in ((first, second), (second, first)):
            groups = _inside(network, node, stream, branch)
            if groups:
                found.append(Branch(addition=node.name, stream=stream.name, groups=groups))
    return tuple(found)


def _inside(network: Network, addition: fx.Node, stream: fx.Node, branch: fx.Node) -> tuple[Group, ...]:
    """The groups inside of what leads from `stream` to `branch`, and there alone; none if it is no residual branch."""
    nodes = _only_for(branch, addition)
    read = {source for node in nodes for source in node.all_input_nodes} - nodes
    is_function_of_stream = {node for node in read if node.meta["shape"]} == {stream}
    if not is_function_of_stream or stream.meta["shape"] != branch.meta["shape"]:
        return ()
    coupling = network.coupling
    inside, outside = set[int](), set[int]()
    elsewhere = _targets(n for n in network.graph.graph.nodes if n not in nodes)
    for name, dims in coupling.tensors.items():
        units = outside if _belongs(name, elsewhere) else inside
        for axis in dims:
            units.update([] if axis is None else coupling.axes[axis].tolist())
    own = inside - outside
    return tuple(g for g in coupling.groups if own.issuperset(range(g.slice.start, g.slice.stop)))


def _only_for(branch: fx.Node, addition: fx.Node) -> set[fx.Node]:
    """The nodes that are computed for the branch alone."""
    nodes: set[fx.Node] = {branch} if set(branch.users) == {addition} else set()
    for node in reversed(addition.graph.nodes):
        if node.op != "placeholder" and node.users and nodes.issuperset(node.users):
            nodes.add(node)
    return nodes


def _targets(nodes: Iterable[fx.Node]) -> set[str]:
    return {str(node.target) for node in nodes if node.op in ("call_module", "get_attr")}


def _belongs(name: str, targets: set[str]) -> bool:
    """Whether the tensor called `name` is one of `targets`, or lies in one."""
    while name and name not in targets:
        name = name.rpartition(".")[0]
    return bool(name)


def thin_branches(
    network: Network,
    chosen: tuple[Tensor, Tensor],
    budget: Budget,
    training: Training,
    inputs: tuple[InputInfo, ...],
) -> tuple[tuple[str, ...], Network]:
    """The branches of which less than a share of `training.thinnest_branch` is left at hardening; the rest.

    `chosen`: the mask before repair and the scores (G,) by which that goes.  The thinnest goes first, and what it
    leaves of the budget makes others wider.  What would take the network below its budget stays, and all does where
    the mask is a baseline's.  So does a branch that alone holds channels of the stream in their places: without it
    there would be units that have no gates.
    """
    names: tuple[str, ...] = ()
    stays: set[str] = set()
    share = (training.thinnest_branch or 0.0) if training.mask == "learned" else 0.0
    while share > 0 and (branches := [one for one in find_branches(network) if one.name not in stays]):
        costs = cost_model(network.graph, network.coupling)
        mask = harden(costs, budget, *chosen, training.round_to).mask
        thinnest = min(branches, key=lambda branch: branch.share(mask))
        if thinnest.share(mask) >= share:
            break
        smaller = _without(network, thinnest, inputs)
        everything = torch.ones(smaller.coupling.size, dtype=torch.bool)
        if fits(cost_model(smaller.graph, smaller.coupling).count(everything), budget):
            break
        try:
            origin = units_of(network.coupling, smaller.coupling)
        except LookupError:
            stays.add(thinnest.name)
            continue
        chosen = chosen[0][origin], chosen[1][origin]
        network, names = smaller, (*names, thinnest.name)
    return names, network


def without(network: Network, names: Collection[str], inputs: tuple[InputInfo, ...]) -> Network:
    """A copy of the network that adds nothing to the stream where the named branches were; raises KeyError."""
    for name in names:
        network = _without(network, {branch.name: branch for branch in find_branches(network)}[name], inputs)
    return network


def _without(network: Network, branch: Branch, inputs: tuple[InputInfo, ...]) -> Network:
    graph = on_device(duplicate(network.graph), CPU)
    nodes = {node.name: node for node in graph.graph.nodes}
    addition = nodes[branch.addition]
    addition.replace_all_uses_with(nodes[branch.stream])
    graph.graph.erase_node(addition)
    graph.graph.eliminate_dead_code()
    _delete_unused(graph)
    graph.recompile()
    coupling = find_groups(annotate(graph, inputs))
    return Network(on_device(graph, network.device), coupling)


def _delete_unused(graph: fx.GraphModule) -> None:
    """Modules that no node calls, and tensors that none reads."""
    graph.delete_all_unused_submodules()
    used = _targets(graph.graph.nodes)
    tensors = (*graph.named_parameters(remove_duplicate=False), *graph.named_buffers(remove_duplicate=False))
    for name, _ in tensors:
        if not _belongs(name, used):
            path, _, attribute = name.rpartition(".")
            delattr(graph.get_submodule(path), attribute)
