"""Which arrays a dataset has, and whether they belong together: names, types and shapes, from headers alone."""

from collections.abc import Mapping
from dataclasses import dataclass

from npn_core.errors import InvalidInput
from npn_core.progress import InputInfo

from .archive import NAME, ArrayHeader, refuse

LAYOUTS = ("", "NCHW", "NHWC")
MAX_INPUTS = 32
MAX_SAMPLES = 1 << 24
UNNAMED = "x"

_PIXELS = ("u1", "f2", "f4", "f8")  # may be images
_AS_THEY_ARE = ("i4", "i8", "b1")  # token ids and masks


@dataclass(frozen=True, kw_only=True, slots=True)
class Contents:
    """The arrays of a dataset whose headers agree.

    `named` tells x_train.NAME from x_train; `splits` are "train", "val" where there is one, and "test".
    """

    inputs: tuple[InputInfo, ...]
    named: bool
    splits: tuple[str, ...]
    labelled: bool
    samples: Mapping[str, int]

    def x(self, split: str) -> dict[str, str]:
        """Names of the split's input arrays, by input."""
        return _x_names(split, tuple(i.name for i in self.inputs) if self.named else ())


def find_contents(headers: Mapping[str, ArrayHeader], layout: str) -> Contents:
    """What the arrays are; raises InvalidInput where they do not agree."""
    names = _input_names(headers)
    labelled = any(name.startswith("y_") for name in headers)
    validation = any(name[2:].startswith("val") for name in headers)
    splits = ("train", "val", "test") if validation else ("train", "test")
    _check_complete(headers, names, splits, labelled)
    for split in splits:
        samples = headers[next(iter(_x_names(split, names).values()))].shape[:1]
        for name, array in _x_names(split, names).items():
            _check_input(headers[array], headers[_x_names("train", names)[name]], samples)
        if labelled:
            _check_target(headers[f"y_{split}"], headers["y_train"], samples)
    counts = {split: headers[next(iter(_x_names(split, names).values()))].shape[0] for split in splits}
    if not validation and counts["train"] < 2:
        raise refuse("DATASET_EMPTY", "x_train has one sample; without x_val it needs at least 2")
    train = {name: headers[array] for name, array in _x_names("train", names).items()}
    _check_layout(train, layout)
    inputs = tuple(
        InputInfo(
            name=name,
            shape=sample_shape(header, layout, named=bool(names)),
            dtype=str(header.dtype.newbyteorder("=")),
        )
        for name, header in train.items()
    )
    return Contents(inputs=inputs, named=bool(names), splits=splits, labelled=labelled, samples=counts)


def sample_shape(x: ArrayHeader, layout: str, *, named: bool) -> tuple[int, ...]:
    """The shape of one sample as the network takes it.

    Images in an array without a channel axis get one; the arrays of named inputs are taken as they are.
    """
    sample = x.shape[1:]
    if x.dtype.str[1:] not in _PIXELS:
        return sample
    if len(sample) == 2 and not named:
        return (1, *sample)
    return (sample[2], sample[0], sample[1]) if layout == "NHWC" and len(sample) == 3 else sample


def _input_names(headers: Mapping[str, ArrayHeader]) -> tuple[str, ...]:
    """Names of the inputs, sorted; none where the one input has no name."""
    parts = [match for name in headers if (match := NAME.fullmatch(name)) and match[1]]
    names = sorted({match[3] for match in parts if match[3]})
    if names and any(match[3] is None for match in parts):
        raise refuse("DATASET_NAMES", f"the dataset has x_train or the like beside that of input {names[0]}")
    if len(names) > MAX_INPUTS:
        raise refuse("DATASET_NAMES", f"the dataset has {len(names)} inputs; at most {MAX_INPUTS}")
    return tuple(names)


def _x_names(split: str, names: tuple[str, ...]) -> dict[str, str]:
    return {name: f"x_{split}.{name}" for name in names} or {UNNAMED: f"x_{split}"}


