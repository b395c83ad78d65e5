"""Small networks with everything the method handles, and masks for them."""

import copy
from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from npn_core.coupling import couple
from npn_core.gated import Network
from npn_core.graph import input_names
from npn_core.groups import FIXED, Coupling, Dims
from npn_core.lift import lift
from npn_core.progress import InputInfo

CONV_INPUT = (1, 8, 8)
CLASSES = 3


def conv_net(*, norm: bool = True, dropout: float = 0.3) -> nn.Sequential:
    """Convolutions, BatchNorm and dropout before and after the flatten: 4 + 5 channels, 45 features, 6 neurons."""
    # a bias before a BatchNorm has no gradient but rounding, which Adam would blow up to whole steps
    layers = {
        "conv1": nn.Conv2d(1, 4, 3, bias=not norm),
        "bn1": nn.BatchNorm2d(4) if norm else nn.Identity(),
        "act1": nn.Tanh(),
        "drop1": nn.Dropout2d(dropout),
        "conv2": nn.Conv2d(4, 5, 3, padding=1, bias=not norm),
        "bn2": nn.BatchNorm2d(5) if norm else nn.Identity(),
        "act2": nn.Tanh(),
        "pool": nn.MaxPool2d(2),
        "flatten": nn.Flatten(),
        "bn3": nn.BatchNorm1d(45) if norm else nn.Identity(),
        "drop2": nn.Dropout(dropout),
        "fc1": nn.Linear(45, 6),
        "act3": nn.Sigmoid(),
        "drop3": nn.Dropout(dropout),
        "fc2": nn.Linear(6, CLASSES),
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(OrderedDict(layers))
        for parameter in model.parameters():  # neither 0 nor 1 where torch's defaults are
            nn.init.normal_(parameter, 0.1, 0.4)
        return model


def network(
    module: nn.Module,
    *shapes: tuple[int, ...],
    dtype: torch.dtype = torch.float32,
    inputs: str = "float32",
    coupled: Callable[[fx.GraphModule, tuple[InputInfo, ...]], Coupling] = couple,
) -> Network:
    """The module, exported and lifted, for samples of these shapes (default: one of CONV_INPUT)."""
    shapes = shapes or (CONV_INPUT,)
    batch = torch.export.Dim("batch", min=1)
    stored = torch.int64 if inputs == "int64" else torch.float32
    example = tuple(torch.zeros(2, *shape, dtype=stored) for shape in shapes)
    dynamic = tuple({0: batch} for _ in shapes)
    graph = lift(torch.export.export(module.train(), example, dynamic_shapes=dynamic))
    coupling = coupled(graph, infos(*shapes, names=input_names(graph), dtype=inputs))
    return Network(graph.to(dtype), coupling)


def infos(
    *shapes: tuple[int, ...], names: Sequence[str] = (), dtype: str = "float32"
) -> tuple[InputInfo, ...]:
    """Inputs with samples of these shapes."""
    names = names or [f"x{place}" for place in range(len(shapes))]
    return tuple(InputInfo(name=n, shape=s, dtype=dtype) for n, s in zip(names, shapes, strict=True))


CONV_INPUTS = infos(CONV_INPUT)


@cache
def _lifted(norm: bool, dropout: float) -> tuple[fx.GraphModule, Coupling]:
    net = network(conv_net(norm=norm, dropout=dropout))
    return net.graph, net.coupling


def conv_network(*, norm: bool = True, dropout: float = 0.3, dtype: torch.dtype = torch.float32) -> Network:
    """`conv_net` as a network of its own; lifted once."""
    graph, coupling = _lifted(norm, dropout)
    return Network(copy.deepcopy(graph).to(dtype), coupling)


def cross_entropy(outputs: tuple[Tensor, ...], y: Any) -> Tensor:
    """The loss of the first output."""
    return F.cross_entropy(outputs[0], y)


def batch(
    generator: torch.Generator, dtype: torch.dtype = torch.float32, size: int = 8
) -> tuple[tuple[Tensor], Tensor]:
    """Noise with labels, for `conv_net`."""
    x = torch.randn(size, *CONV_INPUT, generator=generator, dtype=dtype)
    return (x,), torch.randint(CLASSES, (size,), generator=generator)


def random_mask(coupling: Coupling, generator: torch.Generator, share: float = 0.6) -> Tensor:
    """A closed mask with about `share` of the gates open and at least one unit in every group."""
    while True:
        mask = coupling.close(torch.rand(coupling.size, generator=generator) < share)
        if all(bool(mask[group.slice].any()) for group in coupling.groups):
            return mask


def unit_name(coupling: Coupling, unit: int) -> str:
    """Which unit an entry of the gate vector is: "conv1[3]"; "" for FIXED."""
    if unit == FIXED:
        return ""
    group = coupling.group_of(unit)
    return f"{group.name}[{unit - group.offset}]"


def along(coupling: Coupling, dims: Dims) -> list[str | list[str] | None]:
    """What lies along each axis of a tensor: a group's name where it is its units in order, else each unit's name."""
    whole = {tuple(range(g.offset, g.offset + g.size)): g.name for g in coupling.groups}
    return [
        None
        if axis is None
        else whole.get(tuple(coupling.axes[axis].tolist()))
        or [unit_name(coupling, unit) for unit in coupling.axes[axis].tolist()]
        for axis in dims
    ]


def summary(coupling: Coupling) -> list[tuple[str, str, int]]:
    """Name, kind and size of every group."""
    return [(group.name, group.kind.value, group.size) for group in coupling.groups]


def without(coupling: Coupling, mask: Tensor, *names: str) -> Tensor:
    """`mask` with whole groups asleep."""
    mask = mask.clone()
    for name in names:
        mask[coupling.by_name[name].slice] = False
    return mask
