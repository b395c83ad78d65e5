"""crop-flip against its definition, and where it is refused."""

import pytest
import torch
import torch.nn.functional as F

from npn_core.data import check_augment
from npn_core.data.augment import PADDING, CropFlip, image_input
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


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_every_image_is_a_crop_that_may_be_flipped(dtype: torch.dtype) -> None:
    """Each result is one of the 162 that zero padding by 4, cropping and flipping can give; all shifts occur."""
    n, (_, height, width) = 2000, IMAGE.shape
    x = torch.randint(1, 256, (1, *IMAGE.shape)).to(dtype).expand(n, -1, -1, -1)
    padded = F.pad(x[0], [4] * 4)
    crops = [padded[:, i : i + height, j : j + width] for i in range(9) for j in range(9)]
    possible = torch.stack([*crops, *(crop.flip(2) for crop in crops)])
    found = CropFlip.draw(len(x), torch.Generator().manual_seed(1), PADDING["crop-flip"]).of(x)
    same = (found[:, None] == possible[None]).flatten(2).all(2)
    assert found.dtype == dtype
    assert same.any(1).all()
    assert same.any(0).all()
    share = same.float().argmax(1).ge(81).float().mean().item()
    assert share == pytest.approx(0.5, abs=0.05)


def test_images_differ_within_a_batch() -> None:
    """Every image has its own shift and flip."""
    x = torch.arange(90, dtype=torch.uint8).view(1, 3, 6, 5).expand(64, -1, -1, -1)
    assert len(CropFlip.draw(len(x), torch.Generator().manual_seed(1), 4).of(x).unique(dim=0)) > 40


def test_flips_alone() -> None:
    """Without padding an image is as it was or mirrored, about as often."""
    x = torch.arange(90, dtype=torch.uint8).view(1, 3, 6, 5).expand(400, -1, -1, -1)
    found = CropFlip.draw(len(x), torch.Generator().manual_seed(1), PADDING["flip"]).of(x)
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
@pytest.mark.parametrize("augment", ["flip", "crop-flip"])
def test_refusals(wrong: DatasetInfo, augment: str) -> None:
    """Without images, with several, or with targets that lie in the image, both are refused by name."""
    with pytest.raises(InvalidInput, match=f"augment {augment} ") as caught:
        check_augment(wrong, augment)
    assert caught.value.field == "training.augment"
