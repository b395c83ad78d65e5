"""The npz reader against files that lie: nothing is unpickled, and every refusal is quick and says why."""

import io
import pickle
import struct
import time
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from npn_core.data import inspect_dataset
from npn_core.data.npz import NpzArchive
from npn_core.errors import InvalidInput

HEADER = "{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}\n"


def arrays() -> dict[str, NDArray[np.generic]]:
    """A good dataset."""
    return {
        "x_train": np.arange(20 * 16, dtype=np.uint8).reshape(20, 4, 4),
        "y_train": np.arange(20) % 3,
        "x_test": np.zeros((5, 4, 4), np.uint8),
        "y_test": np.arange(5) % 3,
    }


def npy(header: str, data: bytes, *, version: bytes = b"\x01\x00") -> bytes:
    """A .npy file with any header."""
    length = struct.pack("<H" if version == b"\x01\x00" else "<L", len(header))
    return b"\x93NUMPY" + version + length + header.encode() + data


def good_entries() -> dict[str, bytes]:
    """The zip entries of the good dataset."""
    entries = {}
    for name, array in arrays().items():
        buffer = io.BytesIO()
        np.save(buffer, array)
        entries[f"{name}.npy"] = buffer.getvalue()
    return entries


def write_zip(path: Path, entries: Mapping[str, bytes], method: int = zipfile.ZIP_STORED) -> Path:
    """A zip of these entries."""
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    return path


def refusal(path: Path) -> InvalidInput:
    """The error that inspecting the file gives, after the checks that hold for every refusal."""
    start = time.perf_counter()
    with pytest.raises(InvalidInput) as caught:
        inspect_dataset(path)
    assert time.perf_counter() - start < 1
    assert caught.value.field == "dataset.uri"
    assert str(path.parent) not in caught.value.message
    return caught.value


