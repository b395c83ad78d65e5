"""The state of a program under the user's names: which tensors it has and which of them are one."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Weight:
    """A parameter, buffer or constant by its first name. `transposed` says that its two axes are swapped."""

    name: str
    tensor: Tensor
    transposed: bool = False


class Weights:
    """All parameters, buffers and constants; names of one tensor lead to the same `Weight`."""

    def __init__(self, program: ExportedProgram) -> None:
        specs = program.graph_signature.input_specs
        parameters = {spec.target for spec in specs if spec.kind is InputKind.PARAMETER}
        self.persistent = set(program.state_dict)
        self.constants = {
            str(spec.target) for spec in specs if spec.kind is InputKind.CONSTANT_TENSOR and spec.target
        }
        self._names: dict[str, Weight] = {}
        self._aliases: dict[str, list[str]] = {}
        first: dict[tuple[object, ...], Weight] = {}
        for name, tensor in _tensors(program):
            key = _identity(tensor)
            if key not in first:
                tensor = _parameter(tensor) if name in parameters else tensor
                first[key] = Weight(name=name, tensor=tensor)
            self._names[name] = first[key]
            self._aliases.setdefault(first[key].name, []).append(name)

    def __getitem__(self, name: str) -> Weight:
        return self._names[name]

    def __contains__(self, name: str) -> bool:
        return name in self._names

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def names(self, weight: Weight) -> list[str]:
        """All names of the tensor, in the order of the state dict."""
        return self._aliases[weight.name]

    def below(self, path: str) -> list[str]:
        """What the module at `path` holds itself: "weight", "bias", "running_mean" and so on."""
        names = (name.rpartition(".") for name in self._names)
        return [leaf for prefix, _, leaf in names if prefix == path]


def _tensors(program: ExportedProgram) -> Iterator[tuple[str, Tensor]]:
    yield from program.state_dict.items()
    used = {spec.target for spec in program.graph_signature.input_specs}
    for name, value in program.constants.items():
        if isinstance(value, Tensor) and name not in program.state_dict and name in used:
            yield name, value


def _parameter(tensor: Tensor) -> nn.Parameter:
    """In the order of its axes, which is what gradients and moments have: optimizers walk the memory."""
    if not isinstance(tensor, nn.Parameter):
        learns = tensor.is_floating_point() or tensor.is_complex()
        return nn.Parameter(tensor.contiguous(), requires_grad=learns)
    if tensor.is_contiguous():
        return tensor
    return nn.Parameter(tensor.detach().contiguous(), requires_grad=tensor.requires_grad)


def _identity(tensor: Tensor) -> tuple[object, ...]:
    """Equal for two names of one tensor: an archive keeps that as shared storage, not as one object."""
    if tensor.layout is not torch.strided or tensor.numel() == 0:
        return (id(tensor),)
    storage = tensor.untyped_storage()._cdata
    return (storage, tensor.storage_offset(), tuple(tensor.shape), tensor.stride(), tensor.dtype)
