"""Images in Parquet, as Hugging Face's datasets store them: a struct {bytes, path} and an integer label.

One file, or a folder of shards whose names begin with their split.  The path in the struct is never opened.
Footers, pages, rows and images are bounded before pyarrow and Pillow unpack them.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from .archive import Array, ArrayHeader, refuse
from .images import ImageShape, decode, image_shape
from .pages import MAX_ROWS, Footer, check_pages, damaged, read_footer

MAX_FILES = 1000
TEST_EVERY = 10  # without test files one row in ten of the training files is the test split

_SPLIT = re.compile(r"(train|validation|valid|val|test)(?=[-_.])")
_SPLITS = {"train": "train", "validation": "val", "valid": "val", "val": "val", "test": "test"}
_IMAGES = ("image", "img")
_LABEL = "label"
_ROWS_AT_ONCE = 32  # times the largest dictionary page: half a GiB at most
_LABELS_AT_ONCE = 1 << 16
# What pyarrow raises on damaged input; running out of memory is no part of it.
_DAMAGED = (pa.ArrowException, OSError, ValueError, LookupError)


@dataclass(frozen=True, kw_only=True, slots=True)
class Shard:
    """One file: what its footer says, the column of images, and the one of labels where there is one."""

    path: Path
    footer: Footer
    image: str
    label: str | None
    others: tuple[str, ...]

    def column(self, column: str, rows_at_once: int) -> Iterator[Any]:
        """Arrays of `rows_at_once` values of a column, after a check of its pages; raises InvalidInput."""
        if not self.footer.rows:  # then its chunks have no pages
            return
        seen = 0
        try:
            with self.path.open("rb") as raw:
                file = _parquet(raw)
                at = [file.schema.column(leaf).path for leaf in range(len(file.schema.names))].index(column)
                for group, chunks in enumerate(self.footer.groups):
                    check_pages(raw, chunks[at], self.path.name)
                    for batch in file.iter_batches(rows_at_once, [group], [column], use_threads=False):
                        seen += batch.num_rows
                        yield batch.column(0)
        except MemoryError:
            raise
        except _DAMAGED:
            raise damaged(self.path.name) from None
        if seen != self.footer.rows:
            raise damaged(self.path.name)


class ParquetArchive:
    """The images and labels as arrays x_train, y_train and so on; see `Archive`."""

    layouts = False

    def __init__(self, files: Sequence[Path]) -> None:
        """Read the footers and the first image; raises InvalidInput."""
        if len(files) > MAX_FILES:
            raise refuse("DATASET_TOO_LARGE", f"the dataset has {len(files):,} files; at most {MAX_FILES:,}")
        self._shards: dict[str, list[Shard]] = {}
        for file, split in _by_split(files):
            self._shards.setdefault(split, []).append(_open_shard(file))
        shards = [shard for split in self._shards.values() for shard in split]
        if len({shard.label for shard in shards}) > 1:
            raise refuse("DATASET_NAMES", "some of the files have a label column and others have none")
        self._cut = "test" not in self._shards
        self._shape = _first_shape(self._shards["train"])
        self._labelled = shards[0].label is not None
        self.ignored = tuple(sorted({name for shard in shards for name in shard.others}))
        headers: dict[str, ArrayHeader] = {}
        for split in (*self._shards, *(["test"] if self._cut else [])):
            rows = self._rows(split)
            if rows > MAX_ROWS:
                raise refuse("DATASET_TOO_LARGE", f"{split} has {rows:,} rows; at most {MAX_ROWS:,}")
            shape = (rows, self._shape.channels, self._shape.height, self._shape.width)
            headers[f"x_{split}"] = ArrayHeader(name=f"x_{split}", dtype=np.dtype("u1"), shape=shape)
            if self._labelled:
                headers[f"y_{split}"] = ArrayHeader(name=f"y_{split}", dtype=np.dtype("i8"), shape=(rows,))
        self.headers: Mapping[str, ArrayHeader] = MappingProxyType(headers)

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user should know of how the files were read."""
        if not self._cut:
            return ()
        return (f"no test files: one training row in {TEST_EVERY} is the test split, and is not trained on",)

    def blocks(self, name: str) -> Iterator[Array]:
        """uint8 (n,C,H,W) or int64 (n,), in order; raises InvalidInput on damage and on images of another shape."""
        kind, split = name.split("_")
        return self._images(split) if kind == "x" else self._labels(split)

    def _images(self, split: str) -> Iterator[Array]:
        row = 0
        for shard in self._files(split):
            for column in shard.column(f"{shard.image}.bytes", _ROWS_AT_ONCE):
                block = []
                for encoded in column.field("bytes"):
                    if self._belongs(row, split):
                        block.append(decode(_bytes(encoded, row), self._shape, f"image {row} of {split}"))
                    row += 1
                if block:
                    yield np.stack(block)

    def _labels(self, split: str) -> Iterator[Array]:
        row = 0
        for shard in self._files(split):
            for column in shard.column(_LABEL, _LABELS_AT_ONCE):
                if column.null_count:
                    raise refuse("DATASET_LABELS", f"{split} has rows without a label")
                labels = column.to_numpy(zero_copy_only=False)
                belongs = np.array([self._belongs(row + at, split) for at in range(TEST_EVERY)])
                row += len(labels)
                yield labels[np.resize(belongs, len(labels))].astype("i8")

    def _files(self, split: str) -> list[Shard]:
        return self._shards.get(split, self._shards["train"])

    def _rows(self, split: str) -> int:
        rows = sum(shard.footer.rows for shard in self._files(split))
        if not self._cut or split == "val":
            return rows
        return rows // TEST_EVERY if split == "test" else rows - rows // TEST_EVERY

    def _belongs(self, row: int, split: str) -> bool:
        """Whether this row of the split's files is in the split, where test rows come from training files."""
        if not self._cut or split == "val":
            return True
        return (row % TEST_EVERY == TEST_EVERY - 1) == (split == "test")


