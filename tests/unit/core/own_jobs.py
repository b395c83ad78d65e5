"""Networks that users might upload, data for them, and jobs of both."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from compress_runs import loaded_outputs, write_dataset, write_model
from torch import Tensor, nn

from npn_core.config import Budget, ModelFile, Training
from npn_core.job import CompressJob

TRAINING = Training(epochs=8, batch_size=32, seed=2, lr=3e-3)
SAMPLES, TEST = 320, 80


class Regressor(nn.Module):
    """Six values to two, through two hidden layers."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2, self.out = nn.Linear(6, 24), nn.Linear(24, 16), nn.Linear(16, 2)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 6) -> (N, 2)."""
        return self.out(torch.tanh(self.fc2(torch.tanh(self.fc1(x)))))


class Scaled(Regressor):
    """The same with a buffer that is not stored, a constant, and a tensor that it makes itself."""

    gain: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("gain", torch.linspace(0.5, 1.5, 24), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 6) -> (N, 2)."""
        place = torch.arange(x.shape[1], device=x.device) / 6
        hidden = torch.tanh(self.fc1(x + place)) * self.gain
        return self.out(torch.tanh(self.fc2(hidden))) * torch.tensor([1.0, 2.0])


class Pictures(nn.Module):
    """A small classifier of images."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.norm = nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.conv2, self.fc = nn.Conv2d(8, 8, 3, padding=1), nn.Linear(8, 3)

    def features(self, x: Tensor) -> Tensor:
        """(N, 1, 6, 6) -> (N, 8)."""
        x = torch.relu(self.norm(self.conv1(x / 255)))
        return torch.relu(x + self.conv2(x)).mean((2, 3))

    def forward(self, image: Tensor) -> Tensor:
        """(N, 1, 6, 6) of 0 to 255 -> logits (N, 3)."""
        return self.fc(self.features(image))


class Residual(nn.Module):
    """A classifier of images with two residual branches, and a third that changes the number of channels."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.fc = nn.Conv2d(1, 8, 3, padding=1), nn.Linear(10, 3)
        self.conv1, self.norm1 = nn.Conv2d(8, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6)
        self.conv2, self.norm2 = nn.Conv2d(6, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.norm3, self.conv3 = nn.BatchNorm2d(8), nn.Conv2d(8, 5, 3, padding=1)
        self.conv4, self.scale = nn.Conv2d(5, 8, 1), nn.Parameter(torch.full((8, 1, 1), 0.5))
        self.conv5, self.conv6, self.side = nn.Conv2d(8, 7, 1), nn.Conv2d(7, 10, 1), nn.Conv2d(8, 10, 1)

    def forward(self, image: Tensor) -> Tensor:
        """(N, 1, 6, 6) of 0 to 255 -> logits (N, 3)."""
        x = torch.relu(self.stem(image / 255))
        x = torch.relu(self.first(x) + x)
        x = x + self.second(x)
        x = self.side(x) + self.conv6(torch.relu(self.conv5(x)))
        return self.fc(torch.relu(x).mean((2, 3)))

    def first(self, x: Tensor) -> Tensor:
        """The first branch."""
        return self.norm2(self.conv2(torch.relu(self.norm1(self.conv1(x)))))

    def second(self, x: Tensor) -> Tensor:
        """The second one, with a parameter of its own."""
        return self.scale * self.conv4(torch.relu(self.conv3(self.norm3(x))))


class Normed(nn.Module):
    """A classifier of images whose channels a GroupNorm holds."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.fc = nn.Conv2d(1, 8, 3), nn.GroupNorm(2, 8), nn.Linear(8, 3)

    def forward(self, image: Tensor) -> Tensor:
        """(N, 1, 6, 6) of 0 to 255 -> logits (N, 3)."""
        return self.fc(self.norm(self.conv(image / 255)).mean((2, 3)))


class TwoHeads(Pictures):
    """The classifier with a second output in front of it."""

    def __init__(self) -> None:
        super().__init__()
        self.side = nn.Linear(8, 4)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """(N, 1, 6, 6) -> a side output (N, 4), logits (N, 3)."""
        x = self.features(image)
        return {"side": self.side(x), "logits": self.fc(x)}


class PicturesAndValues(Pictures):
    """The classifier with a second input."""

    def __init__(self) -> None:
        super().__init__()
        self.values, self.joint = nn.Linear(5, 6), nn.Linear(14, 3)

    def forward(self, image: Tensor, extra: Tensor) -> Tensor:
        """(N, 1, 6, 6), (N, 5) -> logits (N, 3)."""
        return self.joint(torch.cat([self.features(image), torch.relu(self.values(extra))], 1))


def seeded(build: Callable[[], nn.Module], seed: int = 0) -> nn.Module:
    """The module initialised from a seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build()


def values(samples: int, seed: int, *, targets: bool = True) -> dict[str, np.ndarray]:
    """Six values, and two that follow from them."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((samples, 6)).astype(np.float32)
    y = np.stack([np.sin(x[:, 0]) + x[:, 1], x[:, 2] * 0.5 - x[:, 0]], 1).astype(np.float32)
    return {"x": x, "y": y} if targets else {"x": x}


def pictures(samples: int, seed: int, *, extra: bool = False) -> dict[str, np.ndarray]:
    """Dark, middling and bright images, with the class in one of five values too."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 3, samples)
    image = (rng.integers(0, 60, (samples, 1, 6, 6)) + 90 * y[:, None, None, None]).astype(np.uint8)
    if not extra:
        return {"x": image[:, 0], "y": y}
    more = rng.standard_normal((samples, 5)).astype(np.float32)
    more[:, 0] += y
    return {"x.extra": more, "x.image": image, "y": y}


def job_of(
    tmp_path: Path,
    module: nn.Module,
    shapes: list[tuple[int, ...]],
    data: Callable[..., dict[str, Any]],
    **options: bool,
) -> CompressJob:
    """A job on a file with this module and data of these shapes."""
    return CompressJob(
        model=ModelFile(path=write_model(tmp_path / "model.pt2", module, *shapes)),
        dataset=write_dataset(tmp_path / "data.npz", data(SAMPLES, 0, **options), data(TEST, 1, **options)),
        layout="",
        budget=Budget(max_params=200),
        training=TRAINING,
        output=tmp_path / "out",
    )


def accuracy_of(job: CompressJob) -> float:
    """The share of the test pictures that the artifact's program has right."""
    data = pictures(TEST, 1)
    found = loaded_outputs(job, torch.from_numpy(data["x"][:, None]).float())
    assert isinstance(found, Tensor)
    return float((found.argmax(1).numpy() == data["y"]).mean())
