"""The forward pass under a gate sample: masked, or sliced to the active units.

Gates sit at the consumers: a closed gate zeroes the input weights of every module that reads the unit.  Then
leaving the unit out altogether gives the same function, whatever BatchNorm, bias or activation stands in
between.  `step.Masked` multiplies; `step.Sliced` computes the active units alone, so that a sleeping unit
costs nothing.  Both give the same numbers to rounding; `Masked` is the reference.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, fx, nn

from .graph import DROPOUTS, LAYERS, NORMS
from .groups import Active, Axes, Coupling, active_units, all_active

CHANNELS_LAST_FROM = 4  # output channels of the first convolution, by measurement on a CPU
NO_AXES = Axes(rows=None, cols=None)


def take(tensor: Tensor, rows: Tensor | None, cols: Tensor | None) -> Tensor:
    """The slice of `tensor` at `rows` of dimension 0 and `cols` of dimension 1; None is everything.

    Without indices the tensor itself, else a copy.
    """
    if rows is not None and tensor.dim() >= 1:
        tensor = tensor.index_select(0, rows)
    if cols is not None and tensor.dim() >= 2:
        tensor = tensor.index_select(1, cols)
    return tensor


def put(tensor: Tensor, rows: Tensor | None, cols: Tensor | None, value: Tensor) -> None:
    """Write `value` where `take` read; a no-op where it read the tensor itself."""
    rows = rows if tensor.dim() >= 1 else None
    cols = cols if tensor.dim() >= 2 else None
    if rows is not None and cols is not None:
        # by flat positions: several times faster than indexing with two index tensors
        pairs = (rows[:, None] * tensor.shape[1] + cols).flatten()
        flat = tensor.view(tensor.shape[0] * tensor.shape[1], -1)
        flat.scatter_(0, pairs[:, None].expand(-1, flat.shape[1]), value.reshape(-1, flat.shape[1]))
    elif rows is not None:
        tensor.index_copy_(0, rows, value)
    elif cols is not None:
        tensor.index_copy_(1, cols, value)
    elif value is not tensor:
        tensor.copy_(value)


def channels_last(x: Tensor) -> Tensor:
    """Images (N, C, H, W) with the channels innermost in memory; anything else as it is.

    Convolutions keep the format, and pooling in it is several times faster on a CPU.
    """
    if x.dim() != 4:
        return x
    if x.shape[1] == 1 and x.is_contiguous():  # either format by its strides: say which
        return x.view(x.shape[0], *x.shape[2:], 1).permute(0, 3, 1, 2)
    return x.contiguous(memory_format=torch.channels_last)


@dataclass(kw_only=True, slots=True)
class Noise:
    """Dropout's random numbers of one step, drawn at full width, so that the sample does not shift them.

    Both evaluations of an antithetic pair see the same numbers.
    """

    generator: Generator
    drawn: dict[str, Tensor] = field(default_factory=dict)

    def keep(self, node: str, shape: tuple[int, ...], p: float) -> Tensor:
        """0 or 1/(1-p) per entry of `shape`."""
        if node not in self.drawn:
            keep = torch.rand(shape, generator=self.generator) >= p
            self.drawn[node] = keep / (1 - p) if p < 1 else torch.zeros(shape)
        return self.drawn[node]


@dataclass(frozen=True, kw_only=True, slots=True)
class Pass:
    """One evaluation of the network.

    `tensors`: parameter and buffer name -> tensor to use.  `noise`: None in evaluation mode.  `update_stats`:
    whether BatchNorm moves the running statistics in `tensors` (in place).
    """

    active: Active
    tensors: dict[str, Tensor]
    noise: Noise | None
    update_stats: bool


Operation = Callable[[Tensor, Pass], Tensor]


class Network:
    """A traced network with its coupling: the full-width parameters and how to run any part of them."""

    def __init__(self, graph: fx.GraphModule, coupling: Coupling) -> None:
        self.graph = graph
        self.coupling = coupling
        self.parameters: dict[str, Tensor] = dict(graph.named_parameters())
        self.buffers: dict[str, Tensor] = dict(graph.named_buffers())
        self.axes = {
            name: coupling.modules.get(name.rpartition(".")[0], NO_AXES)
            for name in (*self.parameters, *self.buffers)
        }
        self.everything = all_active(coupling)
        nodes = [node for node in graph.graph.nodes if node.op == "call_module"]
        last_readers = {node.all_input_nodes[0]: node for node in nodes}
        self._steps = [  # what to read, what to write, how, and whether nobody reads the input afterwards
            (source.name, node.name, self._operation(node), last_readers[source] is node)
            for node in nodes
            for source in node.all_input_nodes
        ]
        self._first_conv = next(
            (
                f"{n.target}.weight"
                for n in nodes
                if isinstance(graph.get_submodule(str(n.target)), nn.Conv2d)
            ),
            None,
        )
        self._input = next(node for node in graph.graph.nodes if node.op == "placeholder")
        self._output = next(node for node in graph.graph.nodes if node.op == "output").all_input_nodes[0].name

    def active(self, mask: Tensor) -> Active:
        """The active units under the gates `mask` (G,) bool, closed."""
        if bool(mask.all()):
            return self.everything
        return active_units(self.coupling, self.coupling.close(mask))

    def slices(self, active: Active) -> dict[str, Tensor]:
        """The active slices of all parameters and buffers, without gradients."""
        return {
            name: take(tensor.detach(), *active.axes(self.axes[name]))
            for name, tensor in (self.parameters | self.buffers).items()
        }

    def run(self, x: Tensor, one: Pass) -> Tensor:
        """The network's output (N, ...) for `x` (N, *input shape)."""
        values = {self._input.name: self._select(self._input.name, self._arrange(x, one), one)}
        for source, node, operation, last in self._steps:
            x = operation(values.pop(source) if last else values[source], one)
            values[node] = self._select(node, x, one)
        return values[self._output]

    def evaluate(self, x: Tensor, active: Active | None = None, chunk: int = 256) -> Tensor:
        """Outputs in evaluation mode without gradients, under active units (default: all)."""
        active = active or self.everything
        one = Pass(active=active, tensors=self.slices(active), noise=None, update_stats=False)
        with torch.no_grad():
            return torch.cat([self.run(part, one) for part in torch.split(x, chunk)])

    def _arrange(self, x: Tensor, one: Pass) -> Tensor:
        """The input in the memory format that is faster for as many channels as are active."""
        if self._first_conv is None or one.tensors[self._first_conv].shape[0] < CHANNELS_LAST_FROM:
            return x
        return channels_last(x)

    def _select(self, node: str, x: Tensor, one: Pass) -> Tensor:
        positions = one.active.positions.get(node)
        return x if positions is None else x.index_select(1, positions)

    def _operation(self, node: fx.Node) -> Operation:
        target = str(node.target)
        module = self.graph.get_submodule(target)
        shape: tuple[int, ...] = node.meta["shape"]
        if isinstance(module, LAYERS):
            return _layer(target, module, shape, self.coupling.modules[target])
        if isinstance(module, NORMS):
            return _unless_empty(_norm(target, module), shape)
        if isinstance(module, DROPOUTS):
            return _dropout(node.name, module, shape, self.coupling.outputs[node.name])
        return _unless_empty(lambda x, one: module(x), shape)


