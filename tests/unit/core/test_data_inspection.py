"""What is known of a dataset before training."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import save_file

from npn_core.data import inspect_dataset
from npn_core.errors import InvalidInput
from npn_core.progress import InputInfo

Arrays = dict[str, NDArray[np.generic]]


def dataset(**changes: NDArray[np.generic] | None) -> Arrays:
    """A good dataset with arrays replaced, or left out where the change is None."""
    arrays: dict[str, NDArray[np.generic] | None] = {
        "x_train": np.zeros((20, 3, 8, 6), np.uint8),
        "y_train": np.arange(20) % 4,
        "x_test": np.zeros((5, 3, 8, 6), np.uint8),
        "y_test": np.arange(5) % 4,
    }
    return {name: array for name, array in (arrays | changes).items() if array is not None}


def write(folder: Path, arrays: Arrays) -> Path:
    """The arrays as an npz."""
    np.savez(folder / "data.npz", **arrays)  # type: ignore[arg-type]
    return folder / "data.npz"


def test_counts_and_shapes(tmp_path: Path) -> None:
    """Without x_val a tenth of the training samples counts as validation."""
    info = inspect_dataset(write(tmp_path, dataset()))
    assert (info.train_samples, info.validation_samples, info.test_samples) == (18, 2, 5)
    assert (info.input_shape, info.classes, info.dtype, info.notes) == ((3, 8, 6), 4, "uint8", ())


def test_validation_split_of_its_own(tmp_path: Path) -> None:
    """With x_val nothing is held out."""
    own = {"x_val": np.zeros((7, 3, 8, 6), np.uint8), "y_val": np.zeros(7, np.uint8)}
    info = inspect_dataset(write(tmp_path, dataset(**own)))
    assert (info.train_samples, info.validation_samples) == (20, 7)


@pytest.mark.parametrize(
    ("sample", "layout", "expected"),
    [
        ((12,), "", (12,)),
        ((8, 6), "", (1, 8, 6)),
        ((3, 8, 6), "", (3, 8, 6)),
        ((3, 8, 6), "NCHW", (3, 8, 6)),
        ((8, 6, 3), "NHWC", (3, 8, 6)),
    ],
)
def test_input_shape(tmp_path: Path, sample: tuple[int, ...], layout: str, expected: tuple[int, ...]) -> None:
    """Flat samples stay flat, images get a channel axis in front."""
    arrays = dataset(x_train=np.zeros((20, *sample), "f4"), x_test=np.zeros((5, *sample), "f4"))
    assert inspect_dataset(write(tmp_path, arrays), layout=layout).input_shape == expected


def test_notes(tmp_path: Path) -> None:
    """Arrays that are ignored, and images that look like H,W,C, are noted."""
    sample = np.zeros((20, 8, 8, 3), np.uint8)
    arrays = dataset(x_train=sample, x_test=sample[:5], basis=np.zeros(3), other=np.zeros(3))
    ignored, layout = inspect_dataset(write(tmp_path, arrays)).notes
    assert ignored == "ignored arrays: 'basis', 'other'"
    assert "NHWC" in layout


@pytest.mark.parametrize(
    ("changes", "reason", "words"),
    [
        ({"x_test": None, "y_train": None}, "DATASET_NAMES", "lacks x_test, y_train"),
        ({"x_val": np.zeros((5, 3, 8, 6), np.uint8)}, "DATASET_NAMES", "lacks y_val"),
        (
            {"x_train": np.zeros((0, 3, 8, 6), np.uint8), "y_train": np.zeros(0, int)},
            "DATASET_EMPTY",
            "x_train",
        ),
        ({"x_test": np.zeros((0, 3, 8, 6), np.uint8), "y_test": np.zeros(0, int)}, "DATASET_EMPTY", "x_test"),
        ({"x_train": np.zeros((1, 3, 8, 6), np.uint8), "y_train": np.ones(1, int)}, "DATASET_EMPTY", "2"),
        ({"x_test": np.zeros((5, 3, 8, 7), np.uint8)}, "DATASET_SHAPES", "x_test"),
        ({"y_test": np.zeros(4, int)}, "DATASET_SHAPES", "(5,)"),
        ({"y_train": np.zeros((20, 1), int)}, "DATASET_SHAPES", "(20,)"),
        ({"x_train": np.zeros(20, np.uint8)}, "DATASET_SHAPES", "N,F"),
        ({"x_train": np.zeros((20, 3, 8, 6), np.int32)}, "DATASET_DTYPE", "int32"),
        ({"x_test": np.zeros((5, 3, 8, 6), np.float32)}, "DATASET_DTYPE", "float32"),
        ({"y_test": np.zeros(5, np.float32)}, "DATASET_DTYPE", "integer"),
        ({"y_train": np.arange(20) - 1}, "DATASET_LABELS", "from -1 to 18"),
        ({"y_train": np.arange(20) * 10**6}, "DATASET_LABELS", "65535"),
        ({"y_test": np.arange(5)}, "DATASET_LABELS", "from 0 to 4"),
        ({"y_train": np.zeros(20, int)}, "DATASET_LABELS", "two classes"),
        ({"y_train": np.full(20, 2**64 - 1, np.uint64)}, "DATASET_LABELS", "18446744073709551615"),
    ],
)
@pytest.mark.parametrize("form", ["npz", "safetensors"])
def test_refusals(
    tmp_path: Path, form: str, changes: dict[str, NDArray[np.generic] | None], reason: str, words: str
) -> None:
    """Each wrong dataset is refused with its reason and words that help, in both formats."""
    arrays = dataset(**changes)
    if form == "npz":
        path = write(tmp_path, arrays)
    else:
        path = tmp_path / "data.safetensors"
        save_file(arrays, path)
    with pytest.raises(InvalidInput) as caught:
        inspect_dataset(path)
    assert (caught.value.field, caught.value.reason) == ("dataset.uri", reason)
    assert words in caught.value.message


def test_names_of_classes_are_refused(tmp_path: Path) -> None:
    """Labels are numbers; strings are refused by their dtype."""
    with pytest.raises(InvalidInput, match="y_train has dtype '<U3'") as caught:
        inspect_dataset(write(tmp_path, dataset(y_train=np.array(["cat", "dog"] * 10))))
    assert caught.value.reason == "DATASET_DTYPE"


@pytest.mark.parametrize(("sample", "layout"), [((8, 6), "NHWC"), ((12,), "NCHW"), ((3, 8, 6), "HWC")])
def test_layout_that_does_not_fit(tmp_path: Path, sample: tuple[int, ...], layout: str) -> None:
    """A layout is one of two, and for images with a channel axis."""
    arrays = dataset(x_train=np.zeros((20, *sample), "f4"), x_test=np.zeros((5, *sample), "f4"))
    with pytest.raises(InvalidInput) as caught:
        inspect_dataset(write(tmp_path, arrays), layout=layout)
    assert caught.value.field == "dataset.layout"


def test_safetensors(tmp_path: Path) -> None:
    """The same names in a safetensors file give the same."""
    arrays = dataset(other=np.zeros(3))
    save_file(arrays, tmp_path / "anything")
    assert inspect_dataset(tmp_path / "anything") == inspect_dataset(write(tmp_path, arrays))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"\xff\xff\xff\xff\xff\xff\xff\x7f{", "DATASET_TOO_LARGE"),
        (b"\x02\x00\x00\x00\x00\x00\x00\x00{]", "DATASET_NOT_NPZ"),
        (b"\x00\x00\x01\x00\x00\x00\x00\x00" + b"{" * 65536, "DATASET_NOT_NPZ"),
    ],
)
def test_bad_safetensors(tmp_path: Path, content: bytes, reason: str) -> None:
    """Headers that are too long or malformed are refused."""
    path = tmp_path / "data.safetensors"
    path.write_bytes(content)
    with pytest.raises(InvalidInput) as caught:
        inspect_dataset(path)
    assert caught.value.reason == reason


def test_folder_with_one_file(tmp_path: Path) -> None:
    """A folder with one file is that file."""
    (tmp_path / "set" / "inner").mkdir(parents=True)
    (tmp_path / "set" / ".hidden").write_text("")
    info = inspect_dataset(write(tmp_path / "set" / "inner", dataset()))
    assert inspect_dataset(tmp_path / "set") == info


def test_folders_that_are_no_dataset_and_missing_files(tmp_path: Path) -> None:
    """What is no dataset is refused without its path."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "two").mkdir()
    for name in ("a.npz", "b.npz"):
        write(tmp_path / "two", dataset()).rename(tmp_path / "two" / name)
    for path in (tmp_path / "empty", tmp_path / "two", tmp_path / "absent.npz"):
        with pytest.raises(InvalidInput) as caught:
            inspect_dataset(path)
        assert caught.value.reason == "DATASET_NOT_NPZ"
        assert str(tmp_path) not in caught.value.message


