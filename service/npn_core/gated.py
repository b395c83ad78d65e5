"""The forward pass under a gate sample: masked, or sliced to the active units.

Gates sit at the consumers: a closed gate zeroes the input weights of every layer that reads the unit.  Then
leaving the unit out altogether gives the same function, whatever BatchNorm, bias or activation stands in
between.  `step.Masked` multiplies; `step.Sliced` computes the active units alone, so that a sleeping unit
costs nothing.  Both give the same numbers to rounding; `Masked` is the reference.
"""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Generator, Tensor, fx, nn

from .device import CPU, device_of, mixed_precision
from .graph import Shape, module_of, tensor_names
from .groups import Active, Coupling
from .kernels import Kernel, draw, kernel_of
from .outputs import output_tensors
from .slices import Indices, follow, take

BATCHES_TRACKED = "num_batches_tracked"
CHANNELS_LAST_FROM = 4  # output channels of the first convolution, by measurement on a CPU


def channels_last(x: Tensor) -> Tensor:
    """Images (N, C, H, W) with the channels innermost in memory; anything else as it is.

    Convolutions keep the format, and pooling in it is several times faster on a CPU.
    """
    if x.dim() != 4:
        return x
    if x.shape[1] == 1 and x.is_contiguous():  # either format by its strides: say which
        return x.view(x.shape[0], *x.shape[2:], 1).permute(0, 3, 1, 2)
    return x.contiguous(memory_format=torch.channels_last)


def is_normed(graph: nn.Module) -> bool:
    """Whether it has BatchNorm with running statistics."""
    return any(name.endswith(BATCHES_TRACKED) for name, _ in graph.named_buffers())


@dataclass(kw_only=True, slots=True)
class Noise:
    """Dropout's random numbers of one step, drawn at full width, so that the sample does not shift them.

    Both evaluations of an antithetic pair see the same numbers.
    """

    generator: Generator
    drawn: dict[str, Tensor] = field(default_factory=dict)

    def keep(self, node: str, shape: tuple[int, ...], p: float, device: torch.device = CPU) -> Tensor:
        """0 or 1/(1-p) per entry of `shape`, on `device`."""
        if node not in self.drawn:
            keep = (torch.rand(shape, generator=self.generator) >= p).to(device)
            self.drawn[node] = keep / (1 - p) if p < 1 else keep.new_zeros(shape, dtype=torch.float32)
        return self.drawn[node]


@dataclass(frozen=True, kw_only=True, slots=True)
class Pass:
    """One evaluation of the network.

    `tensors`: parameter and buffer name -> tensor to use.  `noise`: None in evaluation mode.  `update_stats`:
    whether BatchNorm moves the running statistics in `tensors` (in place).  `precision`: "float32" or "bfloat16".
    """

    active: Active
    tensors: dict[str, Tensor]
    noise: Noise | None
    update_stats: bool
    precision: str = "float32"


@dataclass(frozen=True, kw_only=True, slots=True)
class _Operation:
    """One node: what computes it, and which values nobody reads afterwards."""

    node: fx.Node
    kernel: Kernel
    last: tuple[str, ...]


