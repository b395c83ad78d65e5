"""Small networks of every structure that can be lifted, and how a test exports and compares them."""

import copy
import warnings
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.export import Dim, ExportedProgram, export
from torch.utils import _pytree as pytree

from npn_core.lift import lift

WAYS = ("train", "eval", "decomposed", "fixed")


class ResidualBlock(nn.Module):
    """Two convolutions with BatchNorm and a shortcut, in-place activation and sum."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(8)
        self.conv2 = nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(8)
        self.relu = nn.ReLU(inplace=True)
        self.shortcut = nn.Sequential(nn.Conv2d(3, 8, 1, stride=2, bias=False), nn.BatchNorm2d(8))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        y = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        y += self.shortcut(x)
        y = self.relu(y)
        return self.fc(torch.flatten(self.pool(y), 1))


class SqueezeExcite(nn.Module):
    """A depthwise-separable convolution whose channels are weighted by a small network."""

    def __init__(self) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(6, 6, 3, padding=1, groups=6)
        self.pointwise = nn.Conv2d(6, 12, 1)
        self.squeeze = nn.Conv2d(12, 4, 1)
        self.excite = nn.Conv2d(4, 12, 1)
        self.act = nn.Hardswish()

    def forward(self, x: Tensor) -> Tensor:
        """One value per channel."""
        y = self.act(self.pointwise(self.depthwise(x)))
        scale = F.adaptive_avg_pool2d(y, 1)
        scale = torch.sigmoid(self.excite(F.relu(self.squeeze(scale))))
        return (y * scale).mean((2, 3))


class DenseBlock(nn.Module):
    """Concatenation, average pooling and a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Conv2d(4 + 2 * i, 2, 3, padding=1) for i in range(3))
        self.norms = nn.ModuleList(nn.BatchNorm2d(4 + 2 * i, affine=i > 0) for i in range(3))
        self.pool = nn.AvgPool2d(2)
        self.fc = nn.Linear(10 * 9, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        features = [x]
        for layer, norm in zip(self.layers, self.norms, strict=True):
            features.append(layer(F.relu(norm(torch.cat(features, 1)))))
        y = self.pool(torch.cat(features, 1))
        return self.fc(y.view(y.size(0), -1))


class UNet(nn.Module):
    """A skip connection around a transposed convolution; GroupNorm."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Conv2d(2, 4, 3, stride=2, padding=1)
        self.norm = nn.GroupNorm(2, 4)
        self.up = nn.ConvTranspose2d(4, 4, 2, stride=2)
        self.out = nn.Conv2d(6, 2, 3, padding="same")

    def forward(self, x: Tensor) -> Tensor:
        """A map like the input."""
        y = self.up(F.silu(self.norm(self.down(x))))
        return self.out(torch.cat([x, y], dim=1))


class VisionTransformer(nn.Module):
    """Class token, position embeddings, nn.MultiheadAttention, an MLP."""

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 16, 4, stride=4)
        self.token = nn.Parameter(torch.randn(1, 1, 16))
        self.positions = nn.Parameter(torch.randn(1, 5, 16))
        self.norm1, self.norm2 = nn.LayerNorm(16), nn.LayerNorm(16, bias=False)
        self.attention = nn.MultiheadAttention(16, 2, dropout=dropout, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(16, 24), nn.GELU(), nn.Dropout(dropout), nn.Linear(24, 16))
        self.head = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        y = self.patches(x).flatten(2).transpose(1, 2)
        y = torch.cat([self.token.expand(x.shape[0], -1, -1), y], dim=1) + self.positions
        z = self.norm1(y)
        y = y + self.attention(z, z, z, need_weights=False)[0]
        y = y + self.mlp(self.norm2(y))
        return self.head(y[:, 0])


class PackedAttention(nn.Module):
    """Query, key and value from one layer; heads by reshape; scores written out."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(12, 36)
        self.out = nn.Linear(12, 12)

    def forward(self, x: Tensor) -> Tensor:
        """Tokens to tokens."""
        batch, length, width = x.shape
        q, k, v = self.qkv(x).reshape(batch, length, 3, 3, 4).permute(2, 0, 3, 1, 4).unbind(0)
        scores = (q @ k.transpose(-2, -1) * 0.5).softmax(-1)
        return self.out((scores @ v).transpose(1, 2).reshape(batch, length, width))


class EncoderLayers(nn.Module):
    """torch's own transformer layers, whose fast path must not be taken."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)

    def forward(self, x: Tensor) -> Tensor:
        """Tokens to tokens."""
        return self.encoder(x)


class TiedText(nn.Module):
    """An embedding whose weight is the output layer's as well."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(11, 8, padding_idx=0)
        self.norm = nn.LayerNorm(8)
        self.hidden = nn.Linear(8, 8)
        self.head = nn.Linear(8, 11, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, ids: Tensor) -> Tensor:
        """Logits for each token."""
        return self.head(torch.tanh(self.hidden(self.norm(self.embedding(ids)))))


class LayerScale(nn.Module):
    """A ConvNeXt block: depthwise convolution, LayerNorm over channels last, layer scale."""

    def __init__(self) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(4, 4, 3, padding=1, groups=4)
        self.norm = nn.LayerNorm(4)
        self.expand, self.reduce = nn.Linear(4, 16), nn.Linear(16, 4)
        self.gamma = nn.Parameter(torch.full((4,), 0.5))

    def forward(self, x: Tensor) -> Tensor:
        """A map like the input."""
        y = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        y = self.gamma * self.reduce(F.gelu(self.expand(y), approximate="tanh"))
        return x + y.permute(0, 3, 1, 2)


class SharedModules(nn.Module):
    """One layer called twice, and one layer under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.twice = nn.Linear(6, 6)
        self.norm = nn.BatchNorm1d(6, momentum=0.3)
        self.first = nn.Linear(6, 6)
        self.second = self.first
        self.act = nn.LeakyReLU(0.2)

    def forward(self, x: Tensor) -> Tensor:
        """Features."""
        y = self.act(self.twice(x))
        y = self.act(self.norm(self.twice(y)))
        return self.second(self.norm(self.first(y)))


class TwoInputs(nn.Module):
    """Two inputs, a dict and a list of outputs, a buffer, a constant."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(4, 6), nn.Linear(3, 6)
        self.register_buffer("shift", torch.arange(6.0), persistent=False)
        self.register_buffer("scale", torch.full((6,), 2.0))

    def forward(self, input: Tensor, extra: Tensor) -> dict[str, Any]:  # a builtin's name, as users choose it
        """Two heads and what they share."""
        both = self.left(input) * self.scale + self.right(extra) + self.shift + torch.tensor(1.5)
        first, second = both.chunk(2, dim=-1)
        return {"heads": [first, second], "both": both}


class Signals(nn.Module):
    """Conv1d, BatchNorm1d and pooling on signals."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(2, 4, 3)
        self.norm = nn.BatchNorm1d(4, track_running_stats=False)
        self.pool = nn.MaxPool1d(2)
        self.act = nn.PReLU(4)
        self.up = nn.ConvTranspose1d(4, 2, 2, stride=2, output_padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """A signal."""
        return self.up(self.act(self.pool(self.norm(self.conv(x)))))


class Volumes(nn.Module):
    """Conv3d, BatchNorm3d and pooling on volumes."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv3d(1, 4, 3, padding=1)
        self.norm = nn.BatchNorm3d(4)
        self.pool = nn.MaxPool3d(2)
        self.act = nn.ELU()
        self.fc = nn.Linear(32, 2)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        return self.fc(self.pool(self.act(self.norm(self.conv(x)))).flatten(1))


class RawWeights(nn.Module):
    """Weights under names of the user's own, computed weights, a weight used in two ways."""

    def __init__(self) -> None:
        super().__init__()
        self.matrix = nn.Parameter(torch.randn(5, 4))
        self.layer = nn.Linear(5, 5)

    def forward(self, x: Tensor) -> Tensor:
        """Features."""
        y = self.layer(F.linear(x, self.matrix))
        return F.linear(y, self.layer.weight * 0.5) @ self.layer.weight + F.glu(y.repeat(1, 2), -1)


def _images(channels: int, size: int = 8) -> Callable[[int], tuple[Tensor, ...]]:
    return lambda batch: (torch.randn(batch, channels, size, size),)


def _vectors(*widths: int) -> Callable[[int], tuple[Tensor, ...]]:
    return lambda batch: tuple(torch.randn(batch, width) for width in widths)


NETWORKS: dict[str, tuple[Callable[[], nn.Module], Callable[[int], tuple[Tensor, ...]]]] = {
    "residual block": (ResidualBlock, _images(3)),
    "squeeze-excite": (SqueezeExcite, _images(6)),
    "dense block": (DenseBlock, _images(4, 6)),
    "u-net": (UNet, _images(2)),
    "vision transformer": (VisionTransformer, _images(3)),
    "packed attention": (PackedAttention, lambda batch: (torch.randn(batch, 5, 12),)),
    "encoder layers": (EncoderLayers, lambda batch: (torch.randn(batch, 5, 8),)),
    "tied text": (TiedText, lambda batch: (torch.randint(0, 11, (batch, 5)),)),
    "layer scale": (LayerScale, _images(4, 5)),
    "shared modules": (SharedModules, _vectors(6)),
    "two inputs": (TwoInputs, _vectors(4, 3)),
    "signals": (Signals, lambda batch: (torch.randn(batch, 2, 11),)),
    "volumes": (Volumes, lambda batch: (torch.randn(batch, 1, 4, 4, 4),)),
    "raw weights": (RawWeights, _vectors(4)),
}


def exported(module: nn.Module, inputs: tuple[Tensor, ...], way: str) -> ExportedProgram:
    """The module's program, exported in one of `WAYS`; the module itself is copied first."""
    module = copy.deepcopy(module).train(way != "eval")
    batch = Dim("batch")
    shapes = None if way == "fixed" else tuple({0: batch} for _ in inputs)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = export(module, inputs, dynamic_shapes=shapes)
    return decomposed(program) if way == "decomposed" else program


def decomposed(program: ExportedProgram) -> ExportedProgram:
    """The program in torch's core operators."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch's own, about tree specs
        return program.run_decompositions()


def lifted(module: nn.Module, inputs: tuple[Tensor, ...], way: str = "train") -> fx.GraphModule:
    """The lifted copy of the module."""
    return lift(exported(module, inputs, way))


def outputs(module: nn.Module, inputs: tuple[Tensor, ...]) -> list[Tensor]:
    """All tensors that the module returns, in order."""
    return pytree.tree_leaves(module(*inputs))


def modules(graph: fx.GraphModule) -> dict[str, type[nn.Module]]:
    """Path and class of what the graph calls, in order."""
    paths = [str(node.target) for node in graph.graph.nodes if node.op == "call_module"]
    return {path: type(graph.get_submodule(path)) for path in paths}
