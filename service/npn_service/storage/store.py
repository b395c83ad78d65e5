"""The ObjectStore port: named bytes.  Keys are "/"-separated, relative, without "..".

Keys of the service: `objects/{owner}/{object_id}/{path}`, `uploads/{owner}/{upload_id}/{path}`,
`jobs/{id}/attempts/{n}/{path}`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredObject:
    """A key and its size in bytes."""

    key: str
    size: int


class ObjectStore(Protocol):
    """Named bytes; a key appears whole or not at all.  Synchronous; raises NotFound for missing keys."""

    def put_file(self, key: str, source: Path) -> StoredObject:
        """Store a local file durably under `key`, replacing what was there."""

    def read(self, key: str, *, offset: int = 0, chunk_bytes: int = 1 << 20) -> Iterator[bytes]:
        """The bytes from `offset` in chunks."""

    def stat(self, key: str) -> StoredObject:
        """Size of a key."""

    def list(self, prefix: str) -> Sequence[StoredObject]:
        """Every key with the prefix, sorted."""

    def delete_prefix(self, prefix: str) -> None:
        """Remove every key with the prefix; silent when there is none."""

    def append(self, key: str, offset: int, data: bytes) -> int:
        """Append to a growing key (uploads); returns the committed size.

        Raises InvalidRequest when `offset` is not the committed size.
        """

    def committed(self, key: str) -> int:
        """Bytes of a growing key stored so far; 0 when there are none."""

    def move_prefix(self, source: str, target: str) -> None:
        """Rename every key with a prefix."""

    def local_path(self, key: str) -> Path:
        """A local file with the bytes of `key`, for a worker of this host to read."""
