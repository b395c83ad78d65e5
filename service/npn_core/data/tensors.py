"""The safetensors format, read by its own library behind a bound on its header."""

import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

import numpy as np
from safetensors import SafetensorError, safe_open

from .archive import Array, ArrayHeader, is_known, refuse

MAX_HEADER_BYTES = 1 << 20
_DTYPES = {
    "BOOL": "b1",
    "U8": "u1",
    "U16": "u2",
    "U32": "u4",
    "U64": "u8",
    "I8": "i1",
    "I16": "i2",
    "I32": "i4",
    "I64": "i8",
    "F16": "f2",
    "F32": "f4",
    "F64": "f8",
}


class SafetensorsArchive:
    """The arrays of a safetensors file; see `Archive`."""

    notes: tuple[str, ...] = ()
    layouts = True

    def __init__(self, path: Path) -> None:
        """Read and check the header; raises InvalidInput."""
        self._path = path
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
        if length > MAX_HEADER_BYTES:
            raise refuse(
                "DATASET_TOO_LARGE", f"the header has {length:,} bytes; at most {MAX_HEADER_BYTES:,}"
            )
        headers = {}
        try:
            with safe_open(path, framework="numpy") as tensors:
                names = set(tensors.keys())
                for name in filter(is_known, names):
                    part = tensors.get_slice(name)
                    headers[name] = _header(name, part.get_dtype(), tuple(part.get_shape()))
        except SafetensorError:
            raise refuse("DATASET_NOT_NPZ", "the file is no intact safetensors file") from None
        self.headers: Mapping[str, ArrayHeader] = MappingProxyType(headers)
        self.ignored = tuple(sorted(name for name in names if not is_known(name)))

    def blocks(self, name: str) -> Iterator[Array]:
        """The array in order, some rows at a time."""
        header = self.headers[name]
        rows, step = header.shape[0], header.rows_at_once
        with safe_open(self._path, framework="numpy") as tensors:
            part = tensors.get_slice(name)
            for start in range(0, rows, step):
                yield np.array(part[start : min(start + step, rows)])


def _header(name: str, dtype: str, shape: tuple[int, ...]) -> ArrayHeader:
    if dtype not in _DTYPES:
        raise refuse("DATASET_DTYPE", f"{name} has dtype {dtype}; it must be one of {', '.join(_DTYPES)}")
    return ArrayHeader(name=name, dtype=np.dtype(_DTYPES[dtype]), shape=shape)
