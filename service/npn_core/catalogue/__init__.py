"""The built-in architectures.

Importing this package imports no torch: the server lists the catalogue, workers build from it.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from npn_core.errors import InvalidInput

from .info import ARCHITECTURES, ArchitectureInfo
from .params import ArchitectureParam

if TYPE_CHECKING:
    from torch import nn

__all__ = ["ArchitectureInfo", "ArchitectureParam", "architectures", "build", "resolve_params"]


def architectures() -> tuple[ArchitectureInfo, ...]:
    """Every built-in architecture, by name."""
    return tuple(ARCHITECTURES[name] for name in sorted(ARCHITECTURES))


def resolve_params(name: str, params: Mapping[str, str]) -> dict[str, str]:
    """`params` checked, with every default filled in.

    Raises InvalidInput on an unknown architecture or parameter, and on a value out of its range.
    """
    if name not in ARCHITECTURES:
        known = ", ".join(sorted(ARCHITECTURES))
        raise InvalidInput(
            "model.architecture.name",
            f"unknown architecture {name!r:.80}; known: {known}",
            reason="ARCHITECTURE_UNKNOWN",
        )
    accepted = {param.name: param for param in ARCHITECTURES[name].params}
    for key in params:
        if key not in accepted:
            raise InvalidInput(
                f"model.architecture.params[{key:.80}]",
                f"{name} has no parameter {key!r:.80}; it has: {', '.join(accepted)}",
                reason="ARCHITECTURE_PARAM_UNKNOWN",
            )
    resolved = {key: params.get(key, param.default_value) for key, param in accepted.items()}
    for key, value in resolved.items():
        accepted[key].read(value)
    return resolved


def build(
    name: str, params: Mapping[str, str], *, input_shape: tuple[int, ...], classes: int, seed: int
) -> "nn.Module":
    """The network for samples of `input_shape` (C,H,W or F) with `classes` outputs, initialised from `seed`.

    Every layer is a named child of its module ("conv1", "layer1.0.bn2", "fc").  Raises InvalidInput as
    `resolve_params` does, and where the samples do not fit the architecture.
    """
    resolved = resolve_params(name, params)
    values = {param.name: param.read(resolved[param.name]) for param in ARCHITECTURES[name].params}
    from .networks import build_network  # imports torch

    return build_network(name, values, input_shape=input_shape, classes=classes, seed=seed)
