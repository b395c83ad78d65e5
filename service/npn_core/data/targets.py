"""What the network is to learn: class numbers, values, or nothing but another network's answers."""

from dataclasses import dataclass

import torch

from npn_core.errors import InvalidInput
from npn_core.progress import DatasetInfo

from .archive import Archive, refuse
from .contents import Contents

MAX_CLASSES = 1 << 16
_BYTE_CLASSES = 256


@dataclass(frozen=True, kw_only=True, slots=True)
class TargetInfo:
    """`kind` is "classes", "values" or "none"; the rest as in `DatasetInfo`."""

    kind: str
    classes: int
    shape: tuple[int, ...]


def inspect_targets(archive: Archive, contents: Contents) -> TargetInfo:
    """What the targets are, all class numbers checked; raises InvalidInput."""
    if not contents.labelled:
        return TargetInfo(kind="none", classes=0, shape=())
    header = archive.headers["y_train"]
    if header.dtype.kind == "f":
        return TargetInfo(kind="values", classes=0, shape=header.shape[1:])
    classes = _check_range(archive, "y_train", MAX_CLASSES) + 1
    if classes < 2:
        raise refuse("DATASET_LABELS", "y_train holds the label 0 alone; there must be at least two classes")
    for split in contents.splits[1:]:
        _check_range(archive, f"y_{split}", classes)
    return TargetInfo(kind="classes", classes=classes, shape=header.shape[1:])


def target_dtype(info: DatasetInfo) -> torch.dtype:
    """How targets are stored: one class number per sample as int64; one per position in less, as they are many."""
    if info.target == "values":
        return torch.float32
    if not info.target_shape:
        return torch.int64
    return torch.uint8 if info.classes <= _BYTE_CLASSES else torch.int32


def check_target(info: DatasetInfo, loss: str) -> None:
    """Raise InvalidInput where the dataset's targets are not what `training.loss` needs; distill needs none."""
    if loss == "distill":
        return
    if info.target == "none":
        raise refuse(
            "DATASET_NAMES",
            f"loss {loss} needs y_train and y_test, which the dataset lacks; add them or use loss distill",
        )
    if loss == "cross_entropy" and info.target != "classes":
        raise InvalidInput(
            "training.loss",
            "loss cross_entropy needs class numbers, and y_train holds floats; "
            "use loss mse, or store the class numbers as integers",
        )
    if loss == "mse" and info.target != "values":
        raise InvalidInput(
            "training.loss",
            "loss mse needs floats, and y_train holds integers; "
            "use loss cross_entropy for class numbers, or store the values as float32",
        )


def check_classifier(info: DatasetInfo) -> None:
    """Raise InvalidInput where the dataset is not for a catalogue network: one input of numbers, one class."""
    if len(info.inputs) > 1:
        raise refuse(
            "DATASET_NAMES", f"a network of the catalogue has one input; the dataset has {len(info.inputs)}"
        )
    if info.dtype != "uint8" and not info.dtype.startswith("float"):
        raise refuse(
            "DATASET_DTYPE",
            f"a network of the catalogue takes uint8 or floats; x_train has dtype {info.dtype}",
        )
    if info.target != "classes" or info.target_shape:
        found = "holds floats" if info.target == "values" else f"has {len(info.target_shape) + 1} axes"
        raise refuse(
            "DATASET_LABELS",
            "a network of the catalogue needs one class number per sample; "
            + ("the dataset has no y_train" if info.target == "none" else f"y_train {found}"),
        )


def _check_range(archive: Archive, name: str, classes: int) -> int:
    """The largest class number."""
    extremes = [(int(labels.min()), int(labels.max())) for labels in archive.blocks(name) if labels.size]
    low, high = min(low for low, _ in extremes), max(high for _, high in extremes)
    if low < 0 or high >= classes:
        raise refuse(
            "DATASET_LABELS",
            f"{name} holds labels from {low} to {high}; they must be class numbers from 0 to {classes - 1}"
            + ("" if name == "y_train" else ", the largest in y_train"),
        )
    return high
