"""The ObjectStore port: named bytes.  Keys are "/"-separated, relative, without ".."; prefixes end in "/".

Keys of the service: `objects/{owner}/{object_id}/{path}`, `uploads/{owner}/{upload_id}/{path}`,
`jobs/{id}/attempts/{n}/{path}`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

MAX_KEY_BYTES = 1024  # what S3 takes
MAX_PATH_BYTES = 768  # leaves room for the prefix
MAX_SEGMENT_BYTES = 255  # what file systems take


def invalid_path(path: str, *, max_bytes: int = MAX_PATH_BYTES) -> str:
    """What is wrong with a path that becomes the end of a key; empty when nothing is."""
    if any(ord(character) < 32 or character in "\\\x7f" for character in path):
        return "a path must not contain control characters or backslashes"
    try:
        segments = path.encode().split(b"/")
    except UnicodeEncodeError:
        return "a path must be valid Unicode"
    if len(path.encode()) > max_bytes or any(len(part) > MAX_SEGMENT_BYTES for part in segments):
        return f"a path has at most {max_bytes} bytes, and {MAX_SEGMENT_BYTES} between two slashes"
    if any(part in (b"", b".", b"..") for part in segments):
        return f"{path!r} must be relative, without empty parts, '.' and '..'"
    return ""


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

    def delete(self, key: str) -> None:
        """Remove one key; silent when there is none."""

    def delete_prefix(self, prefix: str) -> None:
        """Remove every key with the prefix; silent when there is none."""

    def append(self, key: str, offset: int, data: bytes) -> int:
        """Append durably to a growing key (uploads); returns the committed size.

        Raises InvalidRequest (reason OFFSET_MISMATCH) when `offset` is not the committed size.
        """

    def committed(self, key: str) -> int:
        """Bytes of a growing key stored so far; 0 when there are none."""

    def move_prefix(self, source: str, target: str) -> None:
        """Rename every key with a prefix; one that the target has already stays.  Safe to repeat."""

    def local_path(self, key: str) -> Path:
        """A local file with the bytes of `key`, for a worker of this host to read."""

    def local_folder(self, prefix: str) -> Path:
        """A local folder with every key under `prefix`, likewise; raises NotFound where there is none."""
