"""Copies on this host of what jobs read from elsewhere: bounded in bytes, verified by hash, for one owner each.

An entry is a folder with the files of one dataset or model.  What identifies it is the owner and, of each file,
its path, size and identity; so data that changed are another entry, and no owner is served another's.
"""

import hashlib
import json
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from npn_core.errors import Stopped
from npn_service.errors import LimitExceeded, Unavailable

from .space import DISK_FULL, is_full
from .streaming import read_on

CACHE_FULL = "CACHE_FULL"

_FILES, _MANIFEST, _UNFINISHED = "files", "sha256.json", ".part"

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Wanted:
    """One file of an entry: its path there, its size in bytes, what tells its bytes from any others, and how to
    read them from an offset.  With a `sha256` no other bytes are taken.
    """

    path: str
    size: int
    identity: str
    read: Callable[[int], Iterator[bytes]] = field(compare=False)
    sha256: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Held:
    """An entry in use: its files lie in `folder`; `sha256` of each, by path."""

    folder: Path
    sha256: Mapping[str, str]


class DamagedError(Exception):
    """A file that was fetched has another hash or size than it must have; `path` is its path in the entry."""

    def __init__(self, path: str) -> None:
        super().__init__(f"{path} has other bytes than were recorded")
        self.path = path


@dataclass(kw_only=True, slots=True)
class _Entry:
    size: int
    users: int = 0
    filling: threading.Lock = field(default_factory=threading.Lock)
    verified: tuple[object, ...] = ()  # what stat said of its files when their hashes were right