def _by_split(files: Sequence[Path]) -> list[tuple[Path, str]]:
    if len(files) == 1:
        return [(files[0], "train")]
    named = [(file, _SPLIT.match(file.name)) for file in files]
    unknown = [file.name for file, match in named if match is None]
    if unknown:
        raise refuse(
            "DATASET_NAMES",
            f"{unknown[0]!r:.60} names no split; files must be called train-*, validation-* or test-*.parquet",
        )
    splits = [(file, _SPLITS[match[1]]) for file, match in named if match]
    if all(split != "train" for _, split in splits):
        raise refuse("DATASET_NAMES", "the dataset lacks train-*.parquet")
    return splits


def _parquet(raw: Any) -> Any:
    return pq.ParquetFile(
        raw,
        buffer_size=1 << 20,  # read page by page, not a whole column chunk
        pre_buffer=False,
    )


def _open_shard(path: Path) -> Shard:
    """Read the footer and find the columns."""
    with path.open("rb") as raw:
        footer = read_footer(raw, path.stat().st_size, path.name)
        try:
            schema = _parquet(raw).schema_arrow
        except MemoryError:
            raise
        except _DAMAGED:
            raise damaged(path.name) from None
    image = _image_column(schema, path)
    label = _LABEL if _LABEL in schema.names else None
    if label and not pa.types.is_integer(schema.field(_LABEL).type):
        raise refuse(
            "DATASET_DTYPE",
            f"label has type {schema.field(_LABEL).type!s:.40}; it must be an integer class number",
        )
    others = tuple(name for name in schema.names if name not in (image, label))
    return Shard(path=path, footer=footer, image=image, label=label, others=others)


def _image_column(schema: Any, path: Path) -> str:
    if len(set(schema.names)) != len(schema.names):
        raise refuse("DATASET_NAMES", f"{_name(path)} has two columns of the same name")
    found = [field.name for field in schema if _is_image(field)]
    if len(found) > 1:
        found = [name for name in found if name in _IMAGES]
    if len(found) != 1:
        raise refuse(
            "DATASET_NAMES",
            f"{_name(path)} must have one column of images, a struct with bytes, named image or img; its columns "
            f"are {', '.join(f'{name!r:.40}' for name in schema.names[:6])}",
        )
    return str(found[0])


def _is_image(field: Any) -> bool:
    kind = field.type
    if not pa.types.is_struct(kind) or kind.get_field_index("bytes") < 0 or not field.name.isidentifier():
        return False
    inner = kind.field("bytes").type
    return bool(pa.types.is_binary(inner) or pa.types.is_large_binary(inner))


def _first_shape(shards: Sequence[Shard]) -> ImageShape:
    """Shape of the first training image."""
    for shard in shards:
        if shard.footer.rows:
            column = next(shard.column(f"{shard.image}.bytes", 1))
            encoded = next(iter(column.field("bytes")))
            return image_shape(_bytes(encoded, 0), "image 0 of train")
    raise refuse("DATASET_EMPTY", "the training files have no rows")


def _bytes(encoded: Any, row: int) -> bytes:
    if not encoded.is_valid:
        raise refuse("DATASET_IMAGES", f"row {row} has no bytes of an image; a path alone is never opened")
    return bytes(encoded.as_buffer())


def _name(path: Path) -> str:
    return f"{path.name!r:.60}"
