"""What a structure is."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram


@dataclass(frozen=True, kw_only=True, slots=True)
class Structure:
    """A small network: `build` makes it, `inputs` gives its arguments for a batch size.

    `coupling` says what in it couples units.
    """

    name: str
    coupling: str
    build: Callable[[], nn.Module]
    inputs: Callable[[int], tuple[Tensor, ...]]

    def module(self, seed: int = 0) -> nn.Module:
        """The network in train mode, initialised from `seed`; norms and biases are given values too."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            module = self.build()
            enliven(module)
        return module.train()

    def export(self, seed: int = 0) -> ExportedProgram:
        """The network exported in train mode, its batch dynamic."""
        inputs = self.inputs(3)
        batch = Dim("batch")
        return torch.export.export(
            self.module(seed), inputs, dynamic_shapes=tuple({0: batch} for _ in inputs), strict=False
        )


def enliven(module: nn.Module) -> None:
    """Values other than 0 and 1 for what starts as such, so that a unit mistaken for another is noticed."""
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.dim() == 1:
                parameter.add_(0.3 * torch.randn_like(parameter))
        for layer in module.modules():
            if isinstance(layer, (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)):
                assert layer.running_mean is not None
                assert layer.running_var is not None
                layer.running_mean.normal_(0, 0.3)
                layer.running_var.uniform_(0.5, 1.5)


def floats(*shapes: tuple[int, ...]) -> Callable[[int], tuple[Tensor, ...]]:
    """Arguments of standard normal values, (N, *shape) each."""

    def inputs(batch: int) -> tuple[Tensor, ...]:
        generator = torch.Generator().manual_seed(7)
        return tuple(torch.randn(batch, *shape, generator=generator) for shape in shapes)

    return inputs


def tokens(length: int, vocabulary: int) -> Callable[[int], tuple[Tensor, ...]]:
    """One argument of token numbers, (N, length)."""

    def inputs(batch: int) -> tuple[Tensor, ...]:
        generator = torch.Generator().manual_seed(7)
        return (torch.randint(vocabulary, (batch, length), generator=generator),)

    return inputs
