"""What a network costs, exactly: in expectation over its gates, and for a hard mask.

The expected cost is the sum over weights of P(the weight is alive), design section 4.  A weight between two
different groups is alive when both its units are: their counts multiply.  Between a group and itself
(x + conv(x)) the expected number of live pairs is s^2 + sum p (1 - p), s = sum p.  A bias or a BatchNorm
entry lives with its unit.  So with s the vector of expected live units of each group, every cost is a
quadratic in s.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn

from .config import COST_KINDS
from .groups import Axes, Coupling
from .progress import Cost


def alive_probabilities(coupling: Coupling, pi: Tensor) -> Tensor:
    """P(unit alive after closure) (G,), from the gates' probabilities `pi` (G,); differentiable.

    A feature lives with probability pi_f pi_c, a channel with pi_c (1 - prod over its features (1 - pi_f)).
    """
    alive = {group.name: pi[group.slice] for group in coupling.groups}
    for child in coupling.children.values():
        channel = alive[str(child.parent)]
        features = pi[child.slice].view(-1, child.per_parent)
        alive[child.name] = (channel[:, None] * features).flatten()
        alive[str(child.parent)] = channel * (1 - (1 - features).prod(dim=1))
    return torch.cat([alive[group.name] for group in coupling.groups])


@dataclass(frozen=True, kw_only=True, slots=True)
class CostModel:
    """Costs as quadratics of live units.  The first axis of each tensor is COST_KINDS (3), float64.

    cost = constant + linear s + sum_ij quadratic_ij (pairs of i and j), with `quadratic` (3, groups, groups)
    and `linear` (3, groups); `sums` (groups, G) adds up the units of each group.
    """

    coupling: Coupling
    constant: Tensor
    linear: Tensor
    quadratic: Tensor
    sums: Tensor

    def expected(self, pi: Tensor) -> Tensor:
        """E[cost] (3,) in the order of COST_KINDS, for gate probabilities `pi` (G,); differentiable."""
        alive = alive_probabilities(self.coupling, pi)
        s = self.sums @ alive
        pairs = torch.outer(s, s) + torch.diag(self.sums @ (alive * (1 - alive)))
        return self.constant + self.linear @ s + (self.quadratic * pairs).sum(dim=(1, 2))

    def count(self, mask: Tensor) -> Cost:
        """The cost of the compact network of a hard `mask` (G,) bool, which is closed first."""
        # at 0/1 probabilities the expectation is the count, and float64 holds it exactly
        costs = self.expected(mask.to(torch.float64))
        return Cost(**{kind: round(value) for kind, value in zip(COST_KINDS, costs.tolist(), strict=True)})


def cost_model(graph: fx.GraphModule, coupling: Coupling) -> CostModel:
    """The cost model of a traced network."""
    return _Builder(graph, coupling).build()


class _Builder:
    def __init__(self, graph: fx.GraphModule, coupling: Coupling) -> None:
        self.graph, self.coupling = graph, coupling
        self.index = {group.name: i for i, group in enumerate(coupling.groups)}
        n = len(coupling.groups)
        self.constant = torch.zeros(3, dtype=torch.float64)
        self.linear = torch.zeros(3, n, dtype=torch.float64)
        self.quadratic = torch.zeros(3, n, n, dtype=torch.float64)

    def build(self) -> CostModel:
        for node in self.graph.graph.nodes:
            if node.op == "call_module":
                self.add_module(node, self.graph.get_submodule(str(node.target)))
        sums = torch.zeros(len(self.coupling.groups), self.coupling.size, dtype=torch.float64)
        for i, group in enumerate(self.coupling.groups):
            sums[i, group.slice] = 1
        return CostModel(
            coupling=self.coupling,
            constant=self.constant,
            linear=self.linear,
            quadratic=self.quadratic,
            sums=sums,
        )

    def add_module(self, node: fx.Node, module: nn.Module) -> None:
        axes = self.coupling.modules.get(str(node.target), Axes(rows=None, cols=None))
        for name, tensor in (*module.named_parameters(), *module.named_buffers()):
            is_parameter = isinstance(tensor, nn.Parameter)
            params = tensor.numel() if is_parameter else 0
            # a multiply-add per weight and output position
            macs = tensor.numel() * _positions(node) if name == "weight" and tensor.dim() > 1 else 0
            size = torch.tensor([params, macs, tensor.nbytes], dtype=torch.float64)
            self.add_tensor(tensor, axes, size)

    def add_tensor(self, tensor: Tensor, axes: Axes, size: Tensor) -> None:
        """Spread the whole tensor's `size` (3,) evenly over its units, or pairs of units."""
        rows = axes.rows if tensor.dim() >= 1 else None
        cols = axes.cols if tensor.dim() >= 2 else None
        if rows and cols:
            per_pair = size / (tensor.shape[0] * tensor.shape[1])
            self.quadratic[:, self.index[rows], self.index[cols]] += per_pair
        elif rows:
            self.linear[:, self.index[rows]] += size / tensor.shape[0]
        elif cols:
            self.linear[:, self.index[cols]] += size / tensor.shape[1]
        else:
            self.constant += size


def _positions(node: fx.Node) -> int:
    """Positions of the output that share the module's weights: height times width, 1 for a linear layer."""
    return math.prod(node.meta["shape"][1:])
