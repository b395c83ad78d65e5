"""Samples as they are stored, and which of them a split has."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

CHUNK = 1000
CHUNK_BYTES = 16 << 20  # as float32; large images go fewer at a time


@dataclass(frozen=True, kw_only=True, slots=True)
class Split:
    """Samples as stored: each input (N, ...), uint8 kept; y int64 (N,), or as `target_dtype` says.

    `rows` (int64) are those of them that are the split's, in its order; None: all.  The tensors may be mapped
    from a file larger than memory, so samples are taken a batch at a time.
    """

    x: tuple[Tensor, ...]
    y: Tensor | None
    rows: Tensor | None = None

    def __len__(self) -> int:
        """Number of samples."""
        return len(self.x[0]) if self.rows is None else len(self.rows)

    @property
    def device(self) -> torch.device:
        """Where the samples are stored."""
        return self.x[0].device

    def to(self, device: torch.device) -> "Split":
        """The same, stored on `device`."""
        return Split(
            x=tuple(one.to(device) for one in self.x),
            y=None if self.y is None else self.y.to(device),
            rows=None if self.rows is None else self.rows.to(device),
        )

    def where(self, index: Tensor | slice) -> Tensor | slice:
        """Where in the stored tensors the samples at these positions of the split are."""
        return index if self.rows is None else self.rows[index]

    def take(self, index: Tensor | slice) -> tuple[tuple[Tensor, ...], Tensor | None]:
        """Inputs and targets of the samples at these positions; views of what is stored where that can be."""
        where = self.where(index)
        return tuple(one[where] for one in self.x), None if self.y is None else self.y[where]

    def chunks(self, chunk: int = CHUNK) -> Iterator[tuple[Tensor, tuple[Tensor, ...], Tensor | None]]:
        """Positions, inputs and targets of all samples in order, `chunk` or fewer at a time."""
        sample = sum(4 * one[0].numel() for one in self.x)
        step = max(1, min(chunk, CHUNK_BYTES // sample))
        for start in range(0, len(self), step):
            end = min(start + step, len(self))
            yield torch.arange(start, end, device=self.device), *self.take(slice(start, end))
