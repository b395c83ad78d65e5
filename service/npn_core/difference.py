"""How far apart the outputs of two networks are that should compute the same."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch

from .outputs import output_tensors


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

    @classmethod
    def worst(cls, differences: Iterable["Difference"]) -> "Difference":
        """The largest of each, of several."""
        both = torch.tensor([(one.largest, one.relative) for one in differences], dtype=torch.float64).amax(0)
        return cls(largest=float(both[0]), relative=float(both[1]))