def _check_complete(
    headers: Mapping[str, ArrayHeader], names: tuple[str, ...], splits: tuple[str, ...], labelled: bool
) -> None:
    required = {array for split in splits for array in _x_names(split, names).values()}
    if labelled:
        required |= {f"y_{split}" for split in splits}
    missing = sorted(required - set(headers))
    if missing:
        raise refuse(
            "DATASET_NAMES",
            f"the dataset lacks {', '.join(missing[:6])}; it needs x_train, y_train, x_test and y_test, "
            "and may have x_val and y_val; each x may be several, x_train.NAME by input; "
            "all y may be left out for loss distill",
        )


def _check_input(x: ArrayHeader, x_train: ArrayHeader, samples: tuple[int, ...]) -> None:
    code = x.dtype.str[1:]
    if code not in _PIXELS + _AS_THEY_ARE:
        raise refuse(
            "DATASET_DTYPE", f"{x.name} has dtype {x.dtype}; it must be uint8, a float, int32, int64 or bool"
        )
    if len(x.shape) < (2 if code in _PIXELS else 1):
        raise refuse("DATASET_SHAPES", f"{x.name} has shape {x.shape}; it must be N,F or N,H,W or N,C,H,W")
    if 0 in x.shape:
        raise refuse("DATASET_EMPTY", f"{x.name} has shape {x.shape}; it holds no data")
    if x.shape[0] > MAX_SAMPLES:
        raise refuse("DATASET_TOO_LARGE", f"{x.name} has {x.shape[0]:,} samples; at most {MAX_SAMPLES:,}")
    if x.shape[:1] != samples:
        raise refuse("DATASET_SHAPES", f"{x.name} has {x.shape[0]:,} samples, another input {samples[0]:,}")
    if x.shape[1:] != x_train.shape[1:]:
        raise refuse(
            "DATASET_SHAPES",
            f"samples of {x.name} have shape {x.shape[1:]}, those of {x_train.name} {x_train.shape[1:]}",
        )
    if x.dtype != x_train.dtype:
        raise refuse("DATASET_DTYPE", f"{x.name} has dtype {x.dtype}, {x_train.name} {x_train.dtype}")


def _check_target(y: ArrayHeader, y_train: ArrayHeader, samples: tuple[int, ...]) -> None:
    if y.dtype.kind not in "iuf":
        raise refuse(
            "DATASET_DTYPE", f"{y.name} has dtype {y.dtype}; it must be an integer class number or a float"
        )
    if (y.dtype.kind == "f") != (y_train.dtype.kind == "f"):
        raise refuse(
            "DATASET_DTYPE",
            f"{y.name} has dtype {y.dtype}, y_train {y_train.dtype}; both must be integer class numbers, "
            "or floats for loss mse",
        )
    alone = y.dtype.kind != "f" and y.shape[1:] == (1,)  # a class number in an axis of its own
    sample = () if alone else y_train.shape[1:]
    if y.shape != (*samples, *sample):
        raise refuse(
            "DATASET_SHAPES",
            f"{y.name} has shape {y.shape}; for its inputs and y_train it must be {(*samples, *sample)}",
        )
    if 0 in y.shape:
        raise refuse("DATASET_EMPTY", f"{y.name} has shape {y.shape}; it holds no data")


def _check_layout(train: Mapping[str, ArrayHeader], layout: str) -> None:
    if layout not in LAYOUTS:
        raise InvalidInput(
            "dataset.layout",
            f"unknown layout {layout!r:.20}; known: NCHW, NHWC, or none",
            reason="DATASET_LAYOUT",
        )
    if layout and not any(len(x.shape) == 4 and x.dtype.str[1:] in _PIXELS for x in train.values()):
        first = next(iter(train.values()))
        raise InvalidInput(
            "dataset.layout",
            f"layout {layout} is for images with a channel axis; {first.name} has shape {first.shape}",
            reason="DATASET_LAYOUT",
        )
