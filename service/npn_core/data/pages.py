"""Where a Parquet file's columns lie and what their pages unpack to, found before pyarrow sees the file.

pyarrow allocates what a page header promises, whatever the file's footer says; it unpacks a dictionary's values
once per row; and on some damaged column metadata it ends the process when asked for them.  So the footer is read
and all is bounded here.  Formats: FileMetaData and PageHeader in parquet.thrift
(https://github.com/apache/parquet-format).
"""

from dataclasses import dataclass
from typing import BinaryIO

from npn_core.errors import InvalidInput

from .archive import refuse
from .thrift import BINARY, INTEGERS, LIST, STRUCT, Compact

MAX_FOOTER_BYTES = 8 << 20
MAX_ROWS = 1 << 24
MAX_CHUNKS = 1 << 18  # columns times row groups
MAX_PAGE_BYTES = 512 << 20  # unpacked
MAX_DICTIONARY_BYTES = 16 << 20  # unpacked; writers stop at 1 MiB by default
MAX_PAGES = 1 << 16  # of a column in a row group
_MAX_HEADER_BYTES = 1 << 16

_MAGIC = b"PAR1"
_DICTIONARY_PAGE = 2


@dataclass(frozen=True, kw_only=True, slots=True)
class Chunk:
    """A column of a row group: its bytes in the file."""

    start: int
    length: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Footer:
    """Rows of the file, and its row groups: the chunk of every column, in the schema's order."""

    rows: int
    groups: tuple[tuple[Chunk, ...], ...]


def damaged(file_name: str) -> InvalidInput:
    """The error for a file that cannot be read."""
    return refuse("DATASET_NOT_PARQUET", f"{file_name!r:.60} is no intact Parquet file")


def read_footer(file: BinaryIO, size: int, file_name: str) -> Footer:
    """The footer of a file of `size` bytes; raises InvalidInput."""
    file.seek(max(0, size - 8))
    tail = file.read(8)
    length = int.from_bytes(tail[:4], "little")
    if len(tail) < 8 or tail[4:] != _MAGIC or length + 12 > size:
        raise damaged(file_name)
    if length > MAX_FOOTER_BYTES:
        raise refuse(
            "DATASET_TOO_LARGE",
            f"{file_name!r:.60} has a footer of {length:,} bytes; at most {MAX_FOOTER_BYTES:,}: "
            "write larger row groups",
        )
    file.seek(size - 8 - length)
    try:
        footer = _parse_footer(Compact(file.read(length)))
    except (IndexError, ValueError):
        raise damaged(file_name) from None
    if footer.rows > MAX_ROWS:
        raise refuse("DATASET_TOO_LARGE", f"{file_name!r:.60} has {footer.rows:,} rows; at most {MAX_ROWS:,}")
    if footer.rows < 0 or any(c.start < 0 or c.length < 0 for group in footer.groups for c in group):
        raise damaged(file_name)
    return footer


def check_pages(file: BinaryIO, chunk: Chunk, file_name: str) -> None:
    """Raise InvalidInput where a page of the chunk is malformed or would unpack to too much."""
    position, end = chunk.start, chunk.start + chunk.length
    for _ in range(MAX_PAGES):
        if position == end:
            return
        file.seek(position)
        try:
            reader = Compact(file.read(min(_MAX_HEADER_BYTES, end - position)))
            kind, unpacked, packed = _parse_page(reader)
        except (IndexError, ValueError):
            raise damaged(file_name) from None
        limit = MAX_DICTIONARY_BYTES if kind == _DICTIONARY_PAGE else MAX_PAGE_BYTES
        if unpacked > limit:
            raise refuse(
                "DATASET_TOO_LARGE",
                f"{file_name!r:.60} has a page of {unpacked:,} bytes; at most {limit:,}: "
                "write smaller row groups, without a dictionary",
            )
        position += reader.position + packed
        if unpacked < 0 or packed < 0 or position > end:
            raise damaged(file_name)
    raise refuse("DATASET_TOO_LARGE", f"{file_name!r:.60} has more than {MAX_PAGES:,} pages in a row group")


def _parse_page(reader: Compact) -> tuple[int, int, int]:
    """A page's kind and its bytes, unpacked and packed; the reader is left at its end."""
    found: dict[int, int] = {}
    for number, kind in reader.fields():
        if number in (1, 2, 3) and kind in INTEGERS:
            found[number] = reader.integer()
        else:
            reader.skip(kind)
    if len(found) < 3:
        raise ValueError("no page header")
    return found[1], found[2], found[3]


def _parse_footer(reader: Compact) -> Footer:
    rows, groups = -1, []
    for number, kind in reader.fields():
        if number == 3 and kind in INTEGERS:
            rows = reader.integer()
        elif number == 4 and kind == LIST:
            count, item = reader.items()
            if item != STRUCT:
                raise ValueError("row groups are no structs")
            groups = [_parse_group(reader) for _ in range(count)]
        elif number in (8, 9):
            raise ValueError("the file is encrypted")
        else:
            reader.skip(kind)
    if sum(len(group) for group in groups) > MAX_CHUNKS:
        raise refuse("DATASET_TOO_LARGE", f"the file has more than {MAX_CHUNKS:,} columns in row groups")
    return Footer(rows=rows, groups=tuple(groups))


def _parse_group(reader: Compact) -> tuple[Chunk, ...]:
    chunks: tuple[Chunk, ...] = ()
    for number, kind in reader.fields():
        if number == 1 and kind == LIST:
            count, item = reader.items()
            if item != STRUCT:
                raise ValueError("columns are no structs")
            chunks = tuple(_parse_chunk(reader) for _ in range(count))
        else:
            reader.skip(kind)
    return chunks


def _parse_chunk(reader: Compact) -> Chunk:
    chunk = None
    for number, kind in reader.fields():
        if number == 3 and kind == STRUCT:
            chunk = _parse_column(reader)
        elif number == 1 and kind == BINARY and reader.binary():
            raise ValueError("the column lies in another file, which is never opened")
        elif number in (8, 9):
            raise ValueError("the column is encrypted")
        elif number != 1 or kind != BINARY:
            reader.skip(kind)
    if chunk is None:
        raise ValueError("a column without metadata")
    return chunk


def _parse_column(reader: Compact) -> Chunk:
    """ColumnMetaData: 7 total_compressed_size, 9 data_page_offset, 11 dictionary_page_offset."""
    found: dict[int, int] = {}
    for number, kind in reader.fields():
        if number in (7, 9, 11) and kind in INTEGERS:
            found[number] = reader.integer()
        else:
            reader.skip(kind)
    start = found.get(9, -1)
    if 0 < found.get(11, 0) < start:
        start = found[11]
    return Chunk(start=start, length=found.get(7, -1))
