"""Networks in the form that lifting gives: standard modules and functional aten operators, one graph."""

from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn

aten = torch.ops.aten


class Residual(nn.Module):
    """Convolutions with BatchNorm around a shortcut."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.conv2, self.bn2 = nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.relu, self.pool, self.fc = nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Linear(8, 4)

    def forward(self, image: Tensor) -> Tensor:
        """(N, 3, 8, 8) -> (N, 4)."""
        x = self.relu(self.bn1(self.conv1(image)))
        x = self.relu(aten.add.Tensor(self.bn2(self.conv2(x)), x))
        return self.fc(aten.flatten.using_ints(self.pool(x), 1, -1))


class Encoder(nn.Module):
    """Attention over words, with a mask, positions made on the CPU, and a head tied to the embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.positions = nn.Embedding(20, 12), nn.Parameter(torch.randn(1, 16, 12))
        self.norm, self.qkv, self.out = nn.LayerNorm(12), nn.Linear(12, 36), nn.Linear(12, 12)
        self.head = nn.Linear(12, 20, bias=False)
        self.head.weight = self.words.weight

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> dict[str, Tensor]:
        """Two integer tensors (N, 5) -> logits (N, 5, 20) and pooled (N, 12)."""
        batch, length = aten.sym_size.int(input_ids, 0), aten.sym_size.int(input_ids, 1)
        steps = aten.arange.default(length, device=torch.device("cpu"), pin_memory=False)
        x = aten.add.Tensor(self.words(input_ids), aten.index_select.default(self.positions, 1, steps))
        heads = aten.reshape.default(self.qkv(self.norm(x)), [batch, 5, 3, 2, 6])
        heads = aten.permute.default(heads, [2, 0, 3, 1, 4])
        query, key, value = (aten.select.int(heads, 0, index) for index in range(3))
        mask = aten.reshape.default(aten.ne.Scalar(attention_mask, 0), [batch, 1, 1, 5])
        mask = aten.expand.default(mask, [batch, 1, 5, 5])
        mixed = aten.scaled_dot_product_attention.default(query, key, value, mask)
        mixed = aten.reshape.default(aten.permute.default(mixed, [0, 2, 1, 3]), [batch, 5, 12])
        x = aten.add.Tensor(x, self.out(mixed))
        return {"logits": self.head(x), "pooled": aten.mean.dim(x, [1])}


class Merging(nn.Module):
    """Upsampling joined with a finer image, a flat side input, and nested outputs."""

    index: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.up, self.conv = nn.ConvTranspose2d(2, 3, 2, stride=2), nn.Conv2d(5, 2, 1)
        self.fc, self.dropout = nn.Linear(3, 4), nn.Dropout()
        self.register_buffer("index", torch.tensor([0, 2]), persistent=False)

    def forward(self, low: Tensor, high: Tensor, side: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """(N, 2, 4, 4), (N, 2, 8, 8), (N, 3) -> (N, 2, 8, 8), ((N, 2), (N, 2, 2))."""
        x = self.conv(aten.cat.default([self.up(low), high], 1))
        flat = aten.reshape.default(x, [aten.sym_size.int(x, 0), 2, 64])
        gram = aten.matmul.default(flat, aten.permute.default(flat, [0, 2, 1]))
        return x, (aten.index_select.default(self.dropout(self.fc(side)), 1, self.index), gram)


@dataclass(frozen=True, kw_only=True, slots=True)
class Lifted:
    """A graph in eval mode, a batch of two samples for it, and its inputs' names."""

    graph: fx.GraphModule
    example: tuple[Tensor, ...]
    names: tuple[str, ...]

    def batch(self, size: int) -> tuple[Tensor, ...]:
        """The example's samples in turn."""
        return tuple(x[torch.arange(size) % 2] for x in self.example)


def lift(module: nn.Module) -> fx.GraphModule:
    """The module's graph, in eval mode."""
    return fx.symbolic_trace(module.eval())


def residual() -> Lifted:
    """With statistics that are not those of a fresh BatchNorm."""
    torch.manual_seed(1)
    module = Residual()
    module(torch.randn(16, 3, 8, 8))
    return Lifted(graph=lift(module), example=(torch.randn(2, 3, 8, 8),), names=("image",))


def encoder() -> Lifted:
    """With a mask that hides the last word of the second sample."""
    torch.manual_seed(1)
    mask = torch.ones(2, 5, dtype=torch.int64)
    mask[1, -1] = 0
    example = (torch.randint(20, (2, 5)), mask)
    return Lifted(graph=lift(Encoder()), example=example, names=("input_ids", "attention_mask"))


def merging() -> Lifted:
    """Three inputs, three outputs."""
    torch.manual_seed(1)
    example = (torch.randn(2, 2, 4, 4), torch.randn(2, 2, 8, 8), torch.randn(2, 3))
    return Lifted(graph=lift(Merging()), example=example, names=("low", "high", "side"))


NETWORKS = {"residual": residual, "encoder": encoder, "merging": merging}
