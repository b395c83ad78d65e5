"""Structures on sequences: attention, embeddings, tied weights."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .structure import Structure, floats, tokens

CLASSES, VOCABULARY, LENGTH = 5, 30, 7


class TorchAttention(nn.Module):
    """PyTorch's own nn.MultiheadAttention beside a shortcut, normed after."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(6, 16)
        self.attention = nn.MultiheadAttention(16, 4, batch_first=True)
        self.norm = nn.LayerNorm(16)
        self.fc1 = nn.Linear(16, 24)
        self.fc2 = nn.Linear(24, 16)
        self.head = nn.Linear(16, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        x = self.norm(x + self.attention(x, x, x, need_weights=False)[0])
        x = x + self.fc2(F.relu(self.fc1(x)))
        return self.head(x.mean(1))


class EncoderBlock(nn.Module):
    """A pre-norm transformer block, queries, keys and values from one linear layer."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(dim)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        self.norm2 = nn.LayerNorm(dim)
        self.fc1 = nn.Linear(dim, 4 * dim)
        self.fc2 = nn.Linear(4 * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, dim = x.shape
        qkv = self.qkv(self.norm1(x)).reshape(batch, length, 3, self.heads, dim // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        gathered = F.scaled_dot_product_attention(q, k, v)
        x = x + self.proj(gathered.transpose(1, 2).reshape(batch, length, dim))
        return x + self.fc2(F.gelu(self.fc1(self.norm2(x))))


class Encoder(nn.Module):
    """Two blocks on tokens with learned positions and a class token."""

    def __init__(self) -> None:
        super().__init__()
        dim = 12
        self.embed = nn.Embedding(VOCABULARY, dim)
        self.cls_token = nn.Parameter(torch.randn(1, 1, dim))
        self.position = nn.Parameter(torch.randn(1, LENGTH + 1, dim))
        self.blocks = nn.Sequential(EncoderBlock(dim, 3), EncoderBlock(dim, 3))
        self.norm = nn.LayerNorm(dim)
        self.head = nn.Linear(dim, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([self.cls_token.expand(x.shape[0], -1, -1), self.embed(x)], 1) + self.position
        return self.head(self.norm(self.blocks(x))[:, 0])


class ScoredAttention(nn.Module):
    """Attention written out: products of queries and keys, softmax, product with the values."""

    heads, head_dim = 3, 5

    def __init__(self) -> None:
        super().__init__()
        inner = self.heads * self.head_dim
        self.embed = nn.Linear(6, 10)
        self.q = nn.Linear(10, inner)
        self.k = nn.Linear(10, inner)
        self.v = nn.Linear(10, inner)
        self.proj = nn.Linear(inner, 10)
        self.head = nn.Linear(10, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        shape = (x.shape[0], x.shape[1], self.heads, self.head_dim)
        q, k, v = (layer(x).view(shape).transpose(1, 2) for layer in (self.q, self.k, self.v))
        weights = torch.softmax(q @ k.transpose(-2, -1) / self.head_dim**0.5, dim=-1)
        x = x + self.proj((weights @ v).transpose(1, 2).flatten(2))
        return self.head(x.amax(1))


class GroupedQueries(nn.Module):
    """Several heads of queries for each of keys and values, which `expanded` views or copies for them."""

    def __init__(self, dim: int, *, expanded: bool) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.head_dim, self.expanded = 4, 2, 3, expanded
        self.q = nn.Linear(dim, self.heads * self.head_dim, bias=False)
        self.k = nn.Linear(dim, self.kv_heads * self.head_dim, bias=False)
        self.v = nn.Linear(dim, self.kv_heads * self.head_dim, bias=False)
        self.o = nn.Linear(self.heads * self.head_dim, dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, _ = x.shape
        q = self.q(x).view(batch, length, self.heads, self.head_dim).transpose(1, 2)
        k = self._repeat(self.k(x).view(batch, length, self.kv_heads, self.head_dim).transpose(1, 2))
        v = self._repeat(self.v(x).view(batch, length, self.kv_heads, self.head_dim).transpose(1, 2))
        x = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.o(x.transpose(1, 2).reshape(batch, length, self.heads * self.head_dim))

    def _repeat(self, x: Tensor) -> Tensor:
        times = self.heads // self.kv_heads
        if not self.expanded:
            return x.repeat_interleave(times, dim=1)
        batch, _, length, _ = x.shape
        x = x[:, :, None].expand(batch, self.kv_heads, times, length, self.head_dim)
        return x.reshape(batch, self.heads, length, self.head_dim)


class GroupedQueryDecoder(nn.Module):
    """Both ways of repeating keys and values, and a gated MLP; gives logits of every next token."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(VOCABULARY, 10)
        self.copied = GroupedQueries(10, expanded=False)
        self.viewed = GroupedQueries(10, expanded=True)
        self.norm = nn.LayerNorm(10)
        self.gate = nn.Linear(10, 16, bias=False)
        self.up = nn.Linear(10, 16, bias=False)
        self.down = nn.Linear(16, 10, bias=False)
        self.head = nn.Linear(10, VOCABULARY, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        x = x + self.copied(x)
        x = x + self.viewed(x)
        y = self.norm(x)
        x = x + self.down(F.silu(self.gate(y)) * self.up(y))
        return self.head(x)


class BagOfWords(nn.Module):
    """The mean of embeddings, classified."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(VOCABULARY, 12)
        self.fc = nn.Linear(12, 10)
        self.head = nn.Linear(10, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.fc(self.embed(x).mean(1))))


class TextConvolutions(nn.Module):
    """Embeddings read by convolutions of two widths, each pooled over time, concatenated."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(VOCABULARY, 8)
        self.short = nn.Conv1d(8, 6, 2)
        self.long = nn.Conv1d(8, 5, 3)
        self.head = nn.Linear(11, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x).transpose(1, 2)
        pooled = [F.relu(conv(x)).amax(2) for conv in (self.short, self.long)]
        return self.head(torch.cat(pooled, 1))


class TiedEmbedding(nn.Module):
    """The embedding's weight is the output's too."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(VOCABULARY, 10)
        self.fc1 = nn.Linear(10, 16)
        self.fc2 = nn.Linear(16, 10)
        self.head = nn.Linear(10, VOCABULARY, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        return self.head(x + self.fc2(F.gelu(self.fc1(x))))


_VECTORS = floats((LENGTH, 6))
_TOKENS = tokens(LENGTH, VOCABULARY)

SEQUENCES = (
    Structure(
        name="torch-attention", coupling="nn.MultiheadAttention", build=TorchAttention, inputs=_VECTORS
    ),
    Structure(
        name="transformer-encoder", coupling="pre-norm blocks, fused qkv", build=Encoder, inputs=_TOKENS
    ),
    Structure(
        name="scored-attention", coupling="attention by matmul", build=ScoredAttention, inputs=_VECTORS
    ),
    Structure(
        name="grouped-query-attention",
        coupling="keys and values repeated, gated MLP",
        build=GroupedQueryDecoder,
        inputs=_TOKENS,
    ),
    Structure(name="bag-of-words", coupling="embedding, mean", build=BagOfWords, inputs=_TOKENS),
    Structure(
        name="text-convolutions",
        coupling="embedding, Conv1d, concatenation",
        build=TextConvolutions,
        inputs=_TOKENS,
    ),
    Structure(
        name="tied-embedding", coupling="embedding tied to the output", build=TiedEmbedding, inputs=_TOKENS
    ),
)
