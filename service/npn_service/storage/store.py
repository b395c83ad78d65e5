"""The ObjectStore port: named bytes.  Keys are "/"-separated, relative, without ".."; prefixes end in "/".

Keys of the service: `objects/{owner}/{object_id}/{path}` (an upload grows there too; nobody looks before its row
is complete) and `jobs/{id}/attempts/{n}/{path}`.

A client's bytes arrive in one of two ways, and `incoming` says which: a store that has URLs takes parts by HTTP
PUT, another takes `append`.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Protocol

from npn_service.errors import InvalidRequest

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


def check_key(key: str) -> None:
    """Raises InvalidRequest where a key would lead elsewhere."""
    if wrong := invalid_path(key, max_bytes=MAX_KEY_BYTES):
        raise InvalidRequest("path", wrong)


def check_prefix(prefix: str) -> None:
    """Raises InvalidRequest where a prefix is none: "jobs/1" would reach "jobs/10"."""
    if not prefix.endswith("/"):
        raise InvalidRequest("path", f"the prefix {prefix!r} must end in '/'")
    check_key(prefix[:-1])


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredObject:
    """A key and its size in bytes; `modified` is when it was last written, which `list` always tells."""

    key: str
    size: int
    modified: datetime | None = field(default=None, compare=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class Incoming:
    """How much of a growing key has arrived, and where the rest goes.

    `committed` is in bytes.  With `part_bytes`, the key is sent in parts of that size, the last one shorter, each
    by HTTP PUT to its URL; `urls` has those that are missing, by number from 1.  Without, it is sent by `append`.
    """

    committed: int
    part_bytes: int = 0
    urls: Mapping[int, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Link:
    """A URL that serves a key to whoever holds it, until `expire_time`."""

    url: str = field(repr=False)
    expire_time: datetime


class ObjectStore(Protocol):
    """Named bytes; a key appears whole or not at all.  Synchronous.

    Raises NotFound for missing keys, Unavailable where the store does not answer, InvalidRequest for what is no key.
    """

    def require_room(self, size: int) -> None:
        """Raises Unavailable (reason DISK_FULL) where so many more bytes would not fit."""

    def put_file(self, key: str, source: Path) -> StoredObject:
        """Store a local file durably under `key`, replacing what was there."""

    def read(self, key: str, *, offset: int = 0, chunk_bytes: int = 1 << 20) -> Iterator[bytes]:
        """The bytes from `offset` in chunks."""

    def stat(self, key: str) -> StoredObject:
        """Size of a key."""

    def list(self, prefix: str) -> Sequence[StoredObject]:
        """Every key with the prefix, sorted."""

    def delete(self, key: str) -> None:
        """Remove one key, also while it grows; silent when there is none."""

    def delete_prefix(self, prefix: str) -> None:
        """Remove every key with the prefix; silent when there is none."""

    def incoming(self, sizes: Mapping[str, int]) -> Mapping[str, Incoming]:
        """The state of growing keys (uploads) of these final sizes; keys that are whole are told as such."""

    def append(self, key: str, offset: int, data: bytes) -> int:
        """Append durably to a growing key; returns the committed size.

        Raises InvalidRequest (reason OFFSET_MISMATCH) when `offset` is not the committed size, WrongState (reason
        USE_PART_URLS) in a store that has URLs.
        """

    def finish(self, key: str, size: int) -> None:
        """Make a growing key that has arrived whole a key like others.  Safe to repeat."""

    def download_link(self, key: str) -> Link | None:
        """A short-lived URL of a key; None in a store that has none.  Raises NotFound where there is no such key."""

    def local_path(self, key: str) -> Path | None:
        """A local file with the bytes of `key`, for a worker of this host; None where `read` must fetch them."""

    def local_folder(self, prefix: str) -> Path | None:
        """A local folder with every key under `prefix`, likewise; raises NotFound where there is none."""
