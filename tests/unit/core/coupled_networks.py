"""Small networks in one line each, to ask which of their units are found."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from small_networks import along, infos, network, summary
from torch import Generator, Tensor, nn

from npn_core.gated import Network
from npn_core.graph import input_names
from npn_core.groups import Coupling
from npn_core.outputs import output_tensors
from npn_core.step import gated_outputs
from npn_core.surgery import compact

IMAGE, VECTOR, SEQUENCE = (3, 4, 4), (4,), (5, 4)
Along = list[str | list[str] | None]


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """A network, the groups that are in it, and what lies along the axes of some of its tensors.

    Groups of single features are left out of `groups`.
    """

    name: str
    run: Callable[..., Any]
    layers: Callable[[], dict[str, nn.Module | nn.Parameter]]
    groups: dict[str, tuple[str, int]]
    tensors: dict[str, Along]
    shapes: tuple[tuple[int, ...], ...] = (IMAGE,)
    inputs: str = "float32"


def mean(x: Tensor) -> Tensor:
    """Over all pixels."""
    return x.mean((2, 3))


class Written(nn.Module):
    """`layers` (modules and parameters) used by `run(layers, x)`."""

    def __init__(self, run: Callable[..., Any], layers: dict[str, nn.Module | nn.Parameter]) -> None:
        super().__init__()
        self.run = run
        for name, layer in layers.items():
            setattr(self, name, layer)

    def forward(self, x: Tensor) -> Any:
        """What `run` gives."""
        return self.run(self, x)


class WrittenOfTwo(Written):
    """`layers` used by `run(layers, x, y)`."""

    def forward(self, x: Tensor, y: Tensor) -> Any:
        """What `run` gives."""
        return self.run(self, x, y)


def written(
    run: Callable[..., Any],
    *shapes: tuple[int, ...],
    inputs: str = "float32",
    **layers: nn.Module | nn.Parameter,
) -> Network:
    """The network that computes `run(layers, *inputs)`, no two entries of its tensors alike."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = (Written if len(shapes) == 1 else WrittenOfTwo)(run, layers)
        for tensor in (*module.parameters(), *module.buffers()):
            if tensor.is_floating_point():
                tensor.data = torch.rand_like(tensor) + 0.1
        return network(module, *shapes, inputs=inputs)


def repeated(*names: str, times: int) -> list[str]:
    """Each name `times` times in a row."""
    return [name for name in names for _ in range(times)]


def units(name: str, size: int) -> list[str]:
    """The units of a group by name."""
    return [f"{name}[{unit}]" for unit in range(size)]


def why(coupling: Coupling, name: str) -> str:
    """Why a layer's units stay."""
    (reason,) = {one.reason for one in coupling.unpruned if one.name == name}
    return reason


def assert_units(case: Case) -> Network:
    """The groups, what lies along the tensors' axes, and that a mask of them can be sliced and cut out."""
    net = written(case.run, *case.shapes, inputs=case.inputs, **case.layers())
    coupling = net.coupling
    found = {name: (kind, size) for name, kind, size in summary(coupling) if kind != "feature"}
    assert found == case.groups
    for name, expected in case.tensors.items():
        assert along(coupling, coupling.tensors[name]) == expected, name
    assert_exact(net, *case.shapes, inputs=case.inputs)
    return net


def assert_exact(net: Network, *shapes: tuple[int, ...], inputs: str = "float32") -> None:
    """Under a mask of half of the units sliced, masked and compact networks compute the same."""
    generator, precise = Generator().manual_seed(1), Network(copy.deepcopy(net.graph).double(), net.coupling)
    x = tuple(_sample(shape, inputs, generator) for shape in shapes)
    wide = tuple(part.double() if part.is_floating_point() else part for part in x)
    active = net.active(_half(net.coupling))
    masked = gated_outputs(precise, wide, active)
    for one, other in zip(precise.evaluate(wide, active), masked, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)
    told = infos(*shapes, names=input_names(net.graph), dtype=inputs)
    with torch.no_grad():
        small = output_tensors(compact(net, active, told).eval()(*x))
    for one, other in zip(small, masked, strict=True):
        torch.testing.assert_close(one.double(), other, rtol=1e-5, atol=1e-5)


def _sample(shape: tuple[int, ...], inputs: str, generator: Generator) -> Tensor:
    if inputs == "int64":
        return torch.randint(5, (3, *shape), generator=generator)
    return torch.randn(3, *shape, generator=generator)


def _half(coupling: Coupling) -> Tensor:
    """Every other unit of every group, and what must be open with it."""
    mask = torch.zeros(coupling.size, dtype=torch.bool)
    for group in coupling.groups:
        mask[group.offset : group.offset + group.size : 2] = True
    mask = coupling.close(mask)
    for own in coupling.own_units:  # an axis of the others alone
        mask[own[0]] |= not bool(mask[own].any())
    assert not bool(mask.all())
    assert coupling.is_network(coupling.close(mask))
    return mask
