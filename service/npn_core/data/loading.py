"""From a dataset file to the tensors that the network takes."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from npn_core.config import Preprocessing
from npn_core.errors import InvalidInput
from npn_core.progress import DatasetInfo
from npn_core.report import AppliedPreprocessing

from .archive import Archive, refuse
from .inspection import check_headers, held_out, inspect_dataset, open_archive, read_labels

_CONSTANT = 1e-6  # a channel whose deviation is below this share of the value range is left unscaled


@dataclass(frozen=True, kw_only=True, slots=True)
class Data:
    """The training and validation splits as the network takes them.

    x: float32, (N,C,H,W) or (N,F); y: int64 (N,) class numbers.  The test split is `load_test`'s.
    """

    x_train: Tensor
    y_train: Tensor
    x_val: Tensor
    y_val: Tensor
    info: DatasetInfo
    preprocessing: AppliedPreprocessing


def check_preprocessing(preprocessing: Preprocessing, info: DatasetInfo) -> None:
    """Raise InvalidInput where fixed means and deviations are not as many as the dataset's channels."""
    channels = _channels(info.input_shape)
    given = len(preprocessing.mean)
    if preprocessing.mode == "fixed" and given not in (0, channels):
        raise InvalidInput(
            "training.preprocessing.mean",
            f"mean and std have {given} entries; samples of shape {info.input_shape} need {channels} or none",
        )


def load_dataset(path: Path, *, layout: str, preprocessing: Preprocessing, seed: int) -> Data:
    """Read, split and preprocess the training data; the test samples are not read.

    Without x_val a tenth of the training samples, drawn with `seed`, is held out.  Means and deviations are
    those of the training part.  Raises InvalidInput as `inspect_dataset` does, and on NaN or infinities.
    """
    info = inspect_dataset(path, layout=layout)
    check_preprocessing(preprocessing, info)
    archive = open_archive(path)
    labels = read_labels(archive)
    x, y = _read_samples(archive, "x_train", layout), torch.from_numpy(labels.train)
    if labels.validation is not None:
        x_train, y_train = x, y
        x_val, y_val = _read_samples(archive, "x_val", layout), torch.from_numpy(labels.validation)
    else:
        order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
        val = order[: held_out(len(x))].sort().values
        train = order[held_out(len(x)) :].sort().values
        x_train, y_train, x_val, y_val = x[train], y[train], x[val], y[val]
    applied = _resolve(preprocessing, x_train)
    return Data(
        x_train=_preprocess(x_train, applied),
        y_train=y_train,
        x_val=_preprocess(x_val, applied),
        y_val=y_val,
        info=info,
        preprocessing=applied,
    )


def load_test(path: Path, *, layout: str, preprocessing: AppliedPreprocessing) -> tuple[Tensor, Tensor]:
    """x (N,C,H,W) or (N,F) and y (N,) of the test split, preprocessed as the training data were.

    To be called once, when nothing is left to decide.
    """
    archive = open_archive(path)
    check_headers(archive.headers, layout)
    x = _read_samples(archive, "x_test", layout)
    return _preprocess(x, preprocessing), torch.from_numpy(read_labels(archive).test)


def batches(data: Data, batch_size: int, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
    """One epoch of the training split in an order drawn from `generator`.

    The last batch is the rest; a rest of one sample joins the batch before, as BatchNorm cannot train on it.
    """
    order = torch.randperm(len(data.x_train), generator=generator)
    steps = steps_per_epoch(len(order), batch_size)
    for step in range(steps):
        end = (step + 1) * batch_size if step + 1 < steps else len(order)
        chosen = order[step * batch_size : end]
        yield data.x_train[chosen], data.y_train[chosen]


def steps_per_epoch(samples: int, batch_size: int) -> int:
    """How many batches `batches` yields."""
    whole, rest = divmod(samples, batch_size)
    return max(1, whole + (rest > 1))


def _channels(input_shape: tuple[int, ...]) -> int:
    """Flat samples have one channel."""
    return input_shape[0] if len(input_shape) > 1 else 1


def _read_samples(archive: Archive, name: str, layout: str) -> Tensor:
    """uint8 or float32, (N,C,H,W) or (N,F); raises InvalidInput on values that are not finite."""
    x = torch.from_numpy(archive.read(name))
    if x.dtype != torch.uint8:
        x = x.float()
        if not x.isfinite().all():
            raise refuse("DATASET_NOT_FINITE", f"{name} holds NaN, or values that are infinite in float32")
    if x.dim() == 3:
        return x.unsqueeze(1)
    return x.permute(0, 3, 1, 2).contiguous() if layout == "NHWC" else x


def _resolve(preprocessing: Preprocessing, x: Tensor) -> AppliedPreprocessing:
    """The numbers that `preprocessing` means for the training samples `x`."""
    channels = _channels(tuple(x.shape[1:]))
    scale, mean, std = 1.0, [0.0] * channels, [1.0] * channels
    if preprocessing.mode == "fixed":
        scale = preprocessing.scale if preprocessing.scale is not None else scale
        mean = list(preprocessing.mean) or mean
        std = list(preprocessing.std) or std
    elif preprocessing.mode == "auto" and x.dtype == torch.uint8:
        scale = 1 / 255
        mean, std = _moments(x, channels)
    return AppliedPreprocessing(scale=scale, mean=tuple(mean), std=tuple(std))


def _moments(x: Tensor, channels: int) -> tuple[list[float], list[float]]:
    """Mean and deviation of each channel of uint8 `x` scaled to [0, 1], exactly, from its histogram."""
    levels = torch.arange(256, dtype=torch.float64) / 255
    mean, std = [], []
    for channel in x.reshape(len(x), channels, -1).unbind(1):
        share = torch.bincount(channel.reshape(-1), minlength=256).double() / channel.numel()
        centre = (share * levels).sum()
        deviation = (share * (levels - centre) ** 2).sum().sqrt().item()
        mean.append(centre.item())
        std.append(deviation if deviation > _CONSTANT else 1.0)
    return mean, std


def _preprocess(x: Tensor, applied: AppliedPreprocessing) -> Tensor:
    """(x * scale - mean) / std in float32, computed in place on a copy of uint8 `x`, or on `x` itself."""
    x = x.float()
    shape = (1, -1, *[1] * (x.dim() - 2))
    mean = torch.tensor(applied.mean, dtype=torch.float32).reshape(shape)
    std = torch.tensor(applied.std, dtype=torch.float32).reshape(shape)
    return x.mul_(applied.scale).sub_(mean).div_(std)
