"""The cache of data that jobs read: bounded, verified, one owner's own."""

import errno
import os
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

import pytest

from npn_core.errors import Stopped
from npn_service.errors import LimitExceeded, Unavailable
from npn_service.storage import streaming
from npn_service.storage.cache import Cache, DamagedError, Wanted

GO = threading.Event()  # nobody stops


@dataclass
class Origin:
    """A source of files that counts what is read of it; `away` reads fail first, after `until` bytes of each."""

    contents: dict[str, bytes]
    reads: list[tuple[str, int]] = field(default_factory=list)
    away: int = 0
    until: int = 0

    def read(self, path: str, offset: int) -> Iterator[bytes]:
        """The bytes in pieces of three."""
        self.reads.append((path, offset))
        if self.away:
            self.away -= 1
            yield from iter([self.contents[path][offset : offset + self.until]] if self.until else [])
            raise Unavailable("gone for a while")
        data = self.contents[path][offset:]
        yield from (data[at : at + 3] for at in range(0, len(data), 3))

    def wanted(self, *paths: str, identity: str = "1", sha256: str = "") -> list[Wanted]:
        """The files with these paths, or all."""
        return [
            Wanted(
                path=path,
                size=len(self.contents[path]),
                identity=identity,
                sha256=sha256,
                read=lambda offset, path=path: self.read(path, offset),  # type: ignore[misc]
            )
            for path in paths or self.contents
        ]


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    """A cache of 100 bytes."""
    return Cache(tmp_path / "cache", max_bytes=100)


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming, "_LONGEST_PAUSE", 0.01)


def use(
    cache: Cache, origin: Origin, *paths: str, owner: str = "ann", identity: str = "1"
) -> dict[str, bytes]:
    """What is in the files while they are held."""
    with cache.hold(owner, origin.wanted(*paths, identity=identity), GO) as held:
        found = {
            file.relative_to(held.folder).as_posix(): file.read_bytes()
            for file in held.folder.rglob("*")
            if file.is_file()
        }
        assert held.sha256 == {path: sha256(data).hexdigest() for path, data in found.items()}
        return found


def test_it_is_fetched_once(cache: Cache, tmp_path: Path) -> None:
    """Files come with their paths, and the next time, also after a restart, nothing is read again."""
    origin = Origin({"a.npz": b"first", "train/0.parquet": b"second"})
    assert use(cache, origin) == origin.contents
    assert use(cache, origin) == origin.contents
    assert use(Cache(tmp_path / "cache", max_bytes=100), origin) == origin.contents
    assert origin.reads == [("a.npz", 0), ("train/0.parquet", 0)]


def test_owners_share_nothing(cache: Cache) -> None:
    """Another owner's job, and another version, fetch their own."""
    origin = Origin({"a": b"data"})
    for owner, identity in (("ann", "1"), ("bob", "1"), ("ann", "2"), ("ann", "1")):
        use(cache, origin, owner=owner, identity=identity)
    assert len(origin.reads) == 3


