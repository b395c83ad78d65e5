"""Weights and constants: tensors made from raw bytes in the archive, of sizes that the bytes have.

Nothing is copied: tensors lie in the file's private mapping.  Entries that share a storage share it here, and
parameters that are one in the archive (tied weights) are one object.
"""

import math
import mmap
from collections.abc import Mapping
from typing import Any

import torch
from torch._export.serde import schema

from .archive import ModelArchive
from .names import check_fqn
from .refusal import HOW_TO_EXPORT, refuse, shown
from .typed import read_document

MAX_RANK = 16
# An expanded tensor has more elements than its storage; a large one is no weight.
MAX_EXPANDED = 1 << 20
_ALIGNMENT = 64  # torch.export.save aligns storages

_DTYPES = {
    schema.ScalarType.BYTE: torch.uint8,
    schema.ScalarType.CHAR: torch.int8,
    schema.ScalarType.SHORT: torch.int16,
    schema.ScalarType.INT: torch.int32,
    schema.ScalarType.LONG: torch.int64,
    schema.ScalarType.HALF: torch.float16,
    schema.ScalarType.FLOAT: torch.float32,
    schema.ScalarType.DOUBLE: torch.float64,
    schema.ScalarType.BOOL: torch.bool,
    schema.ScalarType.BFLOAT16: torch.bfloat16,
    schema.ScalarType.COMPLEXFLOAT: torch.complex64,
    schema.ScalarType.COMPLEXDOUBLE: torch.complex128,
}
Tensors = dict[str, torch.Tensor]


def read_weights(archive: ModelArchive) -> Tensors:
    """Parameters and persistent buffers by their name in the user's module."""
    config = read_document(
        archive, f"data/weights/{archive.model}_weights_config.json", schema.PayloadConfig
    ).config
    return _read(archive, "data/weights/", "weight_", config, "weight")


def read_constants(archive: ModelArchive) -> Tensors:
    """Tensor constants and buffers that are not persistent, by name."""
    config = read_document(
        archive, f"data/constants/{archive.model}_constants_config.json", schema.PayloadConfig
    ).config
    return _read(archive, "data/constants/", "tensor_", config, "constant")


def _read(
    archive: ModelArchive, folder: str, prefix: str, config: Mapping[str, schema.PayloadMeta], what: str
) -> Tensors:
    storages: dict[tuple[str, torch.dtype], torch.Tensor] = {}
    made: dict[tuple[Any, ...], torch.Tensor] = {}
    result: Tensors = {}
    for name, payload in config.items():
        check_fqn(name)
        if payload.use_pickle or payload.tensor_meta is None:
            raise refuse(
                "MODEL_PICKLED",
                f"the {what} {shown(name)} is pickled, which is never read; "
                "tensors must be plain (no subclasses, quantised or script objects)",
            )
        if not payload.path_name.startswith(prefix) or "/" in payload.path_name:
            raise refuse("MODEL_UNSAFE", f"the {what} {shown(name)} lies in {shown(payload.path_name)}")
        dtype = _dtype(payload.tensor_meta, f"the {what} {shown(name)}")
        key = (payload.path_name, dtype)
        if key not in storages:
            storages[key] = _storage(archive, folder + payload.path_name, dtype)
        layout = _layout(payload.tensor_meta, storages[key].numel(), f"the {what} {shown(name)}")
        trained = payload.tensor_meta.requires_grad and payload.is_param
        identity = (*key, *layout, payload.is_param, trained)
        if identity not in made:
            made[identity] = _tensor(storages[key], layout, payload.is_param, trained, name)
        result[name] = made[identity]
    return result


def _dtype(meta: schema.TensorMeta, what: str) -> torch.dtype:
    if meta.layout != schema.Layout.Strided:
        raise refuse("MODEL_NOT_PT2", f"{what} is sparse; only dense tensors are read")
    if meta.dtype not in _DTYPES:
        raise refuse(
            "MODEL_NOT_PT2", f"{what} is of the type {meta.dtype.name}, which is not read; use float32"
        )
    return _DTYPES[meta.dtype]


def _storage(archive: ModelArchive, name: str, dtype: torch.dtype) -> torch.Tensor:
    """All elements of the entry, as a tensor of one axis in the mapping."""
    view = archive.bytes_of(name)
    if not len(view):
        return torch.empty(0, dtype=dtype)
    if len(view) % dtype.itemsize:
        raise refuse(
            "MODEL_NOT_PT2", f"{shown(name)} has {len(view):,} bytes, not a multiple of {dtype.itemsize}"
        )
    data: memoryview | bytearray | mmap.mmap = view
    if archive.start_of(name) % _ALIGNMENT:
        data = bytearray(view)
    if dtype == torch.bool and bool((torch.frombuffer(data, dtype=torch.uint8) > 1).any()):
        raise refuse("MODEL_NOT_PT2", f"{shown(name)} is of bools, but holds other bytes than 0 and 1")
    return torch.frombuffer(data, dtype=dtype)


def _layout(
    meta: schema.TensorMeta, elements: int, what: str
) -> tuple[tuple[int, ...], tuple[int, ...], int]:
    """Sizes, strides and offset in elements, which all lie inside a storage of `elements`."""
    numbers = [*meta.sizes, *meta.strides, meta.storage_offset]
    if any(number.type != "as_int" for number in numbers):
        raise refuse("MODEL_NOT_PT2", f"{what} has a size that is no number; {HOW_TO_EXPORT}")
    sizes = tuple(size.as_int for size in meta.sizes)
    strides = tuple(stride.as_int for stride in meta.strides)
    offset = meta.storage_offset.as_int
    if len(sizes) != len(strides) or len(sizes) > MAX_RANK:
        raise refuse("MODEL_NOT_PT2", f"{what} has {len(sizes)} sizes and {len(strides)} strides")
    if min((*sizes, *strides, offset)) < 0:
        raise refuse("MODEL_NOT_PT2", f"{what} has a negative size, stride or offset")
    count = math.prod(sizes)
    if count == 0:
        return sizes, strides, 0
    if elements == 0:
        raise refuse(
            "MODEL_NOT_PT2", f"{what} has no values in the archive; export real weights, not fake ones"
        )
    last = offset + sum((size - 1) * stride for size, stride in zip(sizes, strides, strict=True))
    if last >= elements or count > max(elements, MAX_EXPANDED):
        raise refuse(
            "MODEL_NOT_PT2",
            f"{what} has the shape {shown(sizes)}, strides {shown(strides)} and offset {offset:,}, "
            f"but {elements:,} elements in the archive",
        )
    return sizes, strides, offset


def _tensor(
    storage: torch.Tensor,
    layout: tuple[tuple[int, ...], tuple[int, ...], int],
    is_parameter: bool,
    trained: bool,
    name: str,
) -> torch.Tensor:
    sizes, strides, offset = layout
    tensor = torch.as_strided(storage, sizes, strides, offset)
    if trained and not (tensor.is_floating_point() or tensor.is_complex()):
        raise refuse(
            "MODEL_NOT_PT2", f"the parameter {shown(name)} is of {tensor.dtype}, which cannot be trained"
        )
    return torch.nn.Parameter(tensor, requires_grad=trained) if is_parameter else tensor
