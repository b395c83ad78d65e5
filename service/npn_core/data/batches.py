"""The standardised batches that training and measuring take from raw splits."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from npn_core.device import CPU
from npn_core.progress import DatasetInfo
from npn_core.report import AppliedPreprocessing

from .augment import CropFlip, image_input
from .preprocessing import Standardiser
from .room import MEMORY_BYTES
from .splits import CHUNK, Split


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    """Samples as the network takes them, standardised; class numbers int64, values float32.

    `index` (n,) int64 are their positions in the split.  The tensors may be views: not to be written to.
    """

    x: tuple[Tensor, ...]
    y: Tensor | None
    index: Tensor

    def __len__(self) -> int:
        """Number of samples."""
        return len(self.index)

    def to(self, device: torch.device) -> "Batch":
        """The same on `device`."""
        x = tuple(one.to(device) for one in self.x)
        return Batch(x=x, y=None if self.y is None else self.y.to(device), index=self.index.to(device))

    @property
    def target(self) -> Tensor:
        """y, for those who know that the dataset has one (`check_target`)."""
        if self.y is None:
            raise ValueError("the dataset has no targets")
        return self.y


@dataclass(frozen=True, kw_only=True, slots=True)
class TestData:
    """The test split, for one look at the end."""

    test: Split
    info: DatasetInfo
    preprocessing: AppliedPreprocessing
    device: torch.device = CPU

    __test__ = False  # to pytest the name looks like a test

    def __len__(self) -> int:
        """Number of samples."""
        return len(self.test)

    def batches(self, chunk: int = CHUNK) -> Iterator[Batch]:
        """All samples in order, `chunk` at a time."""
        return _in_order(self.test, self.preprocessing, self.info, chunk, self.device)


@dataclass(frozen=True, kw_only=True, slots=True)
class Data:
    """The training and validation splits.  The test split is `load_test`'s.

    The training samples are standardised once, not batch by batch, where that takes less than `memory` bytes.
    Batches come on `device`, wherever the samples are stored.
    """

    train: Split
    validation: Split
    info: DatasetInfo
    preprocessing: AppliedPreprocessing
    memory: int = MEMORY_BYTES
    device: torch.device = CPU
    _kept: list[tuple[Tensor, ...]] = field(default_factory=list, init=False, repr=False, compare=False)

    def batches(
        self, batch_size: int, generator: torch.Generator, augment: str = "none", first: int = 0
    ) -> Iterator[Batch]:
        """One epoch of the training split in an order drawn from `generator`, and so is the augmentation.

        Batches before number `first`, from 0, are left out, but not their draws.  The last batch is the rest; a
        rest of one sample joins the batch before, as BatchNorm cannot train on it.  Raises InvalidInput as
        `check_augment` does.
        """
        image = None if augment == "none" else image_input(self.info, augment)
        place = self.train.device
        standardise = Standardiser(self.preprocessing, self.info, place)
        kept = self._standardised(standardise) if image is None else None
        order = torch.randperm(len(self.train), generator=generator).to(place)
        steps = steps_per_epoch(len(order), batch_size)
        for step in range(steps):
            end = (step + 1) * batch_size if step + 1 < steps else len(order)
            index = order[step * batch_size : end]
            crop = None
            if image is not None:
                crop = CropFlip.draw(len(index), generator, augment, self.info.inputs[image].shape)
            if step < first:
                continue
            where = self.train.where(index)
            if kept is not None:
                x = tuple(one[where] for one in kept)
            else:
                raw = [one[where] for one in self.train.x]
                if image is not None and crop is not None:
                    raw[image] = crop.to(place).of(raw[image])
                x = standardise(tuple(raw))
            y = None if self.train.y is None else _target(self.train.y[where])
            yield Batch(x=x, y=y, index=index).to(self.device)

    def training_batches(self, chunk: int = CHUNK) -> Iterator[Batch]:
        """The training split in order, not augmented, `chunk` at a time: for what a teacher says of it."""
        return _in_order(self.train, self.preprocessing, self.info, chunk, self.device)

    def validation_batches(self, chunk: int = CHUNK) -> Iterator[Batch]:
        """The validation split in order, `chunk` at a time."""
        return _in_order(self.validation, self.preprocessing, self.info, chunk, self.device)

    def first(self, number: int) -> Iterator[tuple[Tensor, ...]]:
        """The inputs of the first `number` validation samples, or of all, on the CPU; a chunk at a time."""
        left = number
        for batch in self.validation_batches(number):
            if left <= 0:
                return
            yield tuple(x[:left].to(CPU) for x in batch.x)
            left -= len(batch)

    def samples(self, number: int) -> tuple[Tensor, ...]:
        """`number` validation samples of each input, on the CPU; repeated where there are fewer."""
        found = [torch.cat(chunks) for chunks in zip(*self.first(number), strict=True)]
        return tuple(x[torch.arange(number) % len(x)].contiguous() for x in found)

    def _standardised(self, standardise: Standardiser) -> tuple[Tensor, ...] | None:
        """The stored samples standardised, the first time and then kept; None where that takes too much."""
        if not self._kept:
            if standardise.added_bytes(self.train.x) >= self.memory:
                return None
            self._kept.append(standardise(self.train.x))
        return self._kept[0]


def steps_per_epoch(samples: int, batch_size: int) -> int:
    """How many batches `Data.batches` yields."""
    whole, rest = divmod(samples, batch_size)
    return max(1, whole + (rest > 1))


def _in_order(
    split: Split, preprocessing: AppliedPreprocessing, info: DatasetInfo, chunk: int, device: torch.device
) -> Iterator[Batch]:
    standardise = Standardiser(preprocessing, info, split.device)
    for index, x, y in split.chunks(chunk):
        yield Batch(x=standardise(x), y=None if y is None else _target(y), index=index).to(device)


def _target(y: Tensor) -> Tensor:
    return y if y.is_floating_point() else y.long()
