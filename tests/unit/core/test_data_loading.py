"""Splits, preprocessing and batches."""

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from npn_core.config import Preprocessing
from npn_core.data import (
    Data,
    Split,
    arrange_inputs,
    check_preprocessing,
    inspect_dataset,
    load_dataset,
    load_test,
)
from npn_core.errors import InvalidInput

Arrays = dict[str, NDArray[np.generic]]


def images(dtype: str = "uint8", **more: NDArray[np.generic]) -> Arrays:
    """Random colour images whose first pixel tells their number, with one class per ten."""
    rng = np.random.default_rng(1)
    x = rng.integers(0, 256, (50, 3, 4, 5)).astype(dtype)
    x[:, 0, 0, 0] = np.arange(50)
    return {"x_train": x, "y_train": np.arange(50) // 10, "x_test": x[:9], "y_test": np.arange(9) % 5} | more


def write(folder: Path, arrays: Arrays) -> Path:
    """The arrays as an npz."""
    np.savez(folder / "data.npz", **arrays)  # type: ignore[arg-type]
    return folder / "data.npz"


def load(path: Path, *, mode: Preprocessing | None = None, seed: int = 1, layout: str = "") -> Data:
    """`load_dataset` with defaults."""
    return load_dataset(path, layout=layout, preprocessing=mode or Preprocessing(), seed=seed)


def train(data: Data) -> Tensor:
    """The training samples in order, standardised."""
    return torch.cat([batch.x[0] for batch in data.training_batches(7)])


def validation(data: Data) -> Tensor:
    """The validation samples, standardised."""
    return torch.cat([batch.x[0] for batch in data.validation_batches(3)])


def labels(split: Split) -> list[int]:
    """The labels of a split."""
    y = split.take(slice(None))[1]
    assert y is not None
    return list(y.tolist())


def numbers(x: Tensor) -> list[int]:
    """Which images these are."""
    return [int(value) for value in x[:, 0, 0, 0]]


def test_hold_out_is_seeded_and_disjoint(tmp_path: Path) -> None:
    """A tenth goes to validation, the same for the same seed, labels with their samples."""
    path, none = write(tmp_path, images()), Preprocessing(mode="none")
    data, again, other = (load(path, mode=none, seed=seed) for seed in (1, 1, 2))
    assert sorted(numbers(train(data)) + numbers(validation(data))) == list(range(50))
    assert len(validation(data)) == data.info.validation_samples == 5
    assert labels(data.validation) == [number // 10 for number in numbers(validation(data))]
    assert labels(data.train) == [number // 10 for number in numbers(train(data))]
    assert numbers(validation(data)) == numbers(validation(again)) != numbers(validation(other))


def test_own_validation_split(tmp_path: Path) -> None:
    """With x_val every training sample trains."""
    val = images()["x_train"][:4]
    data = load(write(tmp_path, images(x_val=val, y_val=np.arange(4))), mode=Preprocessing(mode="none"))
    assert (len(train(data)), numbers(validation(data)), labels(data.validation)) == (
        50,
        [0, 1, 2, 3],
        [0, 1, 2, 3],
    )


def test_images_are_standardised_by_the_training_part(tmp_path: Path) -> None:
    """uint8 images get mean 0 and deviation 1 per channel over the training part, and that is recorded."""
    data = load(write(tmp_path, images()))
    assert train(data).dtype == torch.float32
    assert torch.allclose(train(data).mean((0, 2, 3)), torch.zeros(3), atol=1e-5)
    assert torch.allclose(train(data).std((0, 2, 3), correction=0), torch.ones(3), atol=1e-5)
    raw = load(write(tmp_path, images()), mode=Preprocessing(mode="none"))
    applied = data.preprocessing
    by_hand = (validation(raw)[:, 1] * applied.scale - applied.mean[1]) / applied.std[1]
    assert torch.allclose(validation(data)[:, 1], by_hand, atol=1e-6)
    assert applied.scale == 1 / 255


def test_flat_uint8_is_one_channel(tmp_path: Path) -> None:
    """Flat uint8 samples share one mean and one deviation."""
    flat = {
        name: array.reshape(len(array), -1) if name[0] == "x" else array for name, array in images().items()
    }
    data = load(write(tmp_path, flat))
    assert len(data.preprocessing.mean) == 1
    assert abs(train(data).mean().item()) < 1e-5


def test_constant_channel_is_not_blown_up(tmp_path: Path) -> None:
    """A channel without deviation becomes zero, not infinite."""
    arrays = images()
    for name in ("x_train", "x_test"):
        arrays[name][:, 2] = 100
    data = load(write(tmp_path, arrays))
    assert data.preprocessing.std[2] == 1.0
    assert train(data)[:, 2].abs().max() < 1e-6


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_floats_go_in_as_they_are(tmp_path: Path, dtype: str) -> None:
    """Under auto, floats are cast and nothing else."""
    path = write(tmp_path, images(dtype))
    data = load(path)
    assert data.preprocessing == load(path, mode=Preprocessing(mode="none")).preprocessing
    assert data.preprocessing.std == (1.0, 1.0, 1.0)
    expected = images(dtype)["x_train"][numbers(train(data))].astype("float32")
    assert np.array_equal(train(data).numpy(), expected)


def test_fixed_preprocessing(tmp_path: Path) -> None:
    """Given numbers are applied as (x * scale - mean) / std per channel."""
    fixed = Preprocessing(mode="fixed", scale=0.5, mean=(1.0, 2.0, 3.0), std=(1.0, 2.0, 4.0))
    path = write(tmp_path, images())
    raw, data = load(path, mode=Preprocessing(mode="none")), load(path, mode=fixed)
    assert torch.equal(train(data)[:, 2], (train(raw)[:, 2] * 0.5 - 3) / 4)


def test_fixed_preprocessing_of_another_channel_count(tmp_path: Path) -> None:
    """Means for other channels than the data's are refused on their field, before anything is read."""
    fixed = Preprocessing(mode="fixed", scale=1.0, mean=(0.0,), std=(1.0,))
    with pytest.raises(InvalidInput) as caught:
        check_preprocessing(fixed, inspect_dataset(write(tmp_path, images())), uploaded_trained=False)
    assert caught.value.field == "training.preprocessing.mean"


def test_layout_is_turned(tmp_path: Path) -> None:
    """N,H,W,C data give the same tensors as the same data in N,C,H,W."""
    turned = {
        name: array.transpose(0, 2, 3, 1) if name[0] == "x" else array for name, array in images().items()
    }
    (tmp_path / "b").mkdir()
    here, there = load(write(tmp_path, images())), load(write(tmp_path / "b", turned), layout="NHWC")
    assert torch.equal(train(here), train(there))
    assert here.preprocessing == there.preprocessing


@pytest.mark.parametrize(("dtype", "value"), [("f4", np.nan), ("f4", np.inf), ("f8", 1e300)])
@pytest.mark.parametrize("name", ["x_train", "x_val"])
def test_not_finite(tmp_path: Path, dtype: str, value: float, name: str) -> None:
    """NaN and infinities, in float32 too, are refused before training."""
    arrays = images(dtype, x_val=images(dtype)["x_train"][:4], y_val=np.arange(4))
    arrays[name][3, 1, 2, 2] = value
    with pytest.raises(InvalidInput, match=name) as caught:
        load(write(tmp_path, arrays))
    assert (caught.value.field, caught.value.reason) == ("dataset.uri", "DATASET_NOT_FINITE")


def test_test_samples_are_not_read_for_training(tmp_path: Path) -> None:
    """Whatever the test samples are, the training data are the same; `load_test` alone reads them."""
    data = load(write(tmp_path, images("f4")))
    broken = load(write(tmp_path, images("f4", x_test=np.full((9, 3, 4, 5), np.nan, "f4"))))
    assert torch.equal(train(data), train(broken))
    assert torch.equal(validation(data), validation(broken))
    with pytest.raises(InvalidInput, match="x_test"):
        load_test(tmp_path / "data.npz", layout="", preprocessing=broken.preprocessing)


def test_test_split_is_preprocessed_alike(tmp_path: Path) -> None:
    """The test split gets the training part's numbers."""
    path = write(tmp_path, images())
    data = load(path)
    test = load_test(path, layout="", preprocessing=data.preprocessing)
    x = torch.cat([batch.x[0] for batch in test.batches(4)])
    assert (len(test), labels(test.test)) == (9, images()["y_test"].tolist())
    raw = torch.from_numpy(images()["x_test"]).float()
    mean, std = (
        torch.tensor(v).reshape(1, 3, 1, 1) for v in (data.preprocessing.mean, data.preprocessing.std)
    )
    assert torch.allclose(x, (raw / 255 - mean) / std, atol=1e-5)


def pair(folder: Path) -> Path:
    """Two inputs: ids that tell the sample's number, and pixels that tell it too."""
    ids = np.arange(50, dtype=np.int32)[:, None].repeat(4, 1)
    pixels = np.arange(50, dtype=np.uint8)[:, None].repeat(6, 1)
    named = {"x_train.pixels": pixels, "x_test.pixels": pixels[:9], "x_train.ids": ids, "x_test.ids": ids[:9]}
    return write(folder, named | {"y_train": np.arange(50) // 10, "y_test": np.arange(9) % 5})


@pytest.mark.parametrize("names", [("pixels", "ids"), ("ids", "pixels")])
def test_inputs_come_in_the_order_of_the_network(tmp_path: Path, names: tuple[str, ...]) -> None:
    """The samples of all inputs stay together, in the order asked for, in every split."""
    path, none = pair(tmp_path), Preprocessing(mode="none")
    data = load_dataset(path, layout="", preprocessing=none, seed=1, inputs=names)
    test = load_test(path, layout="", preprocessing=data.preprocessing, inputs=names)
    assert tuple(one.name for one in data.info.inputs) == names
    for batch in (*data.training_batches(), *data.validation_batches(), *test.batches()):
        by_name = dict(zip(names, batch.x, strict=True))
        assert (by_name["ids"].dtype, by_name["pixels"].dtype) == (torch.int64, torch.float32)
        assert torch.equal(by_name["ids"][:, 0], by_name["pixels"][:, 0].long())


def test_inputs_of_other_names(tmp_path: Path) -> None:
    """Inputs that the network does not have are refused with both lists; a lone input fits by itself."""
    info = inspect_dataset(pair(tmp_path))
    with pytest.raises(InvalidInput, match=r"has the inputs a, b, the dataset ids, pixels") as caught:
        arrange_inputs(info, ("a", "b"))
    assert (caught.value.field, caught.value.reason) == ("dataset.uri", "DATASET_NAMES")
    lone = inspect_dataset(write(tmp_path, images()))
    assert arrange_inputs(lone, ("whatever",)) == lone


def test_samples_stay_raw(tmp_path: Path) -> None:
    """uint8 takes a byte each in memory."""
    data = load(write(tmp_path, images()))
    assert (data.train.x[0].dtype, data.validation.x[0].dtype) == (torch.uint8, torch.uint8)
