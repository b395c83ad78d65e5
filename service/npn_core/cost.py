"""What a network costs, exactly: in expectation over its gates, and for a hard mask.

The expected cost is the sum over weights of P(the weight is alive), design section 4.  Along an axis with c_u
positions of unit u and f fixed ones, s = f + sum_u c_u p_u positions are alive on average, p_u = P(u alive).  A
weight between two axes is alive when both its positions are; different units are independent, and a unit is
alive together with itself:

    E[n_i n_j] = s_i s_j + sum_u c_iu c_ju p_u (1 - p_u)

so every cost is a quadratic in the live positions of the axes; where the units are single weights it is linear in their
gates.  At gates of 0 and 1 it is a count.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn

from .config import COST_KINDS
from .graph import TRANSPOSED, Shape, layer_weight, module_of, operator_name, positions, source, tensor_names
from .groups import FIXED, Coupling, Dims
from .progress import Cost


def alive_probabilities(coupling: Coupling, pi: Tensor) -> Tensor:
    """P(unit alive after closure) (G,), from the gates' probabilities `pi` (G,); differentiable.

    A feature lives with probability pi_f pi_c, a unit that closes with pi_c (1 - prod over its features (1 - pi_f)).
    """
    features = coupling.features
    if not len(features):
        return pi
    parents = coupling.parent[features]
    none = torch.ones_like(pi).scatter_reduce(0, parents, 1 - pi[features], "prod")
    alive = torch.where(coupling.closes, pi * (1 - none), pi)
    return alive.index_put((features,), pi[features] * pi[parents])


@dataclass(frozen=True, kw_only=True, slots=True)
class CostModel(ABC):
    """Costs of what is alive.  The first axis of each tensor is COST_KINDS (3), float64.

    `constant` is what no unit has to do with.
    """

    coupling: Coupling
    constant: Tensor

    @abstractmethod
    def expected(self, pi: Tensor) -> Tensor:
        """E[cost] (3,) in the order of COST_KINDS, for gate probabilities `pi` (G,); differentiable."""

    @property
    def prunable(self) -> float:
        """The share of the parameters that belong to a unit."""
        whole = torch.ones(self.coupling.size, dtype=torch.bool)
        params = COST_KINDS.index("params")
        return 1 - float(self.constant[params]) / max(1, self.count(whole).params)

    def count(self, mask: Tensor) -> Cost:
        """The cost of the compact network of a hard `mask` (G,) bool, which is closed first."""
        # at 0/1 probabilities the expectation is the count, and float64 holds it exactly
        costs = self.expected(mask.to(torch.float64))
        return Cost(**{kind: round(value) for kind, value in zip(COST_KINDS, costs.tolist(), strict=True)})


@dataclass(frozen=True, kw_only=True, slots=True)
class CoupledCosts(CostModel):
    """Quadratics of live positions.

    cost = constant + linear s + s^T quadratic s + pair . p(1 - p), with s = fixed + counts p: `counts` (A, G),
    `fixed` (A,), `linear` (3, A), `quadratic` (3, A, A), `pair` (3, G).
    """

    linear: Tensor
    quadratic: Tensor
    counts: Tensor
    fixed: Tensor
    pair: Tensor

    def expected(self, pi: Tensor) -> Tensor:
        """By the formula above."""
        p = alive_probabilities(self.coupling, pi)
        s = self.fixed + torch.mv(self.counts, p)
        pairs = torch.outer(s, s)
        return (
            self.constant
            + self.linear @ s
            + (self.quadratic * pairs).sum(dim=(1, 2))
            + self.pair @ (p * (1 - p))
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class WeightCosts(CostModel):
    """cost = constant + single n, with n (W,) how many entries of each tensor of single weights are alive.

    `single` (3, W) is what one of them costs: a parameter and its bytes, and no multiply-add, for a dense kernel
    multiplies zeros, too.
    """

    single: Tensor

    def expected(self, pi: Tensor) -> Tensor:
        """By the formula above."""
        alive = [pi[group.slice].sum() for group in self.coupling.weights.values()]
        return self.constant + self.single @ torch.stack(alive)


def cost_model(graph: fx.GraphModule, coupling: Coupling) -> CostModel:
    """The cost model of an annotated graph."""
    return _Builder(graph, coupling).build()


class _Builder:
    def __init__(self, graph: fx.GraphModule, coupling: Coupling) -> None:
        self.graph, self.coupling = graph, coupling
        n = len(coupling.axes)
        self.constant = torch.zeros(3, dtype=torch.float64)
        self.linear = torch.zeros(3, n, dtype=torch.float64)
        self.quadratic = torch.zeros(3, n, n, dtype=torch.float64)
        self.single = torch.zeros(3, len(coupling.weights), dtype=torch.float64)

    def build(self) -> CostModel:
        self.add_storage()
        for node in self.graph.graph.nodes:
            self.add_products(node)
        if self.coupling.weights:
            return WeightCosts(coupling=self.coupling, constant=self.constant, single=self.single)
        counts = torch.zeros(len(self.coupling.axes), self.coupling.size, dtype=torch.float64)
        fixed = torch.zeros(len(self.coupling.axes), dtype=torch.float64)
        for number, units in enumerate(self.coupling.axes):
            free = units[units != FIXED]
            counts[number].index_add_(0, free, torch.ones(len(free), dtype=torch.float64))
            fixed[number] = len(units) - len(free)
        return CoupledCosts(
            coupling=self.coupling,
            constant=self.constant,
            linear=self.linear,
            quadratic=self.quadratic,
            counts=counts,
            fixed=fixed,
            pair=torch.stack([((q @ counts) * counts).sum(dim=0) for q in self.quadratic]),
        )

    def add_storage(self) -> None:
        """Parameters and bytes, a tensor with several names once."""
        names = tensor_names(self.graph)
        parameters = dict(self.graph.named_parameters())
        stored = dict(self.graph.state_dict(keep_vars=True))
        for name in dict.fromkeys(names.values()):
            dims = self.coupling.tensors[name]
            tensor = parameters.get(name, stored.get(name))
            if tensor is not None:
                params = tensor.numel() if name in parameters else 0
                size = torch.tensor([params, 0, tensor.nbytes], dtype=torch.float64)
                if name in self.coupling.weights:
                    self.single[:, [*self.coupling.weights].index(name)] = size / tensor.numel()
                else:
                    self.add(dims, tensor.shape, size)

    def add_products(self, node: fx.Node) -> None:
        """Multiply-adds of one sample: convolutions, linear layers, and products of two values."""
        module = module_of(self.graph, node)
        name = operator_name(node) if node.op == "call_function" else ""
        weight = layer_weight(self.graph, node)
        if weight is not None:
            self.add_layer(node, module, name, weight)
        elif name.startswith(("aten.matmul", "aten.bmm", "aten.mm", "aten.scaled_dot_product")):
            self.add_product(node, name)
        else:  # what no rule knows holds on to all that it reads, so its cost does not change
            self.constant[1] += node.meta.get("macs", 0.0)

    def add_layer(self, node: fx.Node, module: nn.Module | None, name: str, weight: str) -> None:
        """A multiply-add per weight and position: of the input where the layer is a transposed one."""
        transposed = isinstance(module, TRANSPOSED) or "transpose" in name
        shape: Shape = (source(node) if transposed else node).meta["shape"]
        linear = isinstance(module, nn.Linear) or name.startswith("aten.linear")
        times = (
            positions(shape, range(len(shape) - 1))
            if linear
            else shape[0].size * positions(shape, range(2, len(shape)))
        )
        size = dict(self.graph.named_parameters(remove_duplicate=False))[weight].shape
        macs = float(size.numel() * times)
        self.add(self.coupling.tensors[weight], size, torch.tensor([0, macs, 0], dtype=torch.float64))

    def add_product(self, node: fx.Node, name: str) -> None:
        """q k^T and its product with v in an attention; one product elsewhere."""
        out: Shape = node.meta["shape"]
        left, right = (source(node, place).meta["shape"] for place in (0, 1))
        inner = left[-1].size
        dims: Dims = self.coupling.values[node.name]
        sizes = [dim.size for dim in out]
        if "scaled_dot_product" in name:
            keys = right[-2].size
            times = keys * (inner + out[-1].size) / out[-1].size
        else:
            times = float(inner)
        macs = positions(out, range(len(out))) * times
        self.add(dims, sizes, torch.tensor([0, macs, 0], dtype=torch.float64))

    def add(self, dims: Dims, shape: Sequence[int], size: Tensor) -> None:
        """Spread the whole tensor's `size` (3,) evenly over the live positions of its axes."""
        axes = [(axis, shape[dim]) for dim, axis in enumerate(dims) if axis is not None]
        match axes:
            case []:
                self.constant += size
            case [(axis, length)]:
                self.linear[:, axis] += size / length
            case [(one, n), (other, m)]:
                self.quadratic[:, one, other] += size / (n * m)
            case _:
                raise ValueError(f"a tensor of shape {tuple(shape)} has units along {len(axes)} axes")
