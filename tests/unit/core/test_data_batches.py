"""Batches: their order, what they hold, and standardising on the fly."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from npn_core.data import Data, Split, steps_per_epoch
from npn_core.progress import DatasetInfo, InputInfo
from npn_core.report import AppliedPreprocessing

SHAPE = (3, 4, 5)


def data_of(x: tuple[Tensor, ...], y: Tensor | None, applied: AppliedPreprocessing | None = None) -> Data:
    """The same samples as training and validation split."""
    split = Split(x=x, y=y)
    dtypes = {torch.uint8: "uint8", torch.float32: "float32", torch.int64: "int64"}
    inputs = tuple(
        InputInfo(name=f"i{at}", shape=tuple(one.shape[1:]), dtype=dtypes[one.dtype])
        for at, one in enumerate(x)
    )
    info = DatasetInfo(
        train_samples=len(split),
        validation_samples=len(split),
        test_samples=1,
        inputs=inputs,
        target="none" if y is None else "classes",
        classes=0 if y is None else 5,
        target_shape=() if y is None else tuple(y.shape[1:]),
    )
    none = AppliedPreprocessing(scale=1.0, mean=(0.0,) * x[0].shape[1], std=(1.0,) * x[0].shape[1])
    return Data(train=split, validation=split, info=info, preprocessing=applied or none)


def images(n: int = 45) -> Data:
    """uint8 images whose first pixel tells their number, standardised by some numbers."""
    rng = np.random.default_rng(1)
    x = torch.from_numpy(rng.integers(0, 256, (n, *SHAPE), dtype=np.uint8))
    x[:, 0, 0, 0] = torch.arange(n)
    applied = AppliedPreprocessing(scale=1 / 255, mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7))
    return data_of((x,), torch.arange(n) // 10, applied)


def generator(seed: int = 3) -> torch.Generator:
    """A seeded one."""
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(
    ("batch_size", "sizes"),
    [(10, [10, 10, 10, 10, 5]), (11, [11, 11, 11, 12]), (45, [45]), (44, [45]), (100, [45]), (1, [1] * 45)],
)
@pytest.mark.parametrize("augment", ["none", "crop-flip"])
def test_an_epoch(batch_size: int, sizes: list[int], augment: str) -> None:
    """An epoch shows every sample once with its label and position; a rest of one joins its neighbour."""
    data = images()
    shown = list(data.batches(batch_size, generator(), augment))
    assert [len(batch) for batch in shown] == sizes
    assert len(sizes) == steps_per_epoch(45, batch_size)
    index = torch.cat([batch.index for batch in shown])
    assert sorted(index.tolist()) == list(range(45)) != index.tolist()
    assert torch.equal(torch.cat([batch.y for batch in shown]), index // 10)
    assert torch.equal(index, torch.randperm(45, generator=generator()))


@pytest.mark.parametrize("augment", ["none", "crop-flip"])
def test_batches_follow_their_generator(augment: str) -> None:
    """Order and augmentation come from the generator alone, and the next epoch has others."""
    data, one, two = images(), generator(), generator()
    first, same, next_epoch = (
        torch.cat([batch.x[0] for batch in data.batches(7, source, augment)]) for source in (one, two, one)
    )
    assert torch.equal(first, same)
    assert not torch.equal(first, next_epoch)


def test_samples_are_standardised() -> None:
    """(x * scale - mean) / std per channel; kept and fresh batches and those in order are equal to the bit."""
    kept, fresh = images(), replace(images(), memory=0)
    shown = list(kept.batches(7, generator()))
    again = list(fresh.batches(7, generator()))
    whole = torch.cat([batch.x[0] for batch in fresh.training_batches(4)])
    mean, std = (
        torch.tensor(v).view(1, 3, 1, 1) for v in (fresh.preprocessing.mean, fresh.preprocessing.std)
    )
    assert torch.allclose(whole, (fresh.train.x[0] / 255 - mean) / std, atol=1e-6)
    for one, other in zip(shown, again, strict=True):
        assert one.x[0].dtype == torch.float32
        assert torch.equal(one.x[0], other.x[0])
        assert torch.equal(one.x[0], whole[one.index])
    assert (len(kept._kept), len(fresh._kept)) == (1, 0)


def test_raw_samples_stay() -> None:
    """Handing out batches changes nothing that is stored."""
    data = images()
    before = data.train.x[0].clone()
    for augment in ("none", "crop-flip"):
        list(data.batches(7, generator(), augment))
    list(data.validation_batches(7))
    assert torch.equal(before, data.train.x[0])
    assert data.train.x[0].dtype == torch.uint8


def test_floats_are_not_copied() -> None:
    """Floats that go in as they are take their memory once."""
    x = torch.rand(9, 4)
    data = data_of((x,), torch.zeros(9, dtype=torch.int64))
    list(data.batches(3, generator()))
    assert data._kept[0][0].data_ptr() == x.data_ptr()


def test_in_order() -> None:
    """Chunks in order with positions, the last one the rest."""
    chunks = list(images(10).validation_batches(4))
    assert [chunk.index.tolist() for chunk in chunks] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert [len(chunk.x[0]) for chunk in chunks] == [4, 4, 2]
    assert chunks[0].y is not None


def test_samples_are_different_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    """However few fit into a chunk, as many as there are; then they are repeated."""
    monkeypatch.setattr("npn_core.data.splits.CHUNK_BYTES", 4 * 3 * 4 * 5 * 4)  # four images
    data = images(10)
    every = torch.cat([chunk.x[0] for chunk in data.validation_batches()])
    assert [len(x) for (x,) in data.first(9)] == [4, 4, 1]
    assert [len(x) for (x,) in data.first(1_000)] == [4, 4, 2]
    assert torch.equal(data.samples(9)[0], every[:9])
    assert torch.equal(data.samples(13)[0], every[torch.arange(13) % 10])


def test_several_inputs_and_no_target() -> None:
    """Every input of a sample goes together; token ids stay integers, and without targets y is None."""
    n = 12
    pixels = torch.arange(n, dtype=torch.uint8).view(n, 1).expand(n, 6).contiguous()
    ids = torch.arange(n).view(n, 1).expand(n, 3).contiguous()
    data = data_of((ids, pixels), None, AppliedPreprocessing(scale=2.0, mean=(1.0,), std=(1.0,)))
    for batch in data.batches(5, generator()):
        assert batch.y is None
        assert torch.equal(batch.x[0][:, 0], batch.index)
        assert batch.x[0].dtype == torch.int64
        assert torch.equal(batch.x[1][:, 0], batch.index * 2.0 - 1)


def test_class_numbers_per_position() -> None:
    """Targets that are stored in a byte each come as int64 for the loss."""
    y = torch.arange(12, dtype=torch.uint8).view(6, 2) % 5
    batch = next(data_of((torch.rand(6, 4),), y).batches(6, generator()))
    assert batch.y is not None
    assert batch.y.dtype == torch.int64
    assert torch.equal(batch.y, y[batch.index].long())
