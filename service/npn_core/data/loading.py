"""From a dataset file to splits in memory."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from npn_core.config import Preprocessing
from npn_core.progress import DatasetInfo
from npn_core.report import AppliedPreprocessing

from .archive import Archive, refuse
from .batches import Data, Split, TestData
from .contents import Contents
from .inspection import examine, held_out
from .opening import open_archive
from .preprocessing import check_preprocessing, resolve
from .targets import read_targets


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
) -> Data:
    """Read and split the training data; the test samples are not read.

    Without x_val a tenth of the training samples, drawn with `seed`, is held out.  Means and deviations are
    those of the training part.  `inputs` are the network's, in its order, as for `arrange_inputs`.  Raises
    InvalidInput as `inspect_dataset` and `check_preprocessing` do, and on NaN or infinities.
    """
    archive = open_archive(path)
    info, contents = examine(archive, layout)
    info = arrange_inputs(info, inputs)
    check_preprocessing(preprocessing, info, uploaded_trained=uploaded_trained)
    train = _read_split(archive, contents, info, "train", layout)
    if "val" in contents.splits:
        validation = _read_split(archive, contents, info, "val", layout)
    else:
        order = torch.randperm(len(train), generator=torch.Generator().manual_seed(seed))
        held = held_out(len(train))
        validation = _pick(train, order[:held].sort().values)
        train = _pick(train, order[held:].sort().values)
    applied = resolve(preprocessing, train.x, info)
    return Data(train=train, validation=validation, info=info, preprocessing=applied)


def load_test(
    path: Path, *, layout: str, preprocessing: AppliedPreprocessing, inputs: Sequence[str] = ()
) -> TestData:
    """The test split, preprocessed as the training data were.  To be called once, when nothing is left to decide."""
    archive = open_archive(path)
    info, contents = examine(archive, layout)
    info = arrange_inputs(info, inputs)
    test = _read_split(archive, contents, info, "test", layout)
    return TestData(test=test, info=info, preprocessing=preprocessing)


def _read_split(archive: Archive, contents: Contents, info: DatasetInfo, split: str, layout: str) -> Split:
    names = contents.x(split)
    x = tuple(_read_input(archive, names[one.name], one.shape, layout) for one in info.inputs)
    return Split(x=x, y=read_targets(archive, split, info))


def _read_input(archive: Archive, name: str, sample: tuple[int, ...], layout: str) -> Tensor:
    """(N, *sample) uint8, float32, int64 or bool."""
    x = torch.from_numpy(archive.read(name))
    if x.is_floating_point():
        x = x.float()
        if not bool(torch.isfinite(x).all()):
            raise refuse("DATASET_NOT_FINITE", f"{name} holds NaN or values that are infinite in float32")
    elif x.dtype == torch.int32:
        x = x.long()
    if layout == "NHWC" and x.dim() == 4 and x.dtype in (torch.uint8, torch.float32):
        x = x.permute(0, 3, 1, 2).contiguous()
    return x.reshape(len(x), *sample)


def _pick(split: Split, index: Tensor) -> Split:
    return Split(x=tuple(one[index] for one in split.x), y=None if split.y is None else split.y[index])
