"""Slices of tensors along several dimensions, and constants that follow them."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .groups import Active, Follower

Indices = tuple[Tensor | None, ...]
"""For each dimension the positions to take (n,) int64; None is everything.  May be shorter than the tensor's rank."""


def take(tensor: Tensor, indices: Indices) -> Tensor:
    """The slice of `tensor` at `indices`: the tensor itself without any, else a copy."""
    for dim, index in enumerate(indices):
        if index is not None:
            tensor = tensor.index_select(dim, index)
    return tensor


def put(tensor: Tensor, indices: Indices, value: Tensor) -> None:
    """Write `value` where `take` read; a no-op where it read the tensor itself."""
    match [(dim, index) for dim, index in enumerate(indices) if index is not None]:
        case []:
            if value is not tensor:
                tensor.copy_(value)
        case [(dim, index)]:
            tensor.index_copy_(dim, index, value)
        case [(0, rows), (1, cols)] if tensor.is_contiguous():
            _put_pairs(tensor, rows, cols, value)
        case _:
            tensor[torch.meshgrid(*_complete(tensor, indices), indexing="ij")] = value


def _put_pairs(tensor: Tensor, rows: Tensor, cols: Tensor, value: Tensor) -> None:
    """By flat positions: several times faster than indexing with two index tensors."""
    pairs = (rows[:, None] * tensor.shape[1] + cols).flatten()
    flat = tensor.view(tensor.shape[0] * tensor.shape[1], -1)
    flat.scatter_(0, pairs[:, None].expand(-1, flat.shape[1]), value.reshape(-1, flat.shape[1]))


def _complete(tensor: Tensor, indices: Indices) -> list[Tensor]:
    given = (*indices, *(None,) * (tensor.dim() - len(indices)))
    return [
        torch.arange(size, device=tensor.device) if index is None else index
        for size, index in zip(tensor.shape, given, strict=True)
    ]


def follow(arguments: Sequence[Any], followers: Sequence[Follower], active: Active) -> list[Any]:
    """A node's positional arguments with every constant at the number of live units.

    A batched constant must be a number: `arguments` are values, not nodes.
    """
    adapted = list(arguments)
    for follower in followers:
        count = active.count(follower.axis, follower.length)
        place = adapted[follower.argument]
        if follower.item is None:
            adapted[follower.argument] = count
            continue
        if place is arguments[follower.argument]:
            place = adapted[follower.argument] = list(place)
        if follower.batched:
            count *= place[follower.item] // follower.length
        place[follower.item] = count
    return adapted