def test_many_at_a_time_fetch_once(cache: Cache) -> None:
    """Jobs that come together wait for the one that fetches."""
    origin = Origin({"a": b"data" * 20})
    threads = [threading.Thread(target=use, args=(cache, origin)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert origin.reads == [("a", 0)]


def test_the_least_recently_used_goes(cache: Cache, tmp_path: Path) -> None:
    """Room is made by dropping what was not used for longest, in the order that a restart keeps."""
    origin = Origin({name: name.encode() * 40 for name in "abc"})
    use(cache, origin, "a")
    use(cache, origin, "b")
    use(cache, origin, "a")
    again = Cache(tmp_path / "cache", max_bytes=100)
    use(again, origin, "c")
    origin.reads.clear()
    use(again, origin, "a")
    use(again, origin, "c")
    assert origin.reads == []
    use(again, origin, "b")
    assert origin.reads == [("b", 0)]


def test_a_smaller_cache_drops_what_is_over(cache: Cache, tmp_path: Path) -> None:
    """A restart with fewer bytes keeps what was used last."""
    origin = Origin({name: name.encode() * 40 for name in "ab"})
    use(cache, origin, "a")
    use(cache, origin, "b")
    use(Cache(tmp_path / "cache", max_bytes=50), origin, "b")
    assert origin.reads == [("a", 0), ("b", 0)]
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_what_is_in_use_stays(cache: Cache) -> None:
    """Nothing that a job reads is dropped: another job hears that there is no room, and what to do."""
    origin = Origin({name: name.encode() * 60 for name in "ab"})
    with cache.hold("ann", origin.wanted("a"), GO) as held:
        with pytest.raises(Unavailable, match="NPN_CACHE_BYTES") as full:
            use(cache, origin, "b")
        assert full.value.reason == "CACHE_FULL"
        assert (held.folder / "a").read_bytes() == b"a" * 60
    assert use(cache, origin, "b") == {"b": b"b" * 60}


def test_larger_than_the_cache(cache: Cache) -> None:
    """What can never fit is refused before anything is fetched."""
    origin = Origin({"a": b"a" * 101})
    with pytest.raises(LimitExceeded, match=r"101 bytes; this server's cache holds 100 \(NPN_CACHE_BYTES\)"):
        use(cache, origin)
    assert origin.reads == []


@pytest.mark.parametrize("restart", [True, False])
def test_damage_on_the_disk_is_repaired(cache: Cache, tmp_path: Path, restart: bool) -> None:
    """A file whose bytes changed on the disk is fetched anew, in a running server and after a restart."""
    origin = Origin({"a": b"first", "b": b"second"})
    with cache.hold("ann", origin.wanted(), GO) as held:
        damaged = held.folder / "b"
    stat = damaged.stat()
    damaged.write_bytes(b"sEcond")
    os.utime(damaged, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # the hash tells, not the time
    cache = Cache(tmp_path / "cache", max_bytes=100) if restart else cache
    assert use(cache, origin) == origin.contents
    damaged.unlink()
    assert use(cache, origin) == origin.contents
    assert len(origin.reads) == 6


def test_other_bytes_than_demanded(cache: Cache, tmp_path: Path) -> None:
    """Where a hash or a size is known no other bytes are taken, whether they come now or lie there."""
    origin = Origin({"a": b"data"})
    with pytest.raises(DamagedError), ExitStack() as stack:
        stack.enter_context(cache.hold("ann", origin.wanted(sha256="0" * 64), GO))
    assert list((tmp_path / "cache").iterdir()) == []
    use(cache, origin)
    with pytest.raises(DamagedError), ExitStack() as stack:
        stack.enter_context(cache.hold("ann", origin.wanted(sha256="0" * 64), GO))


def test_unfinished_entries_are_removed_at_the_start(tmp_path: Path) -> None:
    """What a server that died left half fetched is gone, and is no entry."""
    (tmp_path / "cache" / "abc.part" / "files").mkdir(parents=True)
    (tmp_path / "cache" / "def" / "files").mkdir(parents=True)
    Cache(tmp_path / "cache", max_bytes=100)
    assert list((tmp_path / "cache").iterdir()) == []


def test_an_outage_is_waited_out(cache: Cache) -> None:
    """A source that is away for a while is read on from where it broke off, and the bytes are right."""
    origin = Origin({"a": b"0123456789"}, away=3, until=2)
    assert use(cache, origin) == origin.contents
    assert origin.reads == [("a", 0), ("a", 2), ("a", 4), ("a", 6)]


def test_an_outage_that_stays(cache: Cache, tmp_path: Path) -> None:
    """It ends, when it is told to, with the source's own error, and leaves nothing."""
    stop, origin = threading.Event(), Origin({"a": b"0123"}, away=10**9)
    threading.Timer(0.5, stop.set).start()
    with pytest.raises(Unavailable, match="gone for a while"), ExitStack() as stack:
        stack.enter_context(cache.hold("ann", origin.wanted(), stop))
    assert list((tmp_path / "cache").iterdir()) == []


def test_stopping(cache: Cache, tmp_path: Path) -> None:
    """A fetch ends when it is told to, also while its source is away, and leaves nothing."""
    stop, origin = threading.Event(), Origin({"a": b"0123456789"})
    real = origin.read

    def read(path: str, offset: int) -> Iterator[bytes]:
        for chunk in real(path, offset):
            yield chunk
            stop.set()

    origin.read = read  # type: ignore[method-assign]
    with pytest.raises(Stopped), ExitStack() as stack:
        stack.enter_context(cache.hold("ann", origin.wanted(), stop))
    assert list((tmp_path / "cache").iterdir()) == []
    with pytest.raises(Stopped), ExitStack() as stack:
        stack.enter_context(cache.hold("ann", origin.wanted(), stop))
    assert use(cache, Origin({"a": b"0123456789"})) == {"a": b"0123456789"}


def test_a_full_disk(cache: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says what to do; what nobody uses makes room for the next try."""
    origin = Origin({"a": b"first", "b": b"second"})
    use(cache, origin, "a")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(Unavailable, match="NPN_DATA_DIR, or lower NPN_CACHE_BYTES") as error:
            use(cache, origin, "b")
    assert error.value.reason == "DISK_FULL"
    assert list((tmp_path / "cache").iterdir()) == []
    assert use(cache, origin, "b") == {"b": b"second"}
