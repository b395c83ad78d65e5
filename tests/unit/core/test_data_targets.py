"""Targets: class numbers, one or many per sample, values, and none; and which loss each is for."""

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from npn_core.config import Preprocessing
from npn_core.data import Data, check_classifier, check_target, inspect_dataset, load_dataset, load_test
from npn_core.errors import InvalidInput
from npn_core.progress import DatasetInfo, InputInfo


def write(folder: Path, y: NDArray[np.generic] | None, **more: NDArray[np.generic]) -> Path:
    """20 flat samples with these targets, the first 5 of them for testing too."""
    x = np.arange(60, dtype=np.float32).reshape(20, 3)
    arrays: dict[str, NDArray[np.generic]] = {"x_train": x, "x_test": x[:5]}
    if y is not None:
        arrays |= {"y_train": y, "y_test": y[:5]}
    np.savez(folder / "data.npz", **(arrays | more))  # type: ignore[arg-type]
    return folder / "data.npz"


def load(path: Path) -> Data:
    """`load_dataset` with defaults."""
    return load_dataset(path, layout="", preprocessing=Preprocessing(), seed=1)


def refusal(path: Path) -> InvalidInput:
    """The error that inspection gives."""
    with pytest.raises(InvalidInput) as caught:
        inspect_dataset(path)
    assert caught.value.field == "dataset.uri"
    return caught.value


@pytest.mark.parametrize("shape", [(), (7,), (4, 6)])
@pytest.mark.parametrize("dtype", ["u1", "i4", "i8"])
def test_class_numbers(tmp_path: Path, shape: tuple[int, ...], dtype: str) -> None:
    """One class number per sample or per position; a batch has them as int64 with their samples."""
    y = (np.arange(20 * int(np.prod(shape))) % 5).astype(dtype).reshape(20, *shape)
    data = load(write(tmp_path, y))
    assert (data.info.target, data.info.classes, data.info.target_shape) == ("classes", 5, shape)
    for batch in data.batches(4, torch.Generator().manual_seed(1)):
        rows = (batch.x[0][:, 0] / 3).long()
        assert batch.target.dtype == torch.int64
        assert np.array_equal(batch.target.numpy(), y[rows.numpy()])


def test_many_classes_per_position(tmp_path: Path) -> None:
    """More classes than a byte holds are not cut."""
    y = (np.arange(140) * 7).reshape(20, 7)
    data = load(write(tmp_path, y))
    assert data.info.classes == 139 * 7 + 1
    assert next(data.validation_batches(20)).target.max() > 255


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
@pytest.mark.parametrize("shape", [(), (1,), (2, 3)])
def test_values(tmp_path: Path, dtype: str, shape: tuple[int, ...]) -> None:
    """Floats of any shape are values, float32."""
    y = np.random.default_rng(1).random((20, *shape)).astype(dtype)
    path = write(tmp_path, y)
    data = load(path)
    assert (data.info.target, data.info.classes, data.info.target_shape) == ("values", 0, shape)
    test = next(load_test(path, layout="", preprocessing=data.preprocessing).batches())
    assert test.target.dtype == torch.float32
    assert np.array_equal(test.target.numpy(), y[:5].astype("f4"))


def test_no_targets(tmp_path: Path) -> None:
    """Without any y there is a validation and a test split all the same."""
    path = write(tmp_path, None)
    data = load(path)
    assert (data.info.target, data.info.classes, len(data.validation)) == ("none", 0, 2)
    assert next(data.batches(4, torch.Generator())).y is None
    assert next(load_test(path, layout="", preprocessing=data.preprocessing).batches()).y is None
    with pytest.raises(ValueError, match="no targets"):
        _ = next(data.batches(4, torch.Generator())).target


@pytest.mark.parametrize(
    ("y", "more", "reason", "words"),
    [
        (np.arange(20) % 3, {"y_test": np.zeros(5)}, "DATASET_DTYPE", "y_test has dtype float64"),
        (np.zeros(20), {"y_test": np.arange(5)}, "DATASET_DTYPE", "for loss mse"),
        (None, {"y_train": np.arange(20)}, "DATASET_NAMES", "lacks y_test"),
        (np.zeros((20, 3)), {"y_test": np.zeros((5, 4))}, "DATASET_SHAPES", "(5, 3)"),
        (np.zeros((20, 1), int), {}, "DATASET_SHAPES", "(20,)"),
        (np.zeros((20, 0)), {}, "DATASET_EMPTY", "y_train"),
        (np.zeros((20, 3), bool), {}, "DATASET_DTYPE", "bool"),
        (np.zeros((20, 3), complex), {}, "DATASET_DTYPE", "<c16"),
        (np.arange(60).reshape(20, 3) - 1, {}, "DATASET_LABELS", "from -1"),
        (np.arange(40).reshape(20, 2) % 3, {"y_test": np.full((5, 2), 3)}, "DATASET_LABELS", "from 0 to 2"),
    ],
)
def test_refusals(
    tmp_path: Path,
    y: NDArray[np.generic] | None,
    more: dict[str, NDArray[np.generic]],
    reason: str,
    words: str,
) -> None:
    """Targets that do not agree with each other are refused before anything is read of the samples."""
    error = refusal(write(tmp_path, y, **more))
    assert error.reason == reason
    assert words in error.message


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e300])
def test_values_that_are_not_finite(tmp_path: Path, value: float) -> None:
    """NaN and infinities, in float32 too, are refused when they are read."""
    y = np.zeros((20, 2))
    y[3, 1] = value
    with pytest.raises(InvalidInput, match="y_train") as caught:
        load(write(tmp_path, y))
    assert caught.value.reason == "DATASET_NOT_FINITE"


def info(target: str, shape: tuple[int, ...] = (), *inputs: InputInfo) -> DatasetInfo:
    """A dataset with such targets."""
    return DatasetInfo(
        train_samples=9,
        validation_samples=1,
        test_samples=1,
        inputs=inputs or (InputInfo(name="x", shape=(3, 8, 8), dtype="uint8"),),
        target=target,
        classes=5 if target == "classes" else 0,
        target_shape=shape,
    )


@pytest.mark.parametrize(
    ("target", "loss", "field"),
    [
        ("classes", "cross_entropy", None),
        ("values", "mse", None),
        ("none", "distill", None),
        ("classes", "distill", None),
        ("values", "distill", None),
        ("values", "cross_entropy", "training.loss"),
        ("classes", "mse", "training.loss"),
        ("none", "cross_entropy", "dataset.uri"),
        ("none", "mse", "dataset.uri"),
    ],
)
def test_which_loss_needs_which_target(target: str, loss: str, field: str | None) -> None:
    """The field that must change is the loss's, or the dataset's where it has no targets at all."""
    if field is None:
        check_target(info(target), loss)
        return
    with pytest.raises(InvalidInput, match=loss) as caught:
        check_target(info(target), loss)
    assert caught.value.field == field


@pytest.mark.parametrize(
    "wrong",
    [
        info("values", (3,)),
        info("none"),
        info("classes", (7,)),
        info("classes", (), InputInfo(name="x", shape=(7,), dtype="int64")),
        info("classes", (), *(InputInfo(name=name, shape=(7,), dtype="float32") for name in "ab")),
    ],
)
def test_what_a_catalogue_network_needs(wrong: DatasetInfo) -> None:
    """One input of pixels or floats, and one class number per sample."""
    check_classifier(info("classes"))
    with pytest.raises(InvalidInput, match="network of the catalogue"):
        check_classifier(wrong)
