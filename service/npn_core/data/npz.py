"""NumPy's .npz: a zip of .npy arrays, read without trusting either.

Formats: numpy.lib.format, and PKWARE's APPNOTE.TXT, sections 4.3.14 to 4.3.16.
"""

import re
import struct
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import IO, Any

import numpy as np

from npn_core.zip_directory import DAMAGED, DirectoryRefused, Fault, Limits, read_directory

from .archive import MAX_RANK, Array, ArrayHeader, is_known, refuse

# Images compress less than tenfold; 64 MiB are harmless.
LIMITS = Limits(entries=1000, directory_bytes=1 << 20, ratio=300, free_bytes=64 << 20, called="arrays")
MAX_HEADER_BYTES = 4096

_MAGIC = re.compile(rb"\x93NUMPY([\x01\x02])\x00", re.DOTALL)
_FIELD = re.compile(r"\s*'(\w+)'\s*:\s*(?:'([^']*)'|(True|False)|\(([\d\s,]*)\))\s*,?", re.ASCII)
_PLAIN_DTYPE = re.compile(r"[<>=|]?(?:b1|[iu][1248]|f[248])")
_REASONS = {
    Fault.TOO_LARGE: "DATASET_TOO_LARGE",
    Fault.REPEATED_NAME: "DATASET_NAMES",
    Fault.ENCRYPTED: "DATASET_NOT_NPZ",
}
_ADVICE = {Fault.ENCRYPTED: "; write it with numpy.savez"}


class NpzArchive:
    """The arrays of an .npz file; see `Archive`."""

    notes: tuple[str, ...] = ()
    layouts = True

    def __init__(self, path: Path) -> None:
        """Read and check the directory and the headers; raises InvalidInput."""
        self._path = path
        with path.open("rb") as file:
            try:
                names = _read_names(file)
                with zipfile.ZipFile(file) as archive:
                    self._layouts = {name: _read_header(archive, name) for name in names if is_known(name)}
            except DAMAGED:
                message = "the file is no intact npz; write it with numpy.savez"
                raise refuse("DATASET_NOT_NPZ", message) from None
        self.ignored = tuple(sorted(name for name in names if not is_known(name)))

    @property
    def headers(self) -> Mapping[str, ArrayHeader]:
        """Headers of the dataset's arrays."""
        return MappingProxyType({name: header for name, (header, _, _) in self._layouts.items()})

    def blocks(self, name: str) -> Iterator[Array]:
        """The array in order, some rows at a time, all at once in Fortran's order; raises InvalidInput on damage."""
        header, offset, fortran = self._layouts[name]
        native = header.dtype.newbyteorder("=")
        try:
            with zipfile.ZipFile(self._path) as archive, archive.open(f"{name}.npy") as file:
                file.read(offset)
                if fortran:
                    whole = _read_array(file, header.shape[::-1], header.dtype)
                    yield np.ascontiguousarray(whole.T, dtype=native)
                    return
                for start in range(0, header.shape[0], header.rows_at_once):
                    rows = min(header.rows_at_once, header.shape[0] - start)
                    block = _read_array(file, (rows, *header.shape[1:]), header.dtype)
                    yield np.ascontiguousarray(block, dtype=native)
        except DAMAGED:
            raise refuse("DATASET_NOT_NPZ", f"{name} is damaged; write the file again") from None


def _read_array(file: IO[bytes], shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """The next bytes as an array; raises EOFError where they end before."""
    array = np.empty(shape, dtype)
    target = memoryview(array.reshape(-1).view(np.uint8).data)
    while target:
        count = file.readinto(target)  # type: ignore[attr-defined]  # ZipExtFile is a BufferedIOBase
        if not count:
            raise EOFError
        target = target[count:]
    return array


def _read_names(file: IO[bytes]) -> set[str]:
    """The names of the arrays; what does not end in .npy is none."""
    try:
        entries = read_directory(file, LIMITS)
    except DirectoryRefused as refused:
        advice = _ADVICE.get(refused.fault, "")
        raise refuse(_REASONS[refused.fault], f"the npz {refused.message}{advice}") from None
    files = {entry.filename for entry in entries}
    return {file.removesuffix(".npy") for file in files if file.endswith(".npy")}


def _read_header(archive: zipfile.ZipFile, name: str) -> tuple[ArrayHeader, int, bool]:
    """Header, offset of the data in the entry, and whether the data are in Fortran's order."""
    entry = archive.getinfo(f"{name}.npy")
    with archive.open(entry) as file:
        magic = _MAGIC.match(file.read(8))
        if magic is None:
            raise refuse("DATASET_NOT_NPZ", f"{name} is no npy array; write the file with numpy.savez")
        length_format = "<H" if magic[1] == b"\x01" else "<L"
        length_bytes = struct.calcsize(length_format)
        (length,) = struct.unpack(length_format, file.read(length_bytes))
        if length > MAX_HEADER_BYTES:
            raise refuse("DATASET_DTYPE", f"{name} has a header of {length:,} bytes; a plain array has less")
        text = file.read(length).decode("latin-1")
    header, fortran = _parse_header(text, name)
    offset = 8 + length_bytes + length
    if entry.file_size != offset + header.nbytes:
        raise refuse(
            "DATASET_NOT_NPZ",
            f"{name} is damaged: its header says {header.nbytes:,} bytes, the file holds "
            f"{entry.file_size - offset:,}",
        )
    return header, offset, fortran


def _parse_header(text: str, name: str) -> tuple[ArrayHeader, bool]:
    """Parse the header's dict literal by its grammar, so that nothing is evaluated."""
    body = text.strip()
    found: dict[str, re.Match[str]] = {}
    position = 1
    while match := _FIELD.match(body, position):
        found[match[1]] = match
        position = match.end()
    complete = body[:1] == "{" and body[position:].strip() == "}"
    if not complete or set(found) != {"descr", "fortran_order", "shape"}:
        raise refuse("DATASET_DTYPE", f"{name} is no plain array of numbers; structured arrays are not read")
    descr, fortran, shape = found["descr"][2], found["fortran_order"][3], found["shape"][4]
    if descr is None or fortran is None or shape is None:
        raise refuse("DATASET_NOT_NPZ", f"{name} has a malformed header; write the file with numpy.savez")
    if descr.lstrip("<>=|").startswith("O"):
        raise refuse(
            "DATASET_PICKLED", f"{name} holds pickled Python objects, which are never read; store numbers"
        )
    if not _PLAIN_DTYPE.fullmatch(descr):
        raise refuse("DATASET_DTYPE", f"{name} has dtype {descr!r:.20}; it must be a plain number type")
    sizes = [part.strip() for part in shape.split(",") if part.strip()]
    if len(sizes) > MAX_RANK or not all(re.fullmatch("[0-9]{1,12}", size, re.ASCII) for size in sizes):
        raise refuse("DATASET_SHAPES", f"{name} must have at most {MAX_RANK} axes of a plain size")
    dims = tuple(int(size) for size in sizes)
    return ArrayHeader(name=name, dtype=np.dtype(descr), shape=dims), fortran == "True"
