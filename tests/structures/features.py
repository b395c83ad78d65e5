"""Structures on features: reshapes, shared modules, several inputs and outputs."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .structure import Structure, floats

CLASSES = 5


class FlattenReshape(nn.Module):
    """An autoencoder: channels become features, features become channels again."""

    def __init__(self) -> None:
        super().__init__()
        self.encode = nn.Conv2d(1, 4, 3, stride=2, padding=1)
        self.neck = nn.Linear(4 * 4 * 4, 10)
        self.expand = nn.Linear(10, 6 * 4 * 4)
        self.mix = nn.Conv2d(6, 5, 3, padding=1)
        self.decode = nn.ConvTranspose2d(5, 1, 4, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.encode(x)).flatten(1)
        x = F.relu(self.expand(F.relu(self.neck(x))))
        x = x.reshape(x.shape[0], 6, 4, 4)
        return self.decode(F.relu(self.mix(x)))


class LayerNormMLP(nn.Module):
    """A chain normed over its features and a residual branch."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1 = nn.Linear(9, 12)
        self.norm1 = nn.LayerNorm(12)
        self.fc2 = nn.Linear(12, 20)
        self.norm2 = nn.LayerNorm(20)
        self.fc3 = nn.Linear(20, 12)
        self.head = nn.Linear(12, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = F.gelu(self.norm1(self.fc1(x)))
        x = x + self.fc3(F.gelu(self.norm2(self.fc2(x))))
        return self.head(x)


class SharedModule(nn.Module):
    """One trunk for two inputs, and one layer used twice in a row."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Linear(6, 8)
        self.step = nn.Linear(8, 8)
        self.head = nn.Linear(16, CLASSES)

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        left, right = F.relu(self.trunk(left)), F.relu(self.trunk(right))
        left = F.relu(self.step(F.relu(self.step(left))))
        return self.head(torch.cat([left, left - right], 1))


class SeveralInputs(nn.Module):
    """An image and a vector, concatenated once and multiplied once."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, padding=1)
        self.bn = nn.BatchNorm2d(6)
        self.scale = nn.Linear(4, 6)
        self.embed = nn.Linear(4, 5)
        self.fc = nn.Linear(11, 9)
        self.head = nn.Linear(9, CLASSES)

    def forward(self, image: Tensor, vector: Tensor) -> Tensor:
        x = F.relu(self.bn(self.conv(image))) * self.scale(vector)[:, :, None, None]
        x = torch.cat([x.mean((2, 3)), F.relu(self.embed(vector))], 1)
        return self.head(F.relu(self.fc(x)))


class SeveralOutputs(nn.Module):
    """A trunk with two heads; one output is an inner activation too."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.trunk = nn.Linear(8, 10)
        self.scores = nn.Linear(10, CLASSES)
        self.box = nn.Linear(10, 4)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        pooled = F.relu(self.conv(x)).mean((2, 3))
        x = F.relu(self.trunk(pooled))
        return {"scores": self.scores(x), "box": self.box(x), "pooled": pooled}


FEATURES = (
    Structure(
        name="flatten-reshape", coupling="flatten, reshape", build=FlattenReshape, inputs=floats((1, 8, 8))
    ),
    Structure(
        name="layer-norm", coupling="statistics over features", build=LayerNormMLP, inputs=floats((9,))
    ),
    Structure(
        name="shared-module", coupling="a module used twice", build=SharedModule, inputs=floats((6,), (6,))
    ),
    Structure(
        name="several-inputs",
        coupling="two inputs, product and concatenation",
        build=SeveralInputs,
        inputs=floats((3, 8, 8), (4,)),
    ),
    Structure(
        name="several-outputs",
        coupling="three outputs, one of them inner",
        build=SeveralOutputs,
        inputs=floats((3, 8, 8)),
    ),
)