class Network:
    """A lifted graph with its coupling: the full-width tensors and how to run any part of them."""

    def __init__(self, graph: fx.GraphModule, coupling: Coupling) -> None:
        self.graph = graph
        self.coupling = coupling
        self.device = device_of(graph)
        self.names = tensor_names(graph)
        self.parameters: dict[str, Tensor] = dict(graph.named_parameters())
        self.buffers: dict[str, Tensor] = dict(graph.named_buffers())
        self.dims = {name: coupling.tensors[name] for name in (*self.parameters, *self.buffers)}
        self.everything = coupling.everything()
        self._inputs = [node.name for node in graph.graph.find_nodes(op="placeholder")]
        self._output = graph.graph.output_node()
        self._operations = self._plan()
        self._first_conv = next(
            (
                f"{node.target}.weight"
                for node in graph.graph.nodes
                if isinstance(module_of(graph, node), nn.Conv2d)
            ),
            None,
        )

    @property
    def normed(self) -> bool:
        """Whether it has BatchNorm with running statistics."""
        return is_normed(self.graph)

    def active(self, mask: Tensor) -> Active:
        """The active units under the gates `mask` (G,) bool, closed."""
        if bool(mask.all()):
            return self.everything
        return self.coupling.active(self.coupling.close(mask))

    def slices(self, active: Active) -> dict[str, Tensor]:
        """The active slices of all parameters and buffers, without gradients; weights that sleep are 0."""
        sliced = {
            name: take(tensor.detach(), active.indices(self.dims[name], self.device))
            for name, tensor in (self.parameters | self.buffers).items()
        }
        for name in self.coupling.weights:
            sliced[name] = active.gated(name, sliced[name])
        return sliced

    def run(self, x: tuple[Tensor, ...], one: Pass) -> tuple[Tensor, ...]:
        """The network's outputs, each (N, ...), for its inputs, each (N, *input shape)."""
        with mixed_precision(self.device, one.precision):
            outputs = self._run(x, one)
        return tuple(o.float() if o.dtype is torch.bfloat16 else o for o in outputs)

    def _run(self, x: tuple[Tensor, ...], one: Pass) -> tuple[Tensor, ...]:
        values: dict[str, Any] = dict(
            zip(self._inputs, (self._arrange(part, one) for part in x), strict=True)
        )
        for operation in self._operations:
            node = operation.node
            arguments = fx.map_arg((node.args, node.kwargs), lambda source: values[source.name])
            for name in operation.last:
                del values[name]
            values[node.name] = self._compute(operation, *arguments, one, len(x[0]))
        return output_tensors(fx.map_arg(self._output.args[0], lambda source: values[source.name]))

    def evaluate(
        self, x: tuple[Tensor, ...], active: Active | None = None, chunk: int = 256
    ) -> tuple[Tensor, ...]:
        """Outputs in evaluation mode without gradients, under active units (default: all)."""
        active = active or self.everything
        one = Pass(active=active, tensors=self.slices(active), noise=None, update_stats=False)
        with torch.no_grad():
            parts = [self.run(part, one) for part in zip(*(torch.split(i, chunk) for i in x), strict=True)]
        return tuple(torch.cat(pieces) for pieces in zip(*parts, strict=True))

    def tensor(self, name: str, one: Pass) -> Tensor | None:
        """The tensor called `name`, under any of its names; None where there is none."""
        first = self.names.get(name)
        return None if first is None else one.tensors[first]

    def indices(self, node: fx.Node, one: Pass) -> Indices:
        """The active positions along each axis of a node's output."""
        return one.active.indices(self.coupling.values[node.name], self.device)

    def _plan(self) -> list[_Operation]:
        nodes = [n for n in self.graph.graph.nodes if n.op not in ("placeholder", "output")]
        last_reader = {source.name: node.name for node in nodes for source in node.all_input_nodes}
        for source in self._output.all_input_nodes:
            last_reader.pop(source.name, None)
        freed: dict[str, list[str]] = {}
        for source, reader in last_reader.items():
            freed.setdefault(reader, []).append(source)
        return [
            _Operation(node=node, kernel=kernel_of(self, node), last=tuple(freed.get(node.name, ())))
            for node in nodes
        ]

    def _compute(self, operation: _Operation, args: Any, kwargs: Any, one: Pass, batch: int) -> Any:
        """The node's value; nothing is computed where all of its units sleep."""
        node, active = operation.node, one.active
        if not active.whole:
            followers = self.coupling.followers.get(node.name, ())
            args = follow(args, followers, active)
            empty = self._empty(node, one, batch)
            if empty is not None:
                draw(self, node, batch, one)
                example = next((a for a in args if isinstance(a, Tensor)), None)
                return torch.empty(empty, device=self.device) if example is None else example.new_empty(empty)
        return operation.kernel(args, kwargs, one)

    def _empty(self, node: fx.Node, one: Pass, batch: int) -> list[int] | None:
        """The sizes of the node's one tensor if it has no entries under this sample; None else."""
        dims = self.coupling.values[node.name]
        if not any(isinstance(axis, int) and one.active.count(axis) == 0 for axis in dims):
            return None
        shape: Shape = node.meta["shape"]
        return [
            (dim.size if axis is None else one.active.count(axis)) * (batch if dim.batched else 1)
            for dim, axis in zip(shape, dims, strict=True)
        ]

    def _arrange(self, x: Tensor, one: Pass) -> Tensor:
        """The input in the memory format that is faster for as many channels as are active."""
        if (
            self._first_conv is None
            or one.tensors[self.names[self._first_conv]].shape[0] < CHANNELS_LAST_FROM
        ):
            return x
        return channels_last(x)