def several(**changes: NDArray[np.generic] | None) -> Arrays:
    """A good dataset of two inputs, with arrays replaced or left out."""
    ids, mask = np.zeros((20, 7), np.int32), np.ones((20, 7), bool)
    named = {"x_train.ids": ids, "x_test.ids": ids[:5], "x_train.mask": mask, "x_test.mask": mask[:5]}
    return dataset(**({"x_train": None, "x_test": None} | named | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize("form", ["npz", "safetensors"])
def test_several_inputs(tmp_path: Path, form: str) -> None:
    """Inputs are found by their names, sorted; token ids and masks are taken as they are."""
    path = write(tmp_path, several())
    if form == "safetensors":
        path = tmp_path / "data.safetensors"
        save_file(several(), path)
    info = inspect_dataset(path)
    assert info.inputs == (
        InputInfo(name="ids", shape=(7,), dtype="int32"),
        InputInfo(name="mask", shape=(7,), dtype="bool"),
    )
    assert (info.input_shape, info.dtype, info.train_samples, info.classes) == ((7,), "int32", 18, 4)


@pytest.mark.parametrize(
    ("x", "shape"),
    [
        (np.zeros((20, 6, 5), "f4"), (6, 5)),
        (np.zeros((20, 2, 3, 4, 5), "f4"), (2, 3, 4, 5)),
        (np.zeros(20, "i8"), ()),
    ],
)
def test_named_inputs_get_no_channel_axis(
    tmp_path: Path, x: NDArray[np.generic], shape: tuple[int, ...]
) -> None:
    """A named input is whatever the network takes: sequences, volumes, one number per sample."""
    changes = {"x_train.ids": x, "x_test.ids": x[:5]}
    assert inspect_dataset(write(tmp_path, several(**changes))).input_shape == shape


@pytest.mark.parametrize(
    ("changes", "reason", "words"),
    [
        ({"x_test.mask": None}, "DATASET_NAMES", "lacks x_test.mask"),
        ({"x_val.ids": np.zeros((3, 7), np.int32)}, "DATASET_NAMES", "lacks x_val.mask, y_val"),
        ({"x_train": np.zeros((20, 7), np.float32)}, "DATASET_NAMES", "beside"),
        ({"x_train.mask": np.ones((19, 7), bool)}, "DATASET_SHAPES", "19"),
        ({"x_train.ids": np.zeros((20, 7), np.int16)}, "DATASET_DTYPE", "int16"),
        ({"x_test.ids": np.zeros((5, 8), np.int32)}, "DATASET_SHAPES", "x_train.ids"),
        ({f"x_train.i{at}": np.zeros(20, np.int64) for at in range(31)}, "DATASET_NAMES", "33 inputs"),
    ],
)
def test_several_inputs_that_do_not_fit(
    tmp_path: Path, changes: dict[str, NDArray[np.generic] | None], reason: str, words: str
) -> None:
    """Every split has every input, of the same samples and types."""
    with pytest.raises(InvalidInput) as caught:
        inspect_dataset(write(tmp_path, several(**changes)))
    assert (caught.value.field, caught.value.reason) == ("dataset.uri", reason)
    assert words in caught.value.message


@pytest.mark.parametrize(
    "name", ["x_train.", "x_train.a/b", "x_train.a.b", "y_train.a", "x_train.9", "z_train"]
)
def test_other_names_are_ignored(tmp_path: Path, name: str) -> None:
    """An array whose name is no plain input's is none of the dataset, and is noted."""
    assert inspect_dataset(write(tmp_path, dataset(**{name: np.zeros(20)}))).notes == (
        f"ignored arrays: {name!r}",
    )


def test_layout_of_named_images(tmp_path: Path) -> None:
    """A layout turns every input of images, and no other."""
    images = np.zeros((20, 8, 6, 3), np.uint8)
    changes = {"x_train.mask": images, "x_test.mask": images[:5]}
    info = inspect_dataset(write(tmp_path, several(**changes)), layout="NHWC")
    assert [one.shape for one in info.inputs] == [(7,), (3, 8, 6)]
