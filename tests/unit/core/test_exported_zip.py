"""The reader of exported models against zips and JSON that lie: everything is bounded before it is read."""

import struct
import zipfile
from pathlib import Path

import pytest
from exported_samples import (
    CONSTANTS,
    WEIGHTS,
    read_entries,
    refusal,
    residual_archive,
    write_entries,
)

from npn_core.errors import InvalidInput
from npn_core.exported import read_exported


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """A good archive, to be changed."""
    return residual_archive(tmp_path / "model.pt2")


def directory(data: bytes | bytearray) -> int:
    """Where the zip's directory begins."""
    (start,) = struct.unpack_from("<L", data, len(data) - 6)
    assert data[start : start + 4] == b"PK\x01\x02"
    return int(start)


@pytest.mark.parametrize(
    "data", [b"", b"PK\x05\x06", b"\x80\x02cos\nsystem\n.", b"PK\x05\x06" + bytes(18), bytes(500)]
)
def test_other_files_are_refused(tmp_path: Path, data: bytes) -> None:
    """What is no zip, or an empty one."""
    path = tmp_path / "m.pt2"
    path.write_bytes(data)
    refusal(path, "MODEL_NOT_PT2")


@pytest.mark.parametrize(
    "name",
    [
        "../evil",
        "a/../../evil",
        "models/../x",
        "data\\weights",
        "models/other.json5",
        "a\u202eb",
        "data/weights/",
        "x",
    ],
)
def test_unexpected_names_are_refused(archive: Path, name: str) -> None:
    """An archive holds what exported models hold, and nothing else."""
    write_entries(archive, read_entries(archive) | {name: b"1"})
    refusal(archive, "MODEL_UNSAFE")


def test_absolute_names_and_second_folders_are_refused(archive: Path) -> None:
    """All entries lie in one folder."""
    for name in ("/etc/passwd", "other/archive_format"):
        with zipfile.ZipFile(archive, "a") as file:
            file.writestr(name, b"pt2")
        with pytest.raises(InvalidInput):
            read_exported(archive)


def test_links_are_refused(archive: Path) -> None:
    """Unix modes can make an entry a link."""
    link = zipfile.ZipInfo("model/extra/link")
    link.create_system, link.external_attr = 3, 0o120777 << 16
    with zipfile.ZipFile(archive, "a") as file:
        file.writestr(link, "/etc/passwd")
    assert "link" in refusal(archive, "MODEL_UNSAFE")


def test_repeated_names_are_refused(archive: Path) -> None:
    """One could be checked and the other one read."""
    with zipfile.ZipFile(archive, "a") as file, pytest.warns(UserWarning, match="Duplicate"):
        file.writestr("model/models/model.json", b"{}")
    assert "same name" in refusal(archive, "MODEL_UNSAFE")


def test_overlapping_entries_are_refused(archive: Path) -> None:
    """Two names of the same bytes: how small files become large ones."""
    data = bytearray(archive.read_bytes())
    first = directory(data)
    second = data.index(b"PK\x01\x02", first + 4)
    data[second + 42 : second + 46] = data[first + 42 : first + 46]
    archive.write_bytes(data)
    with pytest.raises(InvalidInput) as caught:
        read_exported(archive)
    assert caught.value.reason in ("MODEL_UNSAFE", "MODEL_NOT_PT2")


@pytest.mark.parametrize(("field", "size"), [(20, 4), (24, 4), (42, 4)])
def test_directories_that_lie_are_refused(archive: Path, field: int, size: int) -> None:
    """Sizes and offsets in the directory that the file does not have."""
    data = bytearray(archive.read_bytes())
    for number in (1, 0x7FFFFFFF, 0xFFFFFFF0):
        first = directory(data)
        data[first + field : first + field + size] = struct.pack("<L", number)
        archive.write_bytes(data)
        with pytest.raises(InvalidInput):
            read_exported(archive)


def test_bombs_are_refused(archive: Path) -> None:
    """Compressed entries are refused before anything is expanded, large ones by their directory."""
    entries = read_entries(archive)
    for extra, reason in ((b"ab" * 1000, "MODEL_NOT_PT2"), (bytes(1 << 28), "MODEL_TOO_LARGE")):
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
            for name, data in (entries | {"extra/bomb": extra}).items():
                file.writestr(f"model/{name}", data)
        refusal(archive, reason)


def test_huge_directories_are_refused(archive: Path) -> None:
    """The directory is bounded before it is read."""
    with zipfile.ZipFile(archive, "w") as file:
        for index in range(30_000):
            file.writestr(f"m/extra/{'x' * 120}{index}", b"")
    assert "entries" in refusal(archive, "MODEL_TOO_LARGE")


def test_encrypted_entries_are_refused(archive: Path) -> None:
    """A reader without a key can only guess."""
    data = bytearray(archive.read_bytes())
    data[directory(data) + 8] |= 1
    archive.write_bytes(data)
    assert "encrypted" in refusal(archive, "MODEL_NOT_PT2")


def test_flipped_bytes_of_weights_are_found(archive: Path) -> None:
    """Checksums hold for mapped weights too."""
    data = bytearray(archive.read_bytes())
    data[data.index(b"data/weights/weight_0") + 200] ^= 1
    archive.write_bytes(data)
    assert "damaged" in refusal(archive, "MODEL_NOT_PT2")


@pytest.mark.parametrize("entry", ["models/model.json", WEIGHTS, CONSTANTS])
@pytest.mark.parametrize(
    "text", [b"[" * 100_000, b'{"a":' * 50_000, b"", b"\xff", b"[]", b'{"config": 1}', b"null"]
)
def test_malformed_json_is_refused(archive: Path, entry: str, text: bytes) -> None:
    """Deep, cut, undecodable and misplaced JSON."""
    write_entries(archive, read_entries(archive) | {entry: text})
    with pytest.raises(InvalidInput) as caught:
        read_exported(archive)
    assert caught.value.reason in ("MODEL_NOT_PT2", "MODEL_TOO_LARGE")


def test_large_json_is_refused(archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """JSON takes many times its size in memory."""
    monkeypatch.setattr("npn_core.exported.typed.MAX_JSON_BYTES", 1000)
    assert "1,000" in refusal(archive, "MODEL_TOO_LARGE")


def test_two_models_are_refused(archive: Path) -> None:
    """Nobody could say which one is meant."""
    entries = read_entries(archive)
    write_entries(archive, entries | {"models/second.json": entries["models/model.json"]})
    assert "2 models" in refusal(archive, "MODEL_NOT_PT2")


def test_missing_memory_is_not_a_refusal(archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The caller reports it: the model may be good."""

    def fail(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr("npn_core.exported.reading.check_shapes", fail)
    with pytest.raises(MemoryError):
        read_exported(archive)