def _unless_empty(operation: Operation, shape: tuple[int, ...]) -> Operation:
    """Where a whole group sleeps there is nothing to compute, and torch's kernels refuse to try."""

    def run(x: Tensor, one: Pass) -> Tensor:
        return operation(x, one) if x.shape[1] else x.new_empty(x.shape[0], 0, *shape[1:])

    return run


def _layer(target: str, module: nn.Module, shape: tuple[int, ...], axes: Axes) -> Operation:
    weight_name, bias_name = f"{target}.weight", f"{target}.bias"

    def run(x: Tensor, one: Pass) -> Tensor:
        weight, bias = one.tensors[weight_name], one.tensors.get(bias_name)
        rows = weight.shape[0]
        if weight.numel() == 0:  # F.conv2d without input channels would silently give no output
            empty = x.new_zeros(x.shape[0], rows, *shape[1:])
            return empty if bias is None else empty + bias.reshape(1, rows, *(1 for _ in shape[1:]))
        if isinstance(module, nn.Conv2d):
            return F.conv2d(x, weight, bias, module.stride, module.padding, module.dilation)
        return F.linear(x, weight, bias)

    return run


def _norm(target: str, module: nn.BatchNorm1d | nn.BatchNorm2d) -> Operation:
    def run(x: Tensor, one: Pass) -> Tensor:
        training = one.noise is not None or not module.track_running_stats
        stats = not training or one.update_stats
        tensors = one.tensors
        momentum = module.momentum
        if momentum is None:  # cumulative average
            momentum = 1.0 / (float(tensors[f"{target}.num_batches_tracked"]) + 1)
        return F.batch_norm(
            x,
            tensors.get(f"{target}.running_mean") if stats else None,
            tensors.get(f"{target}.running_var") if stats else None,
            tensors.get(f"{target}.weight"),
            tensors.get(f"{target}.bias"),
            training,
            momentum,
            module.eps,
        )

    return run


def _dropout(node: str, module: nn.Module, shape: tuple[int, ...], group: str | None) -> Operation:
    p = float(module.p)  # type: ignore[arg-type]
    whole_channels = isinstance(module, (nn.Dropout1d, nn.Dropout2d))
    drawn_shape = (shape[0], *(1 for _ in shape[1:])) if whole_channels else shape

    def run(x: Tensor, one: Pass) -> Tensor:
        if one.noise is None:
            return x
        # drawn for a sleeping layer too, or the numbers of later layers and steps would shift
        keep = one.noise.keep(node, (x.shape[0], *drawn_shape), p)
        units = None if group is None else one.active.units[group]
        return x * (keep if units is None else keep.index_select(1, units))

    return run
