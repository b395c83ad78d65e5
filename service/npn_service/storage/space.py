"""Room on a disk: refused in time, so that what is small and must be written still can be."""

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from npn_service.errors import Unavailable

DISK_FULL = "DISK_FULL"
_RETRY_SECONDS = 30.0
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


class DiskSpace:
    """The disk that holds `folder`, of which `min_free` bytes are kept free for the database and its log."""

    def __init__(self, folder: Path, *, min_free: int = 0) -> None:
        self._folder = folder
        self._min_free = min_free

    def require(self, size: int = 0) -> None:
        """Raises Unavailable (DISK_FULL) unless `size` more bytes leave enough free."""
        if not self._min_free:
            return
        free = shutil.disk_usage(self._folder).free
        if free - size < self._min_free:
            raise disk_full(f"{max(0, free - self._min_free)} bytes are left, {size} are needed")

    def has_room(self) -> bool:
        """Whether `require` would let something small pass."""
        try:
            self.require()
        except Unavailable:
            return False
        return True


@contextmanager
def explaining_full_disk() -> Iterator[None]:
    """Turn a write that found no room into Unavailable (DISK_FULL)."""
    try:
        yield
    except OSError as error:
        if not is_full(error):
            raise
        raise disk_full("nothing was lost; what was being written is not stored") from error


def is_full(error: OSError) -> bool:
    """Whether a write found no room."""
    return error.errno in _FULL


def disk_full(detail: str) -> Unavailable:
    """What a caller hears when there is no room."""
    return Unavailable(
        f"the server's disk is full: {detail}; try again when its operator has made room",
        reason=DISK_FULL,
        retry_seconds=_RETRY_SECONDS,
    )
