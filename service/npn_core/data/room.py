"""Where decoded samples lie: in memory where they fit, mapped from a file without a name where they do not."""

import math
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .archive import refuse

MEMORY_BYTES = 2 << 30
DISK_BYTES = 64 << 30

Allocate = Callable[[tuple[int, ...], torch.dtype], Tensor]
"""Makes a tensor of a shape and a dtype, its contents to be written."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Room:
    """How many bytes a dataset may take once decoded, all splits together.

    Up to `memory` bytes it is held in memory; more, up to `disk` bytes, lies in files in `folder` (None: the
    system's folder for temporary files) that the kernel reads in and drops as it sees fit.
    """

    memory: int = MEMORY_BYTES
    disk: int = DISK_BYTES
    folder: Path | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.memory <= self.disk:
            raise ValueError(f"memory is {self.memory} and disk {self.disk}; it must be 0 <= memory <= disk")

    def allocator(self, needed: int) -> Allocate:
        """What makes the tensors of a dataset of `needed` bytes; raises InvalidInput where that is too much."""
        if needed > self.disk:
            raise refuse(
                "DATASET_TOO_LARGE", f"the dataset takes {needed:,} bytes decoded; at most {self.disk:,} here"
            )
        return _in_memory if needed <= self.memory else self._mapped

    def _mapped(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """Shared with a file that has no name and is gone with the process; raises OSError on a full disk."""
        plain = torch.empty(0, dtype=dtype).numpy().dtype
        size = math.prod(shape) * plain.itemsize
        if size == 0:
            return _in_memory(shape, dtype)
        with tempfile.TemporaryFile(dir=self.folder) as file:
            # A hole in the file would end the process where the disk is full by the time it is written to.
            os.posix_fallocate(file.fileno(), 0, size)
            return torch.from_numpy(np.memmap(file, plain, "r+", shape=shape))


def _in_memory(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    return torch.empty(shape, dtype=dtype)