class Trap:
    """Writes a file when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (self.target,))


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["|u1", "<f4", ">f4", "<f2", "<f8"])
def test_reads_what_numpy_writes(tmp_path: Path, save, order: str, dtype: str) -> None:
    """Every dtype, byte order, memory order and compression of numpy.savez comes back equal."""
    array = np.asarray(np.random.default_rng(1).integers(0, 255, (7, 3, 5)).astype(dtype), order=order)
    save(tmp_path / "a.npz", x_train=array)
    read = np.concatenate(list(NpzArchive(tmp_path / "a.npz").blocks("x_train")))
    assert np.array_equal(read, array)
    assert read.flags.c_contiguous
    assert read.flags.writeable
    assert read.dtype.isnative


def test_reads_zip64(tmp_path: Path) -> None:
    """Archives with the large-file extension are read: numpy writes streams so."""
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in good_entries().items():
            with archive.open(name, "w", force_zip64=True) as file:
                file.write(data)
    assert inspect_dataset(path).train_samples == 18


def test_pickled_array_is_refused_and_not_loaded(tmp_path: Path) -> None:
    """An array of Python objects is refused by its header, and its pickle never runs."""
    touched = tmp_path / "touched"
    trapped = np.array([Trap(touched), Trap(touched)], dtype=object)
    np.savez(tmp_path / "a.npz", **(arrays() | {"y_train": trapped}), allow_pickle=True)
    assert refusal(tmp_path / "a.npz").reason == "DATASET_PICKLED"
    assert not touched.exists()


def test_bare_pickle_is_refused(tmp_path: Path) -> None:
    """A pickle is neither npz nor safetensors."""
    path = tmp_path / "a.npz"
    path.write_bytes(pickle.dumps(Trap(tmp_path / "touched")))
    assert refusal(path).reason == "DATASET_NOT_NPZ"
    assert not (tmp_path / "touched").exists()


@pytest.mark.parametrize("content", [b"", b"PK", b"PK\x03\x04", b"hello, world", b"PK\x03\x04" + bytes(200)])
def test_no_archive_is_refused(tmp_path: Path, content: bytes) -> None:
    """Files that are no archive are refused as such."""
    path = tmp_path / "a.npz"
    path.write_bytes(content)
    assert refusal(path).reason == "DATASET_NOT_NPZ"


def test_truncated_file_is_refused(tmp_path: Path) -> None:
    """An archive cut at any of many places is refused, whatever is left of it."""
    whole = write_zip(tmp_path / "whole.npz", good_entries()).read_bytes()
    path = tmp_path / "a.npz"
    for length in range(1, len(whole), 97):
        path.write_bytes(whole[:length])
        assert refusal(path).reason == "DATASET_NOT_NPZ"


def test_flipped_bytes_never_give_another_error(tmp_path: Path) -> None:
    """Random damage is refused as InvalidInput or goes unnoticed in samples, which are not read here."""
    whole = write_zip(tmp_path / "whole.npz", good_entries(), zipfile.ZIP_DEFLATED).read_bytes()
    path, rng, refused = tmp_path / "a.npz", np.random.default_rng(1), 0
    for _ in range(400):
        damaged = bytearray(whole)
        for position in rng.integers(0, len(whole), 3):
            damaged[position] = rng.integers(0, 256)
        path.write_bytes(damaged)
        try:
            inspect_dataset(path)
        except InvalidInput:
            refused += 1
    assert refused > 200


def test_damaged_samples_are_refused_when_read(tmp_path: Path) -> None:
    """Samples whose checksum does not hold are refused by the read that needs them."""
    path = tmp_path / "a.npz"
    np.savez(path, **(arrays() | {"x_train": np.full((20, 100, 100), 7, np.uint8)}))
    damaged = bytearray(path.read_bytes())
    damaged[damaged.rindex(b"\x07" * 1000)] ^= 1
    path.write_bytes(damaged)
    archive = NpzArchive(path)
    with pytest.raises(InvalidInput, match="x_train is damaged"):
        list(archive.blocks("x_train"))


def test_bomb_is_refused_by_its_directory(tmp_path: Path) -> None:
    """A small file that expands to much is refused before anything is expanded."""
    header = HEADER.format(descr="'|u1'", shape=(1 << 27,))
    bomb = npy(header, bytes(1 << 27))
    path = write_zip(tmp_path / "a.npz", {"x_train.npy": bomb}, zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 1 << 18
    assert refusal(path).reason == "DATASET_TOO_LARGE"


def test_too_many_entries_are_refused(tmp_path: Path) -> None:
    """The number of entries is bounded, and so is the directory before it is parsed."""
    few = write_zip(tmp_path / "a.npz", {f"{number}.npy": b"" for number in range(1001)})
    assert refusal(few).reason == "DATASET_TOO_LARGE"
    many = write_zip(tmp_path / "b.npz", {f"{number:0100d}.npy": b"" for number in range(10_000)})
    assert refusal(many).reason == "DATASET_TOO_LARGE"


@pytest.mark.parametrize("shape", [(20, 4, 5), (20, 4), (10**9, 4, 4), (2**70, 1), (20, 4, 4, 1, 1)])
def test_header_that_lies_about_its_shape_is_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    """The size that a header promises must be the size that the entry has."""
    header = HEADER.format(descr="'|u1'", shape=shape)
    path = write_zip(tmp_path / "a.npz", good_entries() | {"x_train.npy": npy(header, bytes(320))})
    assert refusal(path).reason in {"DATASET_NOT_NPZ", "DATASET_TOO_LARGE", "DATASET_SHAPES"}


@pytest.mark.parametrize(
    "header",
    [
        "",
        "{}",
        "{'descr': '|u1'}",
        "{'descr': '|u1', 'fortran_order': False, 'shape': (20, 4, 4), 'more': (1,)}",
        "{'descr': '|u1', 'fortran_order': False, 'shape': __import__('os').abort()}",
        "{'descr': [('a', '|u1')], 'fortran_order': False, 'shape': (20, 4, 4)}",
        "{'descr': True, 'fortran_order': False, 'shape': (20, 4, 4)}",
        "{'descr': '|u1', 'fortran_order': False, 'shape': (-20, 4, 4)}",
        "{'descr': '|u1', 'fortran_order': False, 'shape': (2 0, 4, 4)}",
        "(" * 3000,
        "-" * 3000 + "1",
        "{" * 3000,
        HEADER.format(descr="'|u1'", shape=(20, 4, 4)) + " " * 60_000,
        HEADER.format(descr="'<c8'", shape=(20, 4, 4)),
        HEADER.format(descr="'<U9'", shape=(20, 4, 4)),
        HEADER.format(descr="'|V9'", shape=(20, 4, 4)),
        HEADER.format(descr="'<M8[s]'", shape=(20, 4, 4)),
    ],
)
def test_odd_header_is_refused(tmp_path: Path, header: str) -> None:
    """A header that is not a plain array's is refused by its grammar, in no time."""
    path = write_zip(tmp_path / "a.npz", good_entries() | {"x_train.npy": npy(header, bytes(320))})
    assert refusal(path).reason in {"DATASET_DTYPE", "DATASET_NOT_NPZ", "DATASET_SHAPES"}


def test_huge_header_of_version_2_is_refused(tmp_path: Path) -> None:
    """A header length of gigabytes allocates nothing."""
    entry = b"\x93NUMPY\x02\x00" + struct.pack("<L", 0xFFFFFFF0) + b"{"
    path = write_zip(tmp_path / "a.npz", good_entries() | {"x_train.npy": entry})
    assert refusal(path).reason == "DATASET_DTYPE"


@pytest.mark.filterwarnings("ignore:Duplicate name:UserWarning")
def test_duplicate_names_are_refused(tmp_path: Path) -> None:
    """Two entries of one name could be checked as one and read as the other."""
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in [*good_entries().items(), ("x_train.npy", b"other")]:
            archive.writestr(name, data)
    assert refusal(path).reason == "DATASET_NAMES"


def test_encrypted_entries_are_refused(tmp_path: Path) -> None:
    """The encryption flag is refused before a password is asked for."""
    path = write_zip(tmp_path / "a.npz", good_entries())
    data = bytearray(path.read_bytes())
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        position = -1
        while (position := data.find(signature, position + 1)) >= 0:
            data[position + offset] |= 1
    path.write_bytes(data)
    assert refusal(path).reason == "DATASET_NOT_NPZ"


def test_path_names_are_only_names(tmp_path: Path) -> None:
    """Entries named like paths are ignored with a note; nothing is written anywhere."""
    folder = tmp_path / "in"
    folder.mkdir()
    extra = {"../x_train.npy": b"x", "/etc/y_train.npy": b"y", "a/b.npy": b"z"}
    info = inspect_dataset(write_zip(folder / "a.npz", good_entries() | extra))
    assert info.train_samples == 18
    assert "'../x_train'" in info.notes[0]
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a.npz", "in"]
