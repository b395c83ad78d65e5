"""Named arrays in a file that a client uploaded: what every format of them has in common.

A reader looks at headers first, in bounded time and memory, and hands out plain numeric arrays alone; nothing
is unpickled or evaluated.
"""

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from npn_core.errors import InvalidInput

Array = NDArray[Any]

MAX_ELEMENTS = 1 << 38  # of one array; what may be read of it is for `Room` to say
MAX_RANK = 5  # N,C,D,H,W
BLOCK_BYTES = 4 << 20  # of an array, read at a time

# x_train, y_val, x_test.tokens: what an array holds, its split, and the input that it is for.
NAME = re.compile(r"(?:(x)_(train|val|test)(?:\.([A-Za-z_]\w{0,63}))?|(y)_(train|val|test))", re.ASCII)


def is_known(name: str) -> bool:
    """Whether an array of this name is part of a dataset; others are ignored."""
    return NAME.fullmatch(name) is not None


def refuse(reason: str, message: str) -> InvalidInput:
    """The error for a dataset that cannot be used."""
    return InvalidInput("dataset.uri", message, reason=reason)


@dataclass(frozen=True, kw_only=True, slots=True)
class ArrayHeader:
    """Name, dtype and shape of an array that has not been read."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]

    def __post_init__(self) -> None:
        if len(self.shape) > MAX_RANK:
            raise refuse("DATASET_SHAPES", f"{self.name} has {len(self.shape)} axes; at most {MAX_RANK}")
        if math.prod(self.shape) > MAX_ELEMENTS:
            raise refuse(
                "DATASET_TOO_LARGE", f"{self.name} has shape {self.shape}; at most {MAX_ELEMENTS:,} elements"
            )

    @property
    def nbytes(self) -> int:
        """Size of the array's data."""
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def rows_at_once(self) -> int:
        """How many rows make a block."""
        row_bytes = math.prod(self.shape[1:]) * self.dtype.itemsize
        return max(1, BLOCK_BYTES // max(1, row_bytes))


class Archive(Protocol):
    """The dataset's arrays in one file or folder.  Every refusal is an InvalidInput on "dataset.uri"."""

    @property
    def headers(self) -> Mapping[str, ArrayHeader]:
        """Headers of the arrays whose names are known that the file has."""

    @property
    def ignored(self) -> tuple[str, ...]:
        """Names of the other arrays, sorted."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user should know of how the file was read."""

    @property
    def layouts(self) -> bool:
        """Whether images in it may have their channels last."""

    def blocks(self, name: str) -> Iterator[Array]:
        """The array in order, some rows at a time, each C-contiguous, writable and in this machine's byte order."""
