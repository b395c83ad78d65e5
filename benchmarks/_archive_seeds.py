"""The good archives that the fuzzer changes: small models that use every part of the format."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

DIM = torch.export.Dim


class Residual(nn.Module):
    """Convolutions, BatchNorm, a shortcut, buffers of both kinds, a constant, dropout, nested outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4)
        self.conv2, self.drop, self.fc = nn.Conv2d(4, 4, 3, padding=1), nn.Dropout(0.5), nn.Linear(4, 5)
        self.scale: Tensor
        self.hidden: Tensor
        self.register_buffer("scale", torch.arange(1.0, 5.0))
        self.register_buffer("hidden", torch.ones(4), persistent=False)
        self.shift = torch.full((4,), 0.5)

    def forward(self, x: Tensor) -> dict[str, Any]:
        """(N, 3, 8, 8) to a dict."""
        y = self.bn1(self.conv1(x)).relu()
        features = (y + self.conv2(y)).mean((2, 3)) * self.scale + self.shift * self.hidden
        return {"logits": self.fc(self.drop(features)), "more": (features,)}


class Text(nn.Module):
    """Embedding tied to the output, attention with a mask, two inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.mix = nn.Embedding(11, 4), nn.TransformerEncoderLayer(4, 2, 8, batch_first=True)
        self.out = nn.Linear(4, 11, bias=False)
        self.out.weight = self.embed.weight

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """(N, 6) and (N, 6) to (N, 6, 11)."""
        mixed = self.mix(self.embed(tokens) * mask.unsqueeze(-1))
        scores: Tensor = self.out(mixed.masked_fill(mask.unsqueeze(-1) < 0, -1e9))
        return scores


class Sized(nn.Module):
    """Arithmetic of sizes: floor division, maxima, powers, reshapes, split and cat."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, stride=2)

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """(N, 3, H, W) to (N, ...) and parts."""
        y = nn.functional.interpolate(self.conv(x), size=(x.shape[2] // 4, x.shape[3] // 2))
        first, second = y.split(2, 1)
        return torch.cat([second, first], 1).reshape(y.shape[0], -1) / x.shape[3] ** 0.5, [first, second]


def save_seeds(folder: Path) -> dict[str, Path]:
    """Each model's archive, by name."""
    torch.manual_seed(0)
    image, tokens, mask = torch.randn(4, 3, 8, 8), torch.randint(0, 11, (3, 6)), torch.ones(3, 6)
    auto = {"x": {0: DIM.AUTO, 2: DIM.AUTO, 3: DIM.AUTO}}
    batch = DIM("batch")
    export = torch.export.export
    programs = {
        "residual-train": export(Residual(), (image,), dynamic_shapes={"x": {0: batch}}),
        "residual-decomposed": export(Residual().eval(), (image,)).run_decompositions(),
        "text": export(Text(), (tokens, mask), dynamic_shapes={"tokens": {0: batch}, "mask": {0: batch}}),
        "sized": export(Sized(), (torch.randn(2, 3, 16, 20),), dynamic_shapes=auto),
    }
    paths = {}
    for name, program in programs.items():
        paths[name] = folder / f"{name}.pt2"
        torch.export.save(program, paths[name])
    return paths
