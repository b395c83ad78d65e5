"""What can be known of a dataset before training: headers, names, shapes and labels, never the samples."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from npn_core.errors import InvalidInput
from npn_core.progress import DatasetInfo

from .archive import LABELS, SAMPLES, Archive, Array, ArrayHeader, refuse
from .npz import NpzArchive
from .tensors import SafetensorsArchive

LAYOUTS = ("", "NCHW", "NHWC")
MAX_SAMPLES = 1 << 24
MAX_CLASSES = 1 << 16
VALIDATION_FRACTION = 10  # one in ten training samples, where there is no x_val

_SPLITS = tuple(zip(SAMPLES, LABELS, strict=True))


@dataclass(frozen=True, kw_only=True, slots=True)
class Labels:
    """The label arrays, int64, checked to lie in 0..classes-1.  `validation` is None without y_val."""

    train: Array
    validation: Array | None
    test: Array
    classes: int


def open_archive(path: Path) -> Archive:
    """The arrays of a dataset file, in the format that its first bytes tell; headers are checked.

    Raises InvalidInput on "dataset.uri".
    """
    if path.is_file():
        with path.open("rb") as file:
            start = file.read(9)
        if start[:4] == b"PK\x03\x04":
            return NpzArchive(path)
        if start[8:] == b"{":
            return SafetensorsArchive(path)
    raise refuse("DATASET_NOT_NPZ", "the dataset must be one npz file (numpy.savez) or one safetensors file")


def inspect_dataset(path: Path, *, layout: str = "") -> DatasetInfo:
    """Check a dataset's headers and labels in bounded time and memory.

    Raises InvalidInput with field "dataset.uri" or "dataset.layout" and a reason DATASET_*.
    """
    archive = open_archive(path)
    input_shape = check_headers(archive.headers, layout)
    labels = read_labels(archive)
    train = len(labels.train)
    validation = held_out(train) if labels.validation is None else len(labels.validation)
    x_train = archive.headers["x_train"]
    return DatasetInfo(
        train_samples=train if labels.validation is not None else train - validation,
        validation_samples=validation,
        test_samples=len(labels.test),
        input_shape=input_shape,
        classes=labels.classes,
        dtype=str(x_train.dtype.newbyteorder("=")),
        notes=_notes(archive, x_train, layout),
    )


def held_out(samples: int) -> int:
    """How many of `samples` training samples become the validation split, where the dataset has none."""
    return max(1, samples // VALIDATION_FRACTION)


def check_headers(headers: Mapping[str, ArrayHeader], layout: str) -> tuple[int, ...]:
    """The shape of one sample as the network takes it; raises InvalidInput where the arrays do not agree."""
    required = {"x_train", "y_train", "x_test", "y_test"}
    if ("x_val" in headers) != ("y_val" in headers):
        required |= {"x_val", "y_val"}
    missing = sorted(required - set(headers))
    if missing:
        raise refuse(
            "DATASET_NAMES",
            f"the dataset lacks {', '.join(missing)}; it needs x_train, y_train, x_test and y_test, "
            "and may have x_val and y_val",
        )
    for x_name, y_name in _SPLITS:
        if x_name in headers:
            _check_split(headers[x_name], headers[y_name], headers["x_train"])
    if "x_val" not in headers and headers["x_train"].shape[0] < 2:
        raise refuse("DATASET_EMPTY", "x_train has one sample; without x_val it needs at least 2")
    return _input_shape(headers["x_train"], layout)


def read_labels(archive: Archive) -> Labels:
    """Every label array, checked; raises InvalidInput."""
    train = _read_label(archive, "y_train", MAX_CLASSES)
    classes = int(train.max()) + 1
    if classes < 2:
        raise refuse("DATASET_LABELS", "y_train holds the label 0 alone; there must be at least two classes")
    return Labels(
        train=train,
        validation=_read_label(archive, "y_val", classes) if "y_val" in archive.headers else None,
        test=_read_label(archive, "y_test", classes),
        classes=classes,
    )


def _read_label(archive: Archive, name: str, classes: int) -> Array:
    labels = archive.read(name)
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= classes:
        raise refuse(
            "DATASET_LABELS",
            f"{name} holds labels from {low} to {high}; they must be class numbers from 0 to {classes - 1}"
            + ("" if name == "y_train" else ", the largest in y_train"),
        )
    return labels.astype("int64")


def _check_split(x: ArrayHeader, y: ArrayHeader, x_train: ArrayHeader) -> None:
    if x.dtype.kind != "f" and x.dtype.str != "|u1":
        raise refuse("DATASET_DTYPE", f"{x.name} has dtype {x.dtype}; it must be uint8 or a float")
    if y.dtype.kind not in "iu":
        raise refuse("DATASET_DTYPE", f"{y.name} has dtype {y.dtype}; it must be an integer class number")
    if len(x.shape) < 2:
        raise refuse("DATASET_SHAPES", f"{x.name} has shape {x.shape}; it must be N,F or N,H,W or N,C,H,W")
    if len(y.shape) != 1 or y.shape[0] != x.shape[0]:
        raise refuse(
            "DATASET_SHAPES", f"{y.name} has shape {y.shape}; for {x.name} it must be ({x.shape[0]},)"
        )
    if 0 in x.shape:
        raise refuse("DATASET_EMPTY", f"{x.name} has shape {x.shape}; it holds no data")
    if x.shape[0] > MAX_SAMPLES:
        raise refuse("DATASET_TOO_LARGE", f"{x.name} has {x.shape[0]:,} samples; at most {MAX_SAMPLES:,}")
    if x.shape[1:] != x_train.shape[1:]:
        raise refuse(
            "DATASET_SHAPES",
            f"samples of {x.name} have shape {x.shape[1:]}, those of x_train {x_train.shape[1:]}",
        )
    if x.dtype != x_train.dtype:
        raise refuse("DATASET_DTYPE", f"{x.name} has dtype {x.dtype}, x_train {x_train.dtype}")


def _input_shape(x_train: ArrayHeader, layout: str) -> tuple[int, ...]:
    sample = x_train.shape[1:]
    if layout not in LAYOUTS:
        raise InvalidInput(
            "dataset.layout",
            f"unknown layout {layout!r:.20}; known: NCHW, NHWC, or none",
            reason="DATASET_LAYOUT",
        )
    if layout and len(sample) != 3:
        raise InvalidInput(
            "dataset.layout",
            f"layout {layout} is for images with a channel axis; x_train has shape {x_train.shape}",
            reason="DATASET_LAYOUT",
        )
    if len(sample) == 2:
        return (1, *sample)
    return (sample[2], sample[0], sample[1]) if layout == "NHWC" else sample


def _notes(archive: Archive, x_train: ArrayHeader, layout: str) -> tuple[str, ...]:
    notes = []
    if archive.ignored:
        shown = ", ".join(f"{name!r:.40}" for name in archive.ignored[:5])
        more = len(archive.ignored) - 5
        notes.append(f"ignored arrays: {shown}" + (f" and {more} more" if more > 0 else ""))
    sample = x_train.shape[1:]
    if len(sample) == 3 and not layout and sample[2] in (1, 3, 4) and sample[0] > 4:
        notes.append(f"samples of shape {sample} are read as C,H,W; if they are H,W,C set layout NHWC")
    return tuple(notes)
