"""The zip of a `torch.export` archive: which entries it may hold, and where their bytes lie.

Format: torch/export/pt2_archive/_package.py of torch 2.13.  Every entry is stored uncompressed, so nothing can
expand, and bytes are taken from a private mapping of the file, so weights cost no second copy.
"""

import mmap
import re
import struct
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

from npn_core.zip_directory import DAMAGED, DirectoryRefused, Fault, Limits, read_directory

from .refusal import HOW_TO_EXPORT, refuse, shown

MAX_FILE_BYTES = 4 << 30
MAX_JSON_BYTES = 32 << 20
# torch.export.save compresses nothing; the ratio only stops what claims to be large.
LIMITS = Limits(entries=20_000, directory_bytes=4 << 20, ratio=2, free_bytes=1 << 20)

_REASONS = {
    Fault.TOO_LARGE: "MODEL_TOO_LARGE",
    Fault.REPEATED_NAME: "MODEL_UNSAFE",
    Fault.ENCRYPTED: "MODEL_NOT_PT2",
}
_LOCAL_HEADER = struct.Struct("<4s5H3L2H")
_MODEL = re.compile(r"models/([A-Za-z0-9_.-]{1,100})\.json")
_READ = re.compile(
    r"archive_format|archive_version|byteorder|models/[^/]+\.json"
    r"|data/weights/(weight_[0-9]{1,6}|[^/]+_weights_config\.json)"
    r"|data/constants/(tensor_[0-9]{1,6}|[^/]+_constants_config\.json)"
)
# Never read: torch's own records about the zip, example inputs (always pickled), files that users add.
_DROPPED = re.compile(
    r"\.data/[a-z_]+|version|\.format_version|\.storage_alignment|data/sample_inputs/[^/]+\.pt|extra/.+"
)
# Known and refused, with the reason.
_REFUSED = (
    (
        re.compile(r"data/(weights|constants)/[^/]+\.pt"),
        "MODEL_VERSION",
        "holds pickled weights as older versions of torch wrote them; save it again with torch 2.10 or newer",
    ),
    (
        re.compile(r"data/constants/(custom|opaque)_obj_.*"),
        "MODEL_PICKLED",
        "holds a pickled object, which is never read; keep tensors alone as constants of the model",
    ),
    (
        re.compile(r"data/aotinductor/.*"),
        "MODEL_UNSAFE",
        f"holds compiled code, which is never run; {HOW_TO_EXPORT}, without AOTInductor",
    ),
)
_OLD = re.compile(r"serialized_(exported_program\.json|state_dict\.(pt|json)|constants\.(pt|json))|version")


class ModelArchive:
    """An archive whose directory, names and layout have been checked.

    Bytes are checked against their CRC when they are taken.  Every refusal is an InvalidInput on "model.uri".
    """

    def __init__(self, path: Path) -> None:
        """Check the directory; raises InvalidInput."""
        try:
            with path.open("rb") as file:
                self._open(file)
        except DirectoryRefused as refused:
            raise refuse(_REASONS[refused.fault], f"the archive {refused.message}; {HOW_TO_EXPORT}") from None
        except DAMAGED:
            raise _not_intact() from None

    def _open(self, file: BinaryIO) -> None:
        size = file.seek(0, 2)
        if size > MAX_FILE_BYTES:
            raise refuse("MODEL_TOO_LARGE", f"the archive has {size:,} bytes; at most {MAX_FILE_BYTES:,}")
        entries = read_directory(file, LIMITS)
        # Private and writable: training may change weights in place, the file stays as it is.
        self._map = mmap.mmap(file.fileno(), 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE)
        self._places = _place(self._map, entries)
        self.model = self._check_names()

    def __contains__(self, name: str) -> bool:
        return name in self._places

    def bytes_of(self, name: str, most: int | None = None) -> memoryview:
        """The entry's bytes in the mapping, not copied; raises InvalidInput where they are damaged."""
        if name not in self._places:
            raise refuse("MODEL_NOT_PT2", f"the archive has no {shown(name)}; {HOW_TO_EXPORT}")
        start, size, crc = self._places[name]
        if most is not None and size > most:
            raise refuse("MODEL_TOO_LARGE", f"{shown(name)} has {size:,} bytes; at most {most:,}")
        view = memoryview(self._map)[start : start + size]
        if zlib.crc32(view) != crc:
            raise refuse("MODEL_NOT_PT2", f"{shown(name)} is damaged; send the file again")
        return view

    def start_of(self, name: str) -> int:
        """Where the entry's bytes begin in the file; the mapping begins at a page."""
        return self._places[name][0]

    def _check_names(self) -> str:
        """The name of the only model, after every name was found to be one that an archive has."""
        for name in self._places:
            for pattern, reason, message in _REFUSED:
                if pattern.fullmatch(name):
                    raise refuse(reason, f"the archive {message}")
            if not _READ.fullmatch(name) and not _DROPPED.fullmatch(name):
                raise refuse("MODEL_UNSAFE", f"the archive holds {shown(name)}, which no exported model has")
        if "archive_format" not in self or bytes(self.bytes_of("archive_format", 16)) != b"pt2":
            raise refuse(
                "MODEL_NOT_PT2", f"the file is a zip, but no archive of torch.export; {HOW_TO_EXPORT}"
            )
        if bytes(self.bytes_of("archive_version", 16)) != b"0":
            raise refuse("MODEL_VERSION", "the archive's version is unknown; only version 0 is read")
        if "byteorder" in self and bytes(self.bytes_of("byteorder", 16)) != b"little":
            raise refuse("MODEL_VERSION", "the weights are big-endian; save on a little-endian machine")
        models = [match[1] for name in self._places if (match := _MODEL.fullmatch(name))]
        if len(models) != 1:
            raise refuse("MODEL_NOT_PT2", f"the archive holds {len(models)} models; save exactly one")
        return models[0]


