"""storage/space.py, and what stands on it: room on the disk."""

import errno
from pathlib import Path

import pytest

from npn_service.errors import Unavailable
from npn_service.storage.local import LocalObjectStore
from npn_service.storage.space import DiskSpace, explaining_full_disk

HUGE = 1 << 62


def test_room_is_what_is_left_beyond_the_reserve(tmp_path: Path) -> None:
    """What would eat into the reserve is refused with the reason and a time to come back."""
    DiskSpace(tmp_path, min_free=1).require(1)
    DiskSpace(tmp_path).require(HUGE)  # no reserve is asked for, nothing is checked
    for space, size in ((DiskSpace(tmp_path, min_free=1), HUGE), (DiskSpace(tmp_path, min_free=HUGE), 0)):
        with pytest.raises(Unavailable) as refused:
            space.require(size)
        assert refused.value.reason == "DISK_FULL"
        assert refused.value.retry_seconds > 1
    assert DiskSpace(tmp_path, min_free=1).has_room()
    assert not DiskSpace(tmp_path, min_free=HUGE).has_room()


def test_a_store_without_room_takes_nothing(tmp_path: Path) -> None:
    """Neither files nor chunks; what is there is served."""
    (tmp_path / "file").write_bytes(b"data")
    LocalObjectStore(tmp_path / "objects").append("uploads/1/a", 0, b"first")
    full = LocalObjectStore(tmp_path / "objects", min_free=HUGE)
    for write in (
        lambda: full.put_file("jobs/1/a", tmp_path / "file"),
        lambda: full.append("uploads/1/a", 5, b"second"),
        lambda: full.require_room(0),
    ):
        with pytest.raises(Unavailable, match="disk is full"):
            write()
    assert full.committed("uploads/1/a") == 5
    assert full.list("jobs/") == []


def test_other_faults_of_a_disk_are_not_explained_away() -> None:
    """Only a disk without room is told to the caller as such."""
    with pytest.raises(OSError, match="Input/output"), explaining_full_disk():
        raise OSError(errno.EIO, "Input/output error")
    for number in (errno.ENOSPC, errno.EDQUOT):
        with pytest.raises(Unavailable), explaining_full_disk():
            raise OSError(number, "full")


def test_a_store_that_is_shared_leaves_what_is_being_written(tmp_path: Path) -> None:
    """Opened beside its server it removes no temporary file; its server does when it starts."""
    LocalObjectStore(tmp_path)
    (tmp_path / "temporary/half").write_bytes(b"half")
    LocalObjectStore(tmp_path, shared=True)
    assert (tmp_path / "temporary/half").exists()
    LocalObjectStore(tmp_path)
    assert not (tmp_path / "temporary/half").exists()
