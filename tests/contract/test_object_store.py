"""Named bytes, over every ObjectStore."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from npn_service.errors import InvalidRequest, NotFound
from npn_service.storage.store import ObjectStore, StoredObject


def put(objects: ObjectStore, key: str, data: bytes, folder: Path) -> StoredObject:
    """Store bytes under a key."""
    source = folder / "source"
    source.write_bytes(data)
    return objects.put_file(key, source)


def read(objects: ObjectStore, key: str, **place: int) -> bytes:
    """The bytes of a key."""
    return b"".join(objects.read(key, **place))


def keys(objects: ObjectStore, prefix: str) -> list[str]:
    """The keys with a prefix."""
    return [stored.key for stored in objects.list(prefix)]


def test_what_is_put_is_read_back(objects: ObjectStore, tmp_path: Path) -> None:
    """Bytes, size and a local copy; putting again replaces; the source stays."""
    assert put(objects, "jobs/1/a", b"first", tmp_path) == StoredObject(key="jobs/1/a", size=5)
    put(objects, "jobs/1/a", b"second", tmp_path)
    assert read(objects, "jobs/1/a") == b"second"
    assert objects.stat("jobs/1/a").size == 6
    assert objects.local_path("jobs/1/a").read_bytes() == b"second"
    assert (tmp_path / "source").exists()


def test_reading_goes_in_chunks_from_an_offset(objects: ObjectStore, tmp_path: Path) -> None:
    """No chunk is larger than asked; the end is an empty read; beyond it is refused."""
    put(objects, "a", b"0123456789", tmp_path)
    assert list(objects.read("a", offset=3, chunk_bytes=4)) == [b"3456", b"789"]
    assert read(objects, "a", offset=10) == b""
    for offset in (-1, 11):
        with pytest.raises(InvalidRequest):
            objects.read("a", offset=offset)


def test_a_missing_key_is_not_found(objects: ObjectStore) -> None:
    """Reading, stat and local_path say so at once; a folder is no key."""
    objects.append("folder/key", 0, b"x")
    for key in ("nothing", "folder"):
        with pytest.raises(NotFound):
            objects.read(key)
        with pytest.raises(NotFound):
            objects.stat(key)
        with pytest.raises(NotFound):
            objects.local_path(key)


def test_prefixes_list_and_delete_what_is_theirs(objects: ObjectStore, tmp_path: Path) -> None:
    """Sorted keys at any depth; jobs/1/ is no prefix of jobs/10/; nothing to delete is no error."""
    for key in ("jobs/1/b/c", "jobs/1/a", "jobs/10/a"):
        put(objects, key, b"x", tmp_path)
    assert keys(objects, "jobs/1/") == ["jobs/1/a", "jobs/1/b/c"]
    objects.delete_prefix("jobs/1/")
    objects.delete_prefix("jobs/1/")
    assert keys(objects, "jobs/") == ["jobs/10/a"]
    objects.delete("jobs/10/a")
    objects.delete("jobs/10/a")
    assert keys(objects, "jobs/") == []


def test_appending_goes_on_where_it_stopped(objects: ObjectStore) -> None:
    """The committed size is the only offset taken; what was refused leaves no trace."""
    assert objects.committed("uploads/u/f") == 0
    assert objects.append("uploads/u/f", 0, b"abc") == 3
    for offset in (0, 2, 4):
        with pytest.raises(InvalidRequest) as refused:
            objects.append("uploads/u/f", offset, b"xyz")
        assert refused.value.reason == "OFFSET_MISMATCH"
    assert objects.append("uploads/u/f", 3, b"de") == 5
    assert objects.committed("uploads/u/f") == 5
    assert read(objects, "uploads/u/f") == b"abcde"


def test_of_racing_appends_one_is_taken(objects: ObjectStore) -> None:
    """Two clients that send the same part cannot mix their bytes."""
    part = 1 << 16

    def send(index: int) -> int:
        try:
            return objects.append("f", 0, bytes([index]) * part)
        except InvalidRequest:
            return 0

    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(send, range(8))) == [0] * 7 + [part]
    assert len(set(read(objects, "f"))) == 1
    assert objects.committed("f") == part


def test_moving_a_prefix_takes_everything_along(objects: ObjectStore, tmp_path: Path) -> None:
    """Every key moves; one that the target has already stays; a repeat does nothing."""
    for key in ("from/a", "from/b/c"):
        put(objects, key, b"new", tmp_path)
    put(objects, "to/a", b"old", tmp_path)
    objects.move_prefix("from/", "to/")
    objects.move_prefix("from/", "to/")
    assert keys(objects, "to/") == ["to/a", "to/b/c"]
    assert read(objects, "to/a") == b"old"
    assert read(objects, "to/b/c") == b"new"
    assert keys(objects, "from/") == []


OUTSIDE = ("", "/etc/passwd", "../x", "a/../../x", "a/./b", "a//b", "a/")
UNFIT = ("a\0b", "a\nb", "a\\b", "\ud800", "x" * 256, "/".join(["d" * 200] * 6))


@pytest.mark.parametrize("key", OUTSIDE + UNFIT)
def test_keys_that_lead_elsewhere_are_refused(objects: ObjectStore, key: str, tmp_path: Path) -> None:
    """No key leaves the store, in any call."""
    calls = (
        lambda: put(objects, key, b"x", tmp_path),
        lambda: objects.append(key, 0, b"x"),
        lambda: objects.read(key),
        lambda: objects.stat(key),
        lambda: objects.delete(key),
        lambda: objects.committed(key),
        lambda: objects.local_path(key),
        lambda: objects.delete_prefix(key + "/"),
        lambda: objects.list(key + "/"),
        lambda: objects.move_prefix(key + "/", "to/"),
    )
    for call in calls:
        with pytest.raises(InvalidRequest):
            call()


def test_a_prefix_ends_in_a_slash(objects: ObjectStore) -> None:
    """Half a name is no prefix: jobs/1 must not reach jobs/10."""
    with pytest.raises(InvalidRequest):
        objects.delete_prefix("jobs/1")
