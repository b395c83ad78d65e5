"""Objects in a local folder: temporary file, fsync, rename, fsync of the folder."""

import contextlib
import fcntl
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from io import FileIO
from pathlib import Path

from npn_service.errors import InvalidRequest, NotFound

from .space import DiskSpace, explaining_full_disk
from .store import Incoming, StoredObject, check_key, check_prefix


class LocalObjectStore:
    """Implements ObjectStore in the folder `root`; one process at a time, any number of threads.

    Keys are paths under `root/keys`; `root/temporary` holds what is being written or removed, and is emptied
    when the store opens.  With `shared` it is not: this process only removes, beside the one that owns the store.
    `min_free` bytes of the disk are left free.
    """

    def __init__(self, root: Path, *, min_free: int = 0, shared: bool = False) -> None:
        self._keys = root / "keys"
        self._temporary = root / "temporary"
        if self._temporary.exists() and not shared:
            shutil.rmtree(self._temporary)
        for folder in (self._keys, self._temporary):
            folder.mkdir(parents=True, exist_ok=True)
        self._space = DiskSpace(root, min_free=min_free)

    def require_room(self, size: int) -> None:
        """Raises Unavailable (reason DISK_FULL) where so many more bytes would not fit."""
        self._space.require(size)

    def put_file(self, key: str, source: Path) -> StoredObject:
        """Store a local file durably, replacing what was there."""
        target, temporary = self._path(key), self._new_temporary()
        self.require_room(source.stat().st_size)
        try:
            with explaining_full_disk():
                shutil.copyfile(source, temporary)
                with temporary.open("rb") as copy:
                    os.fsync(copy.fileno())
                    size = os.fstat(copy.fileno()).st_size
                self._make_folder(target.parent)
                temporary.rename(target)
        finally:
            temporary.unlink(missing_ok=True)
        _sync_folder(target.parent)
        return StoredObject(key=key, size=size)

    def read(self, key: str, *, offset: int = 0, chunk_bytes: int = 1 << 20) -> Iterator[bytes]:
        """The bytes from `offset` in chunks; NotFound and a bad offset are raised at once."""
        size = self.stat(key).size
        if not 0 <= offset <= size:
            raise InvalidRequest("offset", f"offset is {offset}; it must be between 0 and the size, {size}")
        return self._chunks(key, offset, chunk_bytes)

    def stat(self, key: str) -> StoredObject:
        """Size of a key."""
        path = self._path(key)
        if not path.is_file():
            raise NotFound(f"{key} does not exist")
        return _stored(key, path)

    def list(self, prefix: str) -> Sequence[StoredObject]:
        """Every key with the prefix, sorted."""
        found = []
        # another call may remove a folder, which walk passes over, or a file
        for folder, _, names in os.walk(self._folder(prefix)):
            for path in (Path(folder) / name for name in names):
                with contextlib.suppress(FileNotFoundError):
                    found.append(_stored(self._key(path), path))
        return sorted(found, key=lambda stored: stored.key)

    def delete(self, key: str) -> None:
        """Remove one key; silent when there is none."""
        path = self._path(key)
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
            _sync_folder(path.parent)

    def delete_prefix(self, prefix: str) -> None:
        """Remove every key with the prefix at once; silent when there is none."""
        folder, doomed = self._folder(prefix), self._new_temporary()
        try:
            folder.rename(doomed)
        except FileNotFoundError:
            return
        _sync_folder(folder.parent)
        shutil.rmtree(doomed, ignore_errors=True)  # what is left goes when the store opens

    def incoming(self, sizes: Mapping[str, int]) -> Mapping[str, Incoming]:
        """Every byte stored counts as committed."""
        return {key: Incoming(committed=self.committed(key)) for key in sizes}

    def append(self, key: str, offset: int, data: bytes) -> int:
        """Append durably to a growing key; returns the committed size.

        The size of the file is what is committed: a write that was cut off leaves a valid beginning, one that
        failed what was there before.
        """
        path = self._path(key)
        _check_offset(offset, self.committed(key))
        self.require_room(len(data))
        with explaining_full_disk():
            self._make_folder(path.parent)
            is_new = not path.exists()
            with path.open("ab", buffering=0) as file:
                fcntl.flock(file, fcntl.LOCK_EX)  # between the handles of this process too
                size = os.fstat(file.fileno()).st_size
                _check_offset(offset, size)  # another call may have been first
                try:
                    _write_durably(file, data)
                except OSError:  # a full disk; what follows must not build on it
                    file.truncate(size)
                    raise
            if is_new:
                _sync_folder(path.parent)
        return size + len(data)

    def committed(self, key: str) -> int:
        """Bytes of a growing key stored so far; 0 when there are none."""
        try:
            return self.stat(key).size
        except NotFound:
            return 0

    def finish(self, key: str, size: int) -> None:
        """Nothing to do, but for an empty file: nobody sends it, and it must exist all the same."""
        check_key(key)
        if size == 0:
            self.append(key, self.committed(key), b"")

    def download_link(self, key: str) -> None:
        """A folder has no URLs."""
        self.stat(key)

    def local_path(self, key: str) -> Path:
        """The file that holds `key`."""
        self.stat(key)
        return self._path(key)

    def local_folder(self, prefix: str) -> Path:
        """The folder that holds every key under `prefix`."""
        folder = self._folder(prefix)
        if not folder.is_dir():
            raise NotFound(f"{prefix} does not exist")
        return folder

    def _chunks(self, key: str, offset: int, chunk_bytes: int) -> Iterator[bytes]:
        try:
            file = self._path(key).open("rb")
        except FileNotFoundError:
            raise NotFound(f"{key} does not exist") from None
        with file:
            file.seek(offset)
            while chunk := file.read(chunk_bytes):
                yield chunk

    def _path(self, key: str) -> Path:
        check_key(key)
        return self._keys / key

    def _folder(self, prefix: str) -> Path:
        check_prefix(prefix)
        return self._path(prefix[:-1])

    def _key(self, path: Path) -> str:
        return path.relative_to(self._keys).as_posix()

    def _new_temporary(self) -> Path:
        return self._temporary / secrets.token_hex(8)

    def _make_folder(self, folder: Path) -> None:
        """Create a folder under `keys` durably: each new one is written to its parent."""
        if folder.is_dir():
            return
        self._make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        _sync_folder(folder.parent)


def _stored(key: str, path: Path) -> StoredObject:
    status = path.stat()
    written = datetime.fromtimestamp(status.st_mtime, UTC)
    return StoredObject(key=key, size=status.st_size, modified=written)


def _write_durably(file: FileIO, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[file.write(rest) :]
    os.fsync(file.fileno())


def _check_offset(offset: int, committed: int) -> None:
    if offset != committed:
        raise InvalidRequest(
            "offset",
            f"offset is {offset}, but {committed} bytes are committed; continue there",
            reason="OFFSET_MISMATCH",
        )


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
