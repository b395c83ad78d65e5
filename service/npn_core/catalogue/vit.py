"""Vision transformers (Dosovitskiy et al., arXiv:2010.11929) for small images."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from npn_core.errors import InvalidInput

from .images import chain, check_image, initialise_truncated

EPSILON = 1e-6


class Attention(nn.Module):
    """Multi-head self-attention: (N, T, dim) to the same shape."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q = nn.Linear(dim, dim)
        self.k = nn.Linear(dim, dim)
        self.v = nn.Linear(dim, dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """What each token gathers from all."""
        q, k, v = (_split_heads(project(x), self.heads) for project in (self.q, self.k, self.v))
        gathered = F.scaled_dot_product_attention(q, k, v)
        return self.proj(gathered.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


def _split_heads(x: Tensor, heads: int) -> Tensor:
    """(N, T, dim) -> (N, heads, T, dim / heads)."""
    return x.reshape(x.shape[0], x.shape[1], heads, -1).transpose(1, 2)


class Block(nn.Module):
    """Attention and an MLP, each on normed tokens and beside a shortcut; (N, T, dim) stays."""

    def __init__(self, dim: int, heads: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=EPSILON)
        self.attention = Attention(dim, heads)
        self.norm2 = nn.LayerNorm(dim, eps=EPSILON)
        self.mlp = chain(fc1=nn.Linear(dim, hidden), act=nn.GELU(), fc2=nn.Linear(hidden, dim))
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """The block's output."""
        x = x + self.dropout(self.attention(self.norm1(x)))
        return x + self.dropout(self.mlp(self.norm2(x)))  # type: ignore[no-any-return]


class ViT(nn.Module):
    """Patches and a class token with learned positions, `depth` blocks, a linear head on the class token."""

    def __init__(
        self,
        channels: int,
        classes: int,
        *,
        patch: int,
        tokens: int,
        dim: int,
        depth: int,
        heads: int,
        mlp_ratio: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.patches = nn.Conv2d(channels, dim, patch, stride=patch)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.position = nn.Parameter(torch.zeros(1, tokens + 1, dim))
        self.blocks = nn.Sequential(*(Block(dim, heads, mlp_ratio * dim, dropout) for _ in range(depth)))
        self.norm = nn.LayerNorm(dim, eps=EPSILON)
        self.head = nn.Linear(dim, classes)
        initialise_truncated(self)
        nn.init.trunc_normal_(self.cls_token, std=0.02, a=-0.04, b=0.04)
        nn.init.trunc_normal_(self.position, std=0.02, a=-0.04, b=0.04)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, classes) of images (N, C, H, W)."""
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls_token.expand(x.shape[0], -1, -1), x], 1) + self.position
        return self.head(self.norm(self.blocks(x)[:, 0]))  # type: ignore[no-any-return]


def vit(
    input_shape: tuple[int, ...],
    classes: int,
    *,
    patch: int,
    dim: int,
    depth: int,
    heads: int,
    mlp_ratio: int,
    dropout: float,
) -> nn.Module:
    """The sides of the images are multiples of `patch`, and `dim` is one of `heads`; raises InvalidInput."""
    channels = check_image("vit-tiny", input_shape, patch, multiple=patch)
    if dim % heads:
        raise InvalidInput(
            "model.architecture.params[heads]",
            f"heads is {heads}; it must divide dim, which is {dim}",
            reason="ARCHITECTURE_PARAM_INVALID",
        )
    return ViT(
        channels,
        classes,
        patch=patch,
        tokens=(input_shape[1] // patch) * (input_shape[2] // patch),
        dim=dim,
        depth=depth,
        heads=heads,
        mlp_ratio=mlp_ratio,
        dropout=dropout,
    )
