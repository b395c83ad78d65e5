"""Which reader a dataset needs: by what its first bytes tell, and for a folder by what lies in it."""

from pathlib import Path

from .archive import Archive, refuse
from .npz import NpzArchive
from .tensors import SafetensorsArchive

MAX_FILES = 1000
_FORMS = "one npz file (numpy.savez), one safetensors file, or Parquet files with images"


def open_archive(path: Path) -> Archive:
    """The arrays of a dataset: a file, or a folder of Parquet files or with one file; headers are checked.

    Raises InvalidInput on "dataset.uri".
    """
    if not path.is_dir():
        return _open_files([path])
    files = _files_below(path)
    shards = [file for file in files if file.suffix == ".parquet"]
    if len({shard.parent for shard in shards}) > 1:
        raise refuse("DATASET_NAMES", "the dataset has Parquet files in several folders; send one of them")
    if not shards and len(files) != 1:
        raise refuse("DATASET_NOT_NPZ", f"the dataset has {len(files)} files; it must be {_FORMS}")
    return _open_files(shards or files)


def _open_files(files: list[Path]) -> Archive:
    starts = [_start(file) for file in files]
    if all(start[:4] == b"PAR1" for start in starts):
        from .parquet import ParquetArchive  # pyarrow and Pillow take a third of a second to import

        return ParquetArchive(files)
    if len(files) == 1 and starts[0][:4] == b"PK\x03\x04":
        return NpzArchive(files[0])
    if len(files) == 1 and starts[0][8:] == b"{":
        return SafetensorsArchive(files[0])
    raise refuse("DATASET_NOT_NPZ", f"the dataset must be {_FORMS}")


def _start(file: Path) -> bytes:
    if not file.is_file():
        return b""
    with file.open("rb") as opened:
        return opened.read(9)


def _files_below(folder: Path) -> list[Path]:
    """All files, sorted, without hidden ones."""
    found = []
    for path in folder.rglob("*"):
        if path.is_file() and not path.name.startswith("."):
            found.append(path)
        if len(found) > MAX_FILES:
            raise refuse("DATASET_TOO_LARGE", f"the dataset has more than {MAX_FILES:,} files")
    return sorted(found)
