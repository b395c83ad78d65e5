"""How far apart the outputs of two networks are that should compute the same."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils import _pytree as pytree


@dataclass(frozen=True, kw_only=True, slots=True)
class Difference:
    """The largest absolute difference, and the largest relative to the largest entry of its output."""

    largest: float
    relative: float

    @classmethod
    def of(cls, expected: object, found: object) -> "Difference":
        """Between two outputs of one structure: a tensor, or containers of tensors.

        Equal infinities differ by nothing; NaN on one side alone gives NaN.  Raises ValueError where the
        number of tensors or their shapes differ.
        """
        largest, relative = [0.0], [0.0]
        for one, other in zip(output_tensors(expected), output_tensors(found), strict=True):
            if one.shape != other.shape:
                raise ValueError(f"an output is {tuple(other.shape)}, not {tuple(one.shape)}")
            if one.numel() == 0:
                continue
            a, b = one.detach().double(), other.detach().double()
            same = (a == b) | (a.isnan() & b.isnan())
            difference = torch.where(same, 0.0, (a - b).abs())
            finite = a[a.isfinite()].abs()
            scale = float(finite.max()) if finite.numel() else 0.0
            largest.append(float(difference.max()))
            relative.append(largest[-1] / scale if scale else largest[-1])
        # torch's max, unlike Python's, keeps a NaN wherever it stands.
        worst = torch.tensor([largest, relative], dtype=torch.float64).amax(1)
        return cls(largest=float(worst[0]), relative=float(worst[1]))


def output_tensors(outputs: object) -> list[Tensor]:
    """The tensors of an output in order, whatever holds them."""
    return [leaf for leaf in pytree.tree_leaves(outputs) if isinstance(leaf, Tensor)]


def output_names(outputs: object) -> tuple[str, ...]:
    """A name for each of `output_tensors`: the keys of a dict, "output_0" and so on in a list or tuple.

    A single tensor is "output"; parts of nested containers are joined by a dot ("output_1.logits").
    """
    leaves, _ = pytree.tree_flatten_with_path(outputs)
    return tuple(_name(path) for path, leaf in leaves if isinstance(leaf, Tensor))


def _name(path: tuple[object, ...]) -> str:
    return ".".join(_part(key) for key in path) or "output"


def _part(key: object) -> str:
    if isinstance(key, pytree.MappingKey):
        return str(key.key)
    return f"output_{key.idx}" if isinstance(key, pytree.SequenceKey) else str(key).lstrip(".")
