"""Which inputs the preprocessing is for, and what a job must say of it."""

import math
from typing import Any

import pytest
import torch

from npn_core.config import Preprocessing
from npn_core.data import Split, check_preprocessing
from npn_core.data.preprocessing import Standardiser, pixel_inputs, resolve
from npn_core.errors import InvalidInput
from npn_core.progress import DatasetInfo, InputInfo
from npn_core.report import AppliedPreprocessing

RGB = InputInfo(name="rgb", shape=(3, 4, 4), dtype="uint8")
DEPTH = InputInfo(name="depth", shape=(1, 4, 4), dtype="uint8")
FLOATS = InputInfo(name="floats", shape=(3, 4, 4), dtype="float32")
IDS = InputInfo(name="ids", shape=(7,), dtype="int64")
FIXED = Preprocessing(mode="fixed", scale=0.5, mean=(1.0, 2.0, 3.0), std=(1.0, 2.0, 4.0))


def info(*inputs: InputInfo) -> DatasetInfo:
    """A dataset of these inputs."""
    return DatasetInfo(
        train_samples=9, validation_samples=1, test_samples=1, inputs=inputs, target="none", classes=0
    )


@pytest.mark.parametrize(
    ("inputs", "expected"),
    [
        ((RGB,), (0,)),
        ((FLOATS,), (0,)),
        ((FLOATS, FLOATS), (0,)),
        ((FLOATS, RGB), (1,)),
        ((IDS, RGB, RGB), (1, 2)),
        ((IDS,), ()),
        ((IDS, FLOATS), ()),
    ],
)
def test_pixel_inputs(inputs: tuple[InputInfo, ...], expected: tuple[int, ...]) -> None:
    """All of uint8, or else the first if it is of floats."""
    assert pixel_inputs(info(*inputs)) == expected


@pytest.mark.parametrize(
    ("numbers", "field"),
    [
        ({}, "scale"),
        ({"scale": 0.0}, "scale"),
        ({"scale": math.nan}, "scale"),
        ({"scale": 1.0, "mean": (math.inf,), "std": (1.0,)}, "mean"),
        ({"scale": 1.0, "mean": (0.0,), "std": (math.inf,)}, "std"),
        ({"scale": 1.0, "mean": (0.0,), "std": (0.0,)}, "std"),
    ],
)
def test_numbers_that_would_leave_nothing_of_an_input(numbers: dict[str, Any], field: str) -> None:
    """Refused before the job is queued."""
    with pytest.raises(InvalidInput) as refused:
        Preprocessing(mode="fixed", **numbers)
    assert refused.value.field == f"training.preprocessing.{field}"


@pytest.mark.parametrize("mode", [Preprocessing(mode="none"), FIXED])
@pytest.mark.parametrize("inputs", [(RGB,), (IDS, RGB)])
def test_a_trained_network_is_told_its_preprocessing(
    mode: Preprocessing, inputs: tuple[InputInfo, ...]
) -> None:
    """uint8 for a trained network of the user's needs a mode of its own, and the message says what to set."""
    check_preprocessing(mode, info(*inputs), uploaded_trained=True)
    check_preprocessing(Preprocessing(), info(*inputs), uploaded_trained=False)
    with pytest.raises(InvalidInput, match="set mode fixed with the scale, mean and std") as caught:
        check_preprocessing(Preprocessing(), info(*inputs), uploaded_trained=True)
    assert caught.value.field == "training.preprocessing.mode"


@pytest.mark.parametrize("inputs", [(FLOATS,), (IDS,)])
def test_floats_and_ids_need_no_word(inputs: tuple[InputInfo, ...]) -> None:
    """What goes in as it is needs no preprocessing."""
    check_preprocessing(Preprocessing(), info(*inputs), uploaded_trained=True)


@pytest.mark.parametrize(
    ("preprocessing", "inputs", "field"),
    [
        (FIXED, (IDS,), "mode"),
        (FIXED, (DEPTH,), "mean"),
        (FIXED, (RGB, DEPTH), "mode"),
        (Preprocessing(), (RGB, DEPTH), "mode"),
    ],
)
def test_numbers_that_fit_no_input(
    preprocessing: Preprocessing, inputs: tuple[InputInfo, ...], field: str
) -> None:
    """One mean and deviation per channel must fit every input that they are for."""
    with pytest.raises(InvalidInput) as caught:
        check_preprocessing(preprocessing, info(*inputs), uploaded_trained=False)
    assert caught.value.field == f"training.preprocessing.{field}"
    check_preprocessing(Preprocessing(mode="none"), info(*inputs), uploaded_trained=False)


def test_numbers_come_from_the_pixels() -> None:
    """Means are those of the first uint8 input, and go to every uint8 input; ids stay."""
    ids, left = torch.zeros(9, 7, dtype=torch.int64), torch.full((9, 3, 4, 4), 51, dtype=torch.uint8)
    both = info(IDS, RGB, RGB)
    applied = resolve(Preprocessing(), Split(x=(ids, left, left + 51), y=None), both)
    assert applied.mean == pytest.approx((0.2, 0.2, 0.2))
    assert applied.std == (1.0, 1.0, 1.0)
    x = Standardiser(applied, both)((ids, left, left + 51))
    assert x[0] is ids
    assert x[1].abs().max() < 1e-6
    assert torch.allclose(x[2], torch.full((9, 3, 4, 4), 0.2))


def test_nothing_to_standardise() -> None:
    """Without pixels there are no numbers."""
    ids = torch.zeros(9, 7, dtype=torch.int64)
    applied = resolve(Preprocessing(), Split(x=(ids,), y=None), info(IDS))
    assert applied == AppliedPreprocessing(scale=1.0, mean=(), std=())
    assert Standardiser(applied, info(IDS))((ids,))[0] is ids


def test_bytes_as_they_are() -> None:
    """Mode none makes floats of 0 to 255."""
    raw = torch.randint(0, 256, (5, 3, 4, 4), dtype=torch.uint8)
    applied = resolve(Preprocessing(mode="none"), Split(x=(raw,), y=None), info(RGB))
    assert torch.equal(Standardiser(applied, info(RGB))((raw,))[0], raw.float())