def _not_intact() -> Exception:
    return refuse("MODEL_NOT_PT2", f"the file is no intact archive; {HOW_TO_EXPORT}")


def _place(data: mmap.mmap, entries: Iterable[zipfile.ZipInfo]) -> dict[str, tuple[int, int, int]]:
    """Start, size and CRC of each entry by its name below the root folder; entries must not overlap."""
    places: dict[str, tuple[int, int, int]] = {}
    roots, end = set(), 0
    for entry in sorted(entries, key=lambda entry: entry.header_offset):
        root, _, name = entry.filename.partition("/")
        _check_entry(entry, root, name)
        roots.add(root)
        if entry.header_offset < end:
            raise refuse("MODEL_UNSAFE", f"the archive's entries overlap at {shown(name)}")
        start = _start(data, entry)
        end = start + entry.file_size
        if end > len(data):
            raise zipfile.BadZipFile("an entry lies behind the end")
        places[name] = (start, entry.file_size, entry.CRC)
    if len(roots) != 1:
        raise refuse(
            "MODEL_NOT_PT2", f"the archive must have one top folder, not {len(roots)}; {HOW_TO_EXPORT}"
        )
    return places


def _check_entry(entry: zipfile.ZipInfo, root: str, name: str) -> None:
    if not name and _OLD.fullmatch(root):
        raise refuse(
            "MODEL_VERSION", "the archive is of torch 2.6 or older; save it again with torch 2.10 or newer"
        )
    if entry.orig_filename != entry.filename or not root.isprintable() or root in {"", ".", ".."}:
        raise refuse("MODEL_UNSAFE", f"the archive holds an entry of the name {shown(entry.orig_filename)}")
    if {".", "..", ""} & set(name.split("/")) or "\\" in name or not name.isprintable():
        raise refuse("MODEL_UNSAFE", f"the archive holds an entry of the name {shown(entry.filename)}")
    kind = entry.external_attr >> 28  # of Unix's mode: 0 none given, 8 a plain file
    if kind not in {0, 8}:
        raise refuse("MODEL_UNSAFE", f"{shown(name)} is a link or no plain file")
    if entry.compress_type != zipfile.ZIP_STORED or entry.compress_size != entry.file_size:
        raise refuse(
            "MODEL_NOT_PT2", f"{shown(name)} is compressed; torch.export.save stores entries as they are"
        )


def _start(data: mmap.mmap, entry: zipfile.ZipInfo) -> int:
    """Where the entry's bytes begin, after its local header was found to be of the same name."""
    header = data[entry.header_offset : entry.header_offset + _LOCAL_HEADER.size]
    fields = _LOCAL_HEADER.unpack(header)
    signature, flags, method = fields[0], int(fields[2]), int(fields[3])
    name_length, extra_length = int(fields[-2]), int(fields[-1])
    after = entry.header_offset + _LOCAL_HEADER.size
    encoding = "utf-8" if flags & 0x800 else "cp437"
    if signature != b"PK\x03\x04" or data[after : after + name_length].decode(encoding) != entry.filename:
        raise zipfile.BadZipFile("directory and local header disagree")
    if method != entry.compress_type or flags & 0x1:
        raise zipfile.BadZipFile("directory and local header disagree")
    return after + name_length + extra_length
