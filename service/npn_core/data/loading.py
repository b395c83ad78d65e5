"""From a dataset file to splits, in memory or mapped from files."""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from npn_core.config import Preprocessing
from npn_core.device import CPU
from npn_core.progress import DatasetInfo
from npn_core.report import AppliedPreprocessing

from .archive import Archive, refuse
from .batches import Data, TestData
from .contents import Contents
from .inspection import examine, held_out
from .opening import open_archive
from .preprocessing import check_preprocessing, resolve
from .room import Room
from .splits import Split
from .targets import target_dtype

# How inputs are stored, by their dtype in the archive.
_STORED = {
    "uint8": torch.uint8,
    "float16": torch.float32,
    "float32": torch.float32,
    "float64": torch.float32,
    "int32": torch.int64,
    "int64": torch.int64,
    "bool": torch.bool,
}
_PIXELS = (torch.uint8, torch.float32)


def arrange_inputs(info: DatasetInfo, names: Sequence[str]) -> DatasetInfo:
    """The same dataset with its inputs in the order of the network's input `names`.

    A network with one input takes a dataset with one input whatever its name.  Raises InvalidInput otherwise.
    """
    if not names or (len(names) == 1 and len(info.inputs) == 1):
        return info
    own = {one.name: one for one in info.inputs}
    if set(names) != set(own):
        raise refuse(
            "DATASET_NAMES",
            f"the network has the inputs {', '.join(names)}, the dataset {', '.join(own)}; "
            "name its arrays x_train.NAME, x_test.NAME after the network's inputs",
        )
    return replace(info, inputs=tuple(own[name] for name in names))


def load_dataset(
    path: Path,
    *,
    layout: str,
    preprocessing: Preprocessing,
    seed: int,
    inputs: Sequence[str] = (),
    uploaded_trained: bool = False,
    room: Room | None = None,
    device: torch.device = CPU,
) -> Data:
    """Read and split the training data; the test samples are not read.

    Without x_val a tenth of the training samples, drawn with `seed`, is held out.  Means and deviations are
    those of the training part.  `inputs` are the network's, in its order, as for `arrange_inputs`.  Batches come on
    `device`, and the samples lie there, too, where `room` holds them in memory.  Raises InvalidInput as
    `inspect_dataset` and `check_preprocessing` do, on NaN or infinities, and where `room` has no place for so much;
    OSError where the disk is full.
    """
    room = room or Room()
    archive = open_archive(path)
    info, contents = examine(archive, layout)
    info = arrange_inputs(info, inputs)
    check_preprocessing(preprocessing, info, uploaded_trained=uploaded_trained)
    read = SplitReader(archive, contents, info, layout, room, device)
    train = read("train")
    if "val" in contents.splits:
        validation = read("val")
    else:
        order = torch.randperm(len(train), generator=torch.Generator().manual_seed(seed)).to(train.device)
        held = held_out(len(train))
        validation = replace(train, rows=order[:held].sort().values)
        train = replace(train, rows=order[held:].sort().values)
    applied = resolve(preprocessing, train, info)
    return Data(
        train=train,
        validation=validation,
        info=info,
        preprocessing=applied,
        memory=room.memory,
        device=device,
    )


def load_test(
    path: Path,
    *,
    layout: str,
    preprocessing: AppliedPreprocessing,
    inputs: Sequence[str] = (),
    room: Room | None = None,
    device: torch.device = CPU,
) -> TestData:
    """The test split, preprocessed as the training data were.  To be called once, when nothing is left to decide."""
    archive = open_archive(path)
    info, contents = examine(archive, layout)
    info = arrange_inputs(info, inputs)
    test = SplitReader(archive, contents, info, layout, room or Room(), device)("test")
    return TestData(test=test, info=info, preprocessing=preprocessing, device=device)


class SplitReader:
    """Reads splits block by block into what `room` gives for the whole dataset; on `device` if that is memory."""

    def __init__(
        self,
        archive: Archive,
        contents: Contents,
        info: DatasetInfo,
        layout: str,
        room: Room,
        device: torch.device = CPU,
    ) -> None:
        self._archive, self._contents, self._info, self._layout = archive, contents, info, layout
        needed = sum(contents.samples.values()) * _sample_bytes(info)
        self._allocate = room.allocator(needed)
        self._device = device if needed <= room.memory else CPU

    def __call__(self, split: str) -> Split:
        """The split, raw; raises InvalidInput where numbers are not finite."""
        names, info = self._contents.x(split), self._info
        samples = self._contents.samples[split]
        x = tuple(
            self._fill(names[one.name], (samples, *one.shape), _STORED[one.dtype]) for one in info.inputs
        )
        if info.target == "none":
            return Split(x=x, y=None).to(self._device)
        y = self._fill(f"y_{split}", (samples, *info.target_shape), target_dtype(info))
        return Split(x=x, y=y).to(self._device)

    def _fill(self, name: str, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        whole = self._allocate(shape, dtype)
        done = 0
        for block in self._archive.blocks(name):
            part = torch.from_numpy(block)
            if self._layout == "NHWC" and name.startswith("x") and part.dim() == 4 and dtype in _PIXELS:
                part = part.permute(0, 3, 1, 2)
            target = whole[done : done + len(part)]
            target.copy_(part.reshape(target.shape))
            if dtype == torch.float32 and not bool(torch.isfinite(target).all()):
                raise refuse("DATASET_NOT_FINITE", f"{name} holds NaN or values that are infinite in float32")
            done += len(part)
        return whole


def _sample_bytes(info: DatasetInfo) -> int:
    """Of one sample as it is stored."""
    x = sum(math.prod(one.shape) * _STORED[one.dtype].itemsize for one in info.inputs)
    y = 0 if info.target == "none" else math.prod(info.target_shape) * target_dtype(info).itemsize
    return x + y