class Cache:
    """The folder `folder` of this process alone, up to `max_bytes` in it.  Thread-safe.

    Entries in use stay; of the others those go first that were not used for longest.  What another process left
    unfinished is removed at the start.
    """

    def __init__(self, folder: Path, *, max_bytes: int) -> None:
        self._folder, self._max_bytes = folder, max_bytes
        self._entries: dict[str, _Entry] = {}  # the one used last comes last
        self._lock = threading.Lock()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for path in sorted(folder.iterdir(), key=lambda path: path.stat().st_mtime):
            if (path / _MANIFEST).is_file():
                self._entries[path.name] = _Entry(size=_size_of(path / _FILES))
            else:
                shutil.rmtree(path)
        with self._lock:
            self._evict(0)

    @contextmanager
    def hold(self, owner: str, files: Sequence[Wanted], stop: threading.Event) -> Iterator[Held]:
        """The files in a folder that stays as it is until the block ends; fetched where they are not there.

        Raises Stopped once `stop` is set, LimitExceeded where they are larger than the cache, Unavailable where
        there is no room now (CACHE_FULL, DISK_FULL) or the source stays away, DamagedError.
        """
        name = _name_of(owner, files)
        entry = self._take(name, sum(file.size for file in files), stop)
        try:
            with _locked(entry.filling, stop):
                hashes = self._verified(name, entry, files) or self._fetch(name, entry, files, stop)
            yield Held(folder=self._folder / name / _FILES, sha256=hashes)
        finally:
            self._give_back(name, entry)

    def _take(self, name: str, size: int, stop: threading.Event) -> _Entry:
        """The entry, counted as in use, with room for it."""
        if size > self._max_bytes:
            raise LimitExceeded(
                f"the data are {size:,} bytes; this server's cache holds {self._max_bytes:,} (NPN_CACHE_BYTES)"
            )
        if stop.is_set():
            raise Stopped
        with self._lock:
            entry = self._entries.pop(name, None)
            if entry is None:
                if not self._evict(size):
                    raise Unavailable(
                        "this host's cache is full of data that other jobs read; "
                        "wait for them, or let its operator raise NPN_CACHE_BYTES",
                        reason=CACHE_FULL,
                    )
                entry = _Entry(size=size)
            self._entries[name] = entry
            entry.users += 1
            return entry

    def _give_back(self, name: str, entry: _Entry) -> None:
        with self._lock:
            entry.users -= 1
            if (self._folder / name / _MANIFEST).is_file():
                now = time.time_ns()
                os.utime(self._folder / name, ns=(now, now))  # the order survives a restart
            elif entry.users == 0:
                del self._entries[name]

    def _evict(self, size: int) -> bool:
        """Make room for `size` more bytes; whether there is as much."""
        unused = [name for name, entry in self._entries.items() if entry.users == 0]
        while (
            used := sum(entry.size for entry in self._entries.values())
        ) + size > self._max_bytes and unused:
            name = unused.pop(0)
            _log.info("cache.evicted", entry=name, size=self._entries.pop(name).size, used=used)
            shutil.rmtree(self._folder / name)
        return used + size <= self._max_bytes

    def _verified(self, name: str, entry: _Entry, files: Sequence[Wanted]) -> Mapping[str, str]:
        """The hashes of the files that are there, computed unless nothing touched them since; empty if wrong."""
        folder = self._folder / name
        try:
            hashes: dict[str, str] = json.loads((folder / _MANIFEST).read_text())
            state = tuple(_state_of(folder / _FILES / file.path) for file in files)
            if state != entry.verified:
                for file in files:
                    if _hash_of(folder / _FILES / file.path) != hashes[file.path]:
                        raise DamagedError(file.path)
        except FileNotFoundError:
            return {}
        except (DamagedError, KeyError, ValueError) as error:
            _log.warning("cache.damaged", entry=name, error=str(error))
            return {}
        for file in files:
            if file.sha256 not in ("", hashes[file.path]):
                raise DamagedError(file.path)
        entry.verified = state
        return hashes

    def _fetch(
        self, name: str, entry: _Entry, files: Sequence[Wanted], stop: threading.Event
    ) -> Mapping[str, str]:
        folder, unfinished = self._folder / name, self._folder / f"{name}{_UNFINISHED}"
        shutil.rmtree(folder, ignore_errors=True)
        try:
            hashes = {file.path: _write(unfinished / _FILES / file.path, file, stop) for file in files}
            (unfinished / _MANIFEST).write_text(json.dumps(hashes))
            unfinished.rename(folder)
        except OSError as error:
            if not is_full(error):
                raise
            with self._lock:
                self._evict(self._max_bytes)
            raise Unavailable(
                "this host's disk is full; its operator must make room in NPN_DATA_DIR, or lower NPN_CACHE_BYTES",
                reason=DISK_FULL,
            ) from error
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
        entry.verified = tuple(_state_of(folder / _FILES / file.path) for file in files)
        _log.info("cache.filled", entry=name, size=entry.size, files=len(files))
        return hashes


def _name_of(owner: str, files: Sequence[Wanted]) -> str:
    described = [owner, *sorted([file.path, file.size, file.identity] for file in files)]
    return hashlib.sha256(json.dumps(described).encode()).hexdigest()


def _write(target: Path, file: Wanted, stop: threading.Event) -> str:
    """Fetch one file durably, before its manifest speaks of it; returns its SHA-256."""
    target.parent.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256()
    with target.open("xb") as opened:
        for chunk in read_on(file.read, file.size, stop):
            opened.write(chunk)
            digest.update(chunk)
        opened.flush()
        os.fsync(opened.fileno())
    if target.stat().st_size != file.size or file.sha256 not in ("", digest.hexdigest()):
        raise DamagedError(file.path)
    return digest.hexdigest()


def _hash_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _state_of(path: Path) -> tuple[int, ...]:
    """Changes whenever the file does: nothing but the kernel sets the time of the change."""
    stat = path.stat()
    return stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns


def _size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


@contextmanager
def _locked(lock: threading.Lock, stop: threading.Event) -> Iterator[None]:
    """Hold the lock, waiting for it unless stopped."""
    while not lock.acquire(timeout=0.2):
        if stop.is_set():
            raise Stopped
    try:
        yield
    finally:
        lock.release()
