"""Named bytes, over every ObjectStore."""

import random
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from s3_server import SMALL_PART, put_url

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


def arrived(objects: ObjectStore, key: str, size: int) -> int:
    """Bytes that have arrived of a growing key."""
    return objects.incoming({key: size})[key].committed


def send(objects: ObjectStore, key: str, data: bytes, *, parts: int | None = None) -> int:
    """Send what is missing of a growing key the way the store says, at most so many parts; returns what has arrived."""
    state = objects.incoming({key: len(data)})[key]
    if not state.part_bytes:
        end = len(data) if parts is None else state.committed + parts * SMALL_PART
        return objects.append(key, state.committed, data[state.committed : end])
    for number, url in list(state.urls.items())[:parts]:
        assert put_url(url, data[(number - 1) * state.part_bytes : number * state.part_bytes]) == 200
    return arrived(objects, key, len(data))


def keys(objects: ObjectStore, prefix: str) -> list[str]:
    """The keys with a prefix."""
    return [stored.key for stored in objects.list(prefix)]


def test_what_is_put_is_read_back(objects: ObjectStore, tmp_path: Path) -> None:
    """Bytes, size and a local copy; putting again replaces; the source stays."""
    assert put(objects, "jobs/1/a", b"first", tmp_path) == StoredObject(key="jobs/1/a", size=5)
    put(objects, "jobs/1/a", b"second", tmp_path)
    assert read(objects, "jobs/1/a") == b"second"
    assert objects.stat("jobs/1/a").size == 6
    local = objects.local_path("jobs/1/a")
    assert local is None or local.read_bytes() == b"second"
    assert (tmp_path / "source").exists()


def test_reading_goes_in_chunks_from_an_offset(objects: ObjectStore, tmp_path: Path) -> None:
    """No chunk is larger than asked; the end is an empty read; beyond it is refused."""
    put(objects, "a", b"0123456789", tmp_path)
    assert list(objects.read("a", offset=3, chunk_bytes=4)) == [b"3456", b"789"]
    assert read(objects, "a", offset=10) == b""
    for offset in (-1, 11):
        with pytest.raises(InvalidRequest):
            objects.read("a", offset=offset)


def test_a_missing_key_is_not_found(objects: ObjectStore, tmp_path: Path) -> None:
    """Reading, stat, links and local_path say so at once; a folder is no key."""
    put(objects, "folder/key", b"x", tmp_path)
    for key in ("nothing", "folder"):
        with pytest.raises(NotFound):
            objects.read(key)
        with pytest.raises(NotFound):
            objects.stat(key)
        with pytest.raises(NotFound):
            objects.download_link(key)
        with pytest.raises(NotFound):
            objects.local_path(key)
    with pytest.raises(NotFound):
        objects.local_folder("nothing/")


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


def test_a_growing_key_resumes_from_what_has_arrived(objects: ObjectStore) -> None:
    """Whichever way the bytes travel: some, then the rest, then a key like others; finishing again does nothing."""
    data = random.Random(1).randbytes(2 * SMALL_PART + 1000)
    assert arrived(objects, "objects/u/f", len(data)) == 0
    sent = send(objects, "objects/u/f", data, parts=1)
    assert 0 < sent < len(data)
    assert arrived(objects, "objects/u/f", len(data)) == sent
    send(objects, "objects/u/f", data)
    assert arrived(objects, "objects/u/f", len(data)) == len(data)
    for _ in range(2):
        objects.finish("objects/u/f", len(data))
    assert read(objects, "objects/u/f") == data
    assert arrived(objects, "objects/u/f", len(data)) == len(data)
    assert keys(objects, "objects/u/") == ["objects/u/f"]


def test_an_empty_growing_key(objects: ObjectStore) -> None:
    """Nobody sends it, and it exists when it is finished."""
    objects.finish("objects/u/empty", 0)
    assert objects.stat("objects/u/empty").size == 0


def test_a_growing_key_can_be_dropped(objects: ObjectStore) -> None:
    """By key and by prefix; it begins again from nothing."""
    data = bytes(SMALL_PART + 1)
    for drop in (lambda: objects.delete("objects/u/f"), lambda: objects.delete_prefix("objects/u/")):
        assert send(objects, "objects/u/f", data, parts=1) > 0
        drop()
        assert arrived(objects, "objects/u/f", len(data)) == 0


def test_many_keys_grow_at_a_time(objects: ObjectStore) -> None:
    """One call tells the state of all of them; a key that begins like another is its own."""
    sizes = {f"objects/u/{name}": len(name) for name in ("a", "ab", "abc", "d/e f+g%20ü")}
    assert {key: state.committed for key, state in objects.incoming(sizes).items()} == dict.fromkeys(sizes, 0)
    for key, size in sizes.items():
        send(objects, key, b"x" * size)
    assert {key: state.committed for key, state in objects.incoming(sizes).items()} == sizes
    for key, size in sizes.items():
        objects.finish(key, size)
        assert read(objects, key) == b"x" * size
    assert keys(objects, "objects/u/") == sorted(sizes)


OUTSIDE = ("", "/etc/passwd", "../x", "a/../../x", "a/./b", "a//b", "a/")
UNFIT = ("a\0b", "a\nb", "a\\b", "\ud800", "x" * 256, "/".join(["d" * 200] * 6))


@pytest.mark.parametrize("key", OUTSIDE + UNFIT)
def test_keys_that_lead_elsewhere_are_refused(objects: ObjectStore, key: str, tmp_path: Path) -> None:
    """No key leaves the store, in any call."""
    calls = (
        lambda: put(objects, key, b"x", tmp_path),
        lambda: objects.incoming({key: 1}),
        lambda: objects.finish(key, 1),
        lambda: objects.download_link(key),
        lambda: objects.read(key),
        lambda: objects.stat(key),
        lambda: objects.delete(key),
        lambda: objects.local_path(key),
        lambda: objects.delete_prefix(key + "/"),
        lambda: objects.list(key + "/"),
        lambda: objects.local_folder(key + "/"),
    )
    for call in calls:
        with pytest.raises(InvalidRequest):
            call()


def test_a_prefix_ends_in_a_slash(objects: ObjectStore) -> None:
    """Half a name is no prefix: jobs/1 must not reach jobs/10."""
    with pytest.raises(InvalidRequest):
        objects.delete_prefix("jobs/1")


def test_a_list_tells_when_keys_were_written(objects: ObjectStore, tmp_path: Path) -> None:
    """Within minutes of now: what collects garbage asks how old a key is."""
    put(objects, "jobs/1/a", b"first", tmp_path)
    (stored,) = objects.list("jobs/")
    assert stored.modified is not None
    assert abs(stored.modified - datetime.now(UTC)) < timedelta(minutes=5)


def test_room_is_asked_for_in_advance(objects: ObjectStore) -> None:
    """A store that has room for nothing in particular says nothing."""
    objects.require_room(1)
