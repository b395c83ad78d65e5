"""A zip's directory, bounded and checked before anything in the zip is read.

Format: PKWARE's APPNOTE.TXT, sections 4.3.12 to 4.3.16.
"""

import os
import struct
import zipfile
import zlib
from dataclasses import dataclass
from enum import Enum
from typing import IO

# What zipfile raises on damaged input.
DAMAGED = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    NotImplementedError,
    OSError,
    ValueError,
)


class Fault(Enum):
    """What can be wrong with a directory."""

    TOO_LARGE = "too large"
    REPEATED_NAME = "repeated name"
    ENCRYPTED = "encrypted"


class DirectoryRefused(Exception):
    """The directory breaks a limit; the message continues "the npz ..."."""

    def __init__(self, fault: Fault, message: str) -> None:
        super().__init__(message)
        self.fault = fault
        self.message = message


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """Most entries, bytes of the directory, and bytes of all entries together.

    The entries may expand to `ratio` times the file, small files to `free_bytes`.  Messages call them `called`.
    """

    entries: int
    directory_bytes: int
    ratio: int
    free_bytes: int
    called: str = "entries"


def read_directory(file: IO[bytes], limits: Limits) -> list[zipfile.ZipInfo]:
    """The entries of the zip.

    Raises DirectoryRefused where a limit is broken, and one of DAMAGED where the file is no intact zip.
    """
    size = _check_end(file, limits)
    with zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
    if len(entries) > limits.entries:
        raise DirectoryRefused(Fault.TOO_LARGE, f"has {len(entries):,} entries; at most {limits.entries:,}")
    if len({entry.filename for entry in entries}) != len(entries):
        raise DirectoryRefused(Fault.REPEATED_NAME, f"holds two {limits.called} of the same name")
    if any(entry.flag_bits & 0x1 for entry in entries):
        raise DirectoryRefused(Fault.ENCRYPTED, "is encrypted")
    expanded = sum(entry.file_size for entry in entries)
    if expanded > max(limits.free_bytes, limits.ratio * size):
        raise DirectoryRefused(
            Fault.TOO_LARGE,
            f"expands from {size:,} to {expanded:,} bytes; at most {limits.ratio} times its size",
        )
    return entries


def _check_end(file: IO[bytes], limits: Limits) -> int:
    """Bound the directory before `zipfile` reads it whole; the size of the file."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - 98))
    tail = file.read()
    end, locator, end64 = tail[-22:], tail[-42:-22], tail[-98:-42]
    if len(end) < 22 or end[:4] != b"PK\x05\x06" or end[-2:] != b"\x00\x00":
        raise zipfile.BadZipFile("no end of directory, or a comment behind it")
    (length,) = struct.unpack_from("<L", end, 12)
    if locator[:4] == b"PK\x06\x07":  # zip64: the end record proper lies before its locator
        (position,) = struct.unpack_from("<Q", locator, 8)
        if end64[:4] != b"PK\x06\x06" or position != size - 98:
            raise zipfile.BadZipFile("the zip64 end of directory is not where it must be")
        (length,) = struct.unpack_from("<Q", end64, 40)
    if length > limits.directory_bytes:
        raise DirectoryRefused(Fault.TOO_LARGE, f"has too many entries; at most {limits.entries:,}")
    return size
