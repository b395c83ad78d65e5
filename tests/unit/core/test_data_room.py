"""Datasets larger than memory: the same samples, mapped from a file."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from test_data_parquet import encode, pixels, table, write

from npn_core.config import Preprocessing
from npn_core.data import Data, Room, load_dataset, load_test
from npn_core.errors import InvalidInput

IN_MEMORY = Room()
MAPPED = Room(memory=0)


def load(path: Path, room: Room, *, layout: str = "") -> Data:
    """`load_dataset` into that room."""
    return load_dataset(path, layout=layout, preprocessing=Preprocessing(), seed=3, room=room)


def npz(folder: Path) -> Path:
    """Images with class numbers, as uint8 H,W,C in both orders of memory, and floats of double precision."""
    x = pixels(40)
    np.savez(
        folder / "a.npz",
        x_train=np.asfortranarray(x),
        y_train=np.arange(40) % 4,
        x_test=x[:9],
        y_test=np.arange(9) % 4,
    )
    return folder / "a.npz"


def parquet(folder: Path) -> Path:
    """Shards in several row groups."""
    write(folder / "data", "train-00000-of-00002.parquet", 40, row_group_size=7)
    write(folder / "data", "train-00001-of-00002.parquet", 30, seed=2)
    write(folder / "data", "test-00000-of-00001.parquet", 12, seed=3)
    return folder / "data"


@pytest.mark.parametrize(("make", "layout"), [(npz, "NHWC"), (parquet, "")])
@pytest.mark.parametrize("augment", ["none", "crop-flip"])
def test_the_same_batches(tmp_path: Path, make: object, layout: str, augment: str) -> None:
    """Every batch, statistic and label is equal to the bit, in memory or mapped, in the same order."""
    path = make(tmp_path)  # type: ignore[operator]
    held, mapped = (load(path, room, layout=layout) for room in (IN_MEMORY, MAPPED))
    assert held.preprocessing == mapped.preprocessing
    for one, other in zip(
        [*held.batches(7, torch.Generator().manual_seed(1), augment), *held.validation_batches(3)],
        [*mapped.batches(7, torch.Generator().manual_seed(1), augment), *mapped.validation_batches(3)],
        strict=True,
    ):
        assert torch.equal(one.x[0], other.x[0])
        assert torch.equal(one.target, other.target)
        assert torch.equal(one.index, other.index)
    tests = [
        load_test(path, layout=layout, preprocessing=held.preprocessing, room=room)
        for room in (IN_MEMORY, MAPPED)
    ]
    assert torch.equal(tests[0].test.x[0], tests[1].test.x[0])


def test_files_have_no_name(tmp_path: Path) -> None:
    """What is mapped lies in the folder that was given, and nothing of it can be left behind."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    data = load(parquet(tmp_path), Room(memory=0, folder=folder))
    assert str(folder) in Path("/proc/self/maps").read_text()
    assert not list(folder.iterdir())
    del data
    assert str(folder) not in Path("/proc/self/maps").read_text()


def test_a_full_disk_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The space is taken before anything is written: a hole that cannot be filled would end the process."""

    def full(descriptor: int, offset: int, length: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OSError, match="No space left"):
        load(parquet(tmp_path), MAPPED)


def test_room_is_bounded(tmp_path: Path) -> None:
    """A dataset that takes more than the disk may give is refused with both sizes."""
    with pytest.raises(InvalidInput, match=r"bytes decoded; at most 1,000 here") as caught:
        load(parquet(tmp_path), Room(memory=10, disk=1000))
    assert caught.value.reason == "DATASET_TOO_LARGE"
    with pytest.raises(ValueError, match="memory <= disk"):
        Room(memory=2, disk=1)


MEASURE = """
import sys, torch
from pathlib import Path
from npn_core.config import Preprocessing
from npn_core.data import Room, load_dataset

def anonymous():
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("RssAnon")) << 10

def batches(path):
    room = Room(memory=int(sys.argv[3]))
    data = load_dataset(Path(path), layout="", preprocessing=Preprocessing(), seed=1, room=room)
    for batch in data.batches(32, torch.Generator()):
        yield sum(one.nbytes for one in data.train.x)

torch.set_num_threads(1)
list(batches(sys.argv[1]))  # imports, buffers of the decoders
before, most = anonymous(), 0
for size in batches(sys.argv[2]):
    most = max(most, anonymous())
print(size, most - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_is_bounded(tmp_path: Path) -> None:
    """A dataset several times larger than its memory trains within it: the rest is the kernel's page cache."""
    limit = 24 << 20  # well above what readers and decoders keep for themselves, which varies
    images = [encode(np.full((64, 64, 3), shade, np.uint8)) for shade in range(50)]
    for name, samples in (("small", 100), ("large", 7500)):
        rows = table([images[at % 50] for at in range(samples)], [at % 3 for at in range(samples)])
        pq.write_table(rows, tmp_path / name, row_group_size=500)
    command = [sys.executable, "-c", MEASURE, tmp_path / "small", tmp_path / "large", str(limit)]
    said = subprocess.run(command, capture_output=True, text=True, check=True)
    size, grown = map(int, said.stdout.split())
    assert size > 3 * limit
    assert grown < limit, f"{grown:,} bytes for a dataset of {size:,}"
