"""Crops and flips against their definition, and where they are refused."""

import pytest
import torch
import torch.nn.functional as F

from npn_core.data import check_augment
from npn_core.data.augment import CropFlip, image_input, padding_of
from npn_core.errors import InvalidInput
from npn_core.progress import DatasetInfo, InputInfo

IMAGE = InputInfo(name="image", shape=(3, 6, 5), dtype="uint8")
VECTOR = InputInfo(name="vector", shape=(7,), dtype="float32")
IDS = InputInfo(name="ids", shape=(3, 6, 5), dtype="int64")


def info(*inputs: InputInfo, target: str = "classes", target_shape: tuple[int, ...] = ()) -> DatasetInfo:
    """A dataset of these inputs."""
    return DatasetInfo(
        train_samples=9,
        validation_samples=1,
        test_samples=1,
        inputs=inputs,
        target=target,
        classes=2,
        target_shape=target_shape,
    )


def draws(augment: str, x: torch.Tensor) -> torch.Tensor:
    """Augmented images, from a generator of the test's own."""
    return CropFlip.draw(len(x), torch.Generator().manual_seed(1), augment, tuple(x.shape[1:])).of(x)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
@pytest.mark.parametrize(("augment", "flips"), [("crop", False), ("crop-flip", True)])
def test_every_image_is_a_crop_that_may_be_flipped(dtype: torch.dtype, augment: str, flips: bool) -> None:
    """Each is one of those that padding by an eighth, cropping and flipping can give; all shifts occur."""
    x = torch.randint(1, 256, (1, 3, 16, 8)).to(dtype).expand(2000, -1, -1, -1)
    padded = F.pad(x[0], (1, 1, 2, 2))
    crops = [padded[:, i : i + 16, j : j + 8] for i in range(5) for j in range(3)]
    possible = torch.stack([*crops, *(crop.flip(2) for crop in crops if flips)])
    found = draws(augment, x)
    same = (found[:, None] == possible[None]).flatten(2).all(2)
    assert found.dtype == dtype
    assert same.any(1).all()
    assert same.any(0).all()
    mirrored = same.float().argmax(1).ge(len(crops)).float().mean().item()
    assert mirrored == pytest.approx(0.5 * flips, abs=0.05)


@pytest.mark.parametrize(
    ("augment", "size", "padding"),
    [
        ("crop-flip", (32, 32), (4, 4)),
        ("crop", (28, 28), (3, 3)),
        ("crop", (224, 64), (28, 8)),
        ("crop", (5, 1), (1, 1)),
        ("flip", (32, 32), (0, 0)),
    ],
)
def test_padding_follows_the_size(augment: str, size: tuple[int, int], padding: tuple[int, int]) -> None:
    """An eighth of each side, a pixel at least: 4 of CIFAR's 32."""
    assert padding_of(augment, *size) == padding


def test_images_differ_within_a_batch() -> None:
    """Every image has its own shift and flip."""
    x = torch.arange(3072, dtype=torch.int32).view(1, 3, 32, 32).expand(64, -1, -1, -1)
    assert len(draws("crop-flip", x).unique(dim=0)) > 40


def test_flips_alone() -> None:
    """Without crops an image is as it was or mirrored, about as often."""
    x = torch.arange(90, dtype=torch.uint8).view(1, 3, 6, 5).expand(400, -1, -1, -1)
    found = draws("flip", x)
    same, mirrored = ((found == image).flatten(1).all(1) for image in (x, x.flip(3)))
    assert (same | mirrored).all()
    assert mirrored.float().mean().item() == pytest.approx(0.5, abs=0.07)


def test_one_image_among_inputs() -> None:
    """The input of images is found among others."""
    assert image_input(info(VECTOR, IMAGE, IDS), "flip") == 1
    check_augment(info(VECTOR, IMAGE), "crop-flip")
    check_augment(info(IMAGE, target="values", target_shape=(4,)), "crop-flip")
    check_augment(info(VECTOR), "none")


@pytest.mark.parametrize(
    "wrong",
    [
        info(VECTOR),
        info(IDS),
        info(IMAGE, IMAGE),
        info(IMAGE, target_shape=(6, 5)),
        info(IMAGE, target_shape=(6,)),
        info(IMAGE, target="values", target_shape=(3, 6, 5)),
    ],
)
@pytest.mark.parametrize("augment", ["flip", "crop", "crop-flip"])
def test_refusals(wrong: DatasetInfo, augment: str) -> None:
    """Without images, with several, or with targets that lie in the image, both are refused by name."""
    with pytest.raises(InvalidInput, match=f"augment {augment} ") as caught:
        check_augment(wrong, augment)
    assert caught.value.field == "training.augment"
