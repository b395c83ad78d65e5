"""Standardising: which numbers a job's preprocessing means, and applying them.

The numbers are for pixels: every uint8 input, or where there is none the first input, if that is of floats.
Other floats, token ids and masks go in as they are.
"""

import torch
from torch import Tensor

from npn_core.config import Preprocessing
from npn_core.device import CPU
from npn_core.errors import InvalidInput
from npn_core.progress import DatasetInfo
from npn_core.report import AppliedPreprocessing

from .splits import Split

_CONSTANT = 1e-6  # a channel whose deviation is below this share of the value range is left unscaled


def pixel_inputs(info: DatasetInfo) -> tuple[int, ...]:
    """Positions of the inputs that the preprocessing is for."""
    pixels = tuple(at for at, one in enumerate(info.inputs) if one.dtype == "uint8")
    return pixels or ((0,) if info.dtype.startswith("float") else ())


def check_preprocessing(preprocessing: Preprocessing, info: DatasetInfo, *, uploaded_trained: bool) -> None:
    """Raise InvalidInput where the preprocessing does not fit the inputs.

    `uploaded_trained`: the network is the user's own and keeps its weights, so nobody but the user can know
    what it was trained on.
    """
    at, mode = "training.preprocessing", preprocessing.mode
    pixels = [info.inputs[position] for position in pixel_inputs(info)]
    if uploaded_trained and mode == "auto" and any(one.dtype == "uint8" for one in pixels):
        raise InvalidInput(
            f"{at}.mode",
            f"input {pixels[0].name} is uint8, and a trained network's own preprocessing is not known here; "
            "set mode fixed with the scale, mean and std that it was trained with "
            "(x * scale - mean) / std, or mode none if it takes 0 to 255",
        )
    if mode == "fixed" and not pixels:
        raise InvalidInput(
            f"{at}.mode", "mode fixed is for uint8 or float inputs; the dataset has none first"
        )
    channels = {_channels(one.shape) for one in pixels}
    if mode != "none" and len(channels) > 1:
        raise InvalidInput(
            f"{at}.mode",
            "uint8 inputs have different numbers of channels, so that no one mean and std fits; "
            "store them standardised, as floats",
        )
    given = len(preprocessing.mean)
    if mode == "fixed" and given and channels != {given}:
        raise InvalidInput(
            f"{at}.mean",
            f"mean and std have {given} entries; samples of shape {pixels[0].shape} need "
            f"{_channels(pixels[0].shape)} or none",
        )


def resolve(preprocessing: Preprocessing, train: Split, info: DatasetInfo) -> AppliedPreprocessing:
    """The numbers that `preprocessing` means for the training samples; those of the first pixel input."""
    pixels = pixel_inputs(info)
    if not pixels:
        return AppliedPreprocessing(scale=1.0, mean=(), std=())
    first = train.x[pixels[0]]
    channels = _channels(tuple(first.shape[1:]))
    scale, mean, std = 1.0, [0.0] * channels, [1.0] * channels
    if preprocessing.mode == "fixed":
        scale = preprocessing.scale if preprocessing.scale is not None else scale
        mean = list(preprocessing.mean) or mean
        std = list(preprocessing.std) or std
    elif preprocessing.mode == "auto" and first.dtype == torch.uint8:
        scale = 1 / 255
        mean, std = _moments(train, pixels[0], channels)
    return AppliedPreprocessing(scale=scale, mean=tuple(mean), std=tuple(std))


class Standardiser:
    """(x * scale - mean) / std in float32 as x * factor + offset: one multiplication and one addition."""

    def __init__(self, applied: AppliedPreprocessing, info: DatasetInfo, device: torch.device = CPU) -> None:
        self._pixels = frozenset(pixel_inputs(info))
        mean, std = (torch.tensor(values, dtype=torch.float64) for values in (applied.mean, applied.std))
        factor, offset = (applied.scale / std).float(), (-mean / std).float()
        self._identity = bool((factor == 1).all()) and bool((offset == 0).all())
        self._factor, self._offset = factor.to(device), offset.to(device)

    def added_bytes(self, x: tuple[Tensor, ...]) -> int:
        """Memory that the standardised inputs take beside `x`."""
        return sum(
            4 * one.numel() for at, one in enumerate(x) if at in self._pixels and not self._as_it_is(one)
        )

    def __call__(self, x: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """The inputs (N, ...) as the network takes them.  An input that needs nothing is itself, not a copy."""
        return tuple(self._pixel(one) if at in self._pixels else one for at, one in enumerate(x))

    def _as_it_is(self, x: Tensor) -> bool:
        return self._identity and x.dtype == torch.float32

    def _pixel(self, x: Tensor) -> Tensor:
        if self._identity:
            return x.float()
        shape = (1, -1, *[1] * (x.dim() - 2))
        # Not fused: then an entry does not depend on its place in the batch, and kept batches equal fresh ones.
        return (x * self._factor.view(shape)).add_(self._offset.view(shape))


def _channels(input_shape: tuple[int, ...]) -> int:
    """Flat samples have one channel."""
    return input_shape[0] if len(input_shape) > 1 else 1


def _moments(train: Split, position: int, channels: int) -> tuple[list[float], list[float]]:
    """Mean and deviation of each channel of a uint8 input scaled to [0, 1], exactly, from its histogram."""
    counts = torch.zeros(channels, 256, dtype=torch.int64)
    for _, x, _ in train.chunks():
        for channel, values in enumerate(x[position].reshape(len(x[position]), channels, -1).unbind(1)):
            counts[channel] += torch.bincount(values.reshape(-1), minlength=256).cpu()
    levels = torch.arange(256, dtype=torch.float64) / 255
    mean, std = [], []
    for share in counts.double() / counts.sum(1, keepdim=True):
        centre = (share * levels).sum()
        deviation = (share * (levels - centre) ** 2).sum().sqrt().item()
        mean.append(centre.item())
        std.append(deviation if deviation > _CONSTANT else 1.0)
    return mean, std
