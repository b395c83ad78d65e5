"""Which units are found for every way of coupling them, and that they can leave."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from coupled_networks import SEQUENCE, VECTOR, Case, assert_units, mean, repeated, units
from torch import Tensor, nn


def heads(x: Tensor, number: int) -> Tensor:
    """(N, L, H * D) -> (N, H, L, D)."""
    return x.view(x.shape[0], x.shape[1], number, -1).transpose(1, 2)


def joined(x: Tensor) -> Tensor:
    """(N, H, L, D) -> (N, L, H * D)."""
    return x.transpose(1, 2).flatten(2)


def shuffled(x: Tensor, groups: int) -> Tensor:
    """ShuffleNet's exchange of channels between groups."""
    n, c, h, w = x.shape
    return x.view(n, groups, c // groups, h, w).transpose(1, 2).reshape(n, c, h, w)


def grouped_queries(m: Any, x: Tensor) -> Tensor:
    """Four heads of queries, two of keys and values, copied."""
    q, k, v = heads(m.q(x), 4), heads(m.k(x), 2), heads(m.v(x), 2)
    return m.o(
        joined(F.scaled_dot_product_attention(q, k.repeat_interleave(2, 1), v.repeat_interleave(2, 1)))
    )


def viewed_queries(m: Any, x: Tensor) -> Tensor:
    """The same with views that repeat keys and values."""
    q, k, v = heads(m.q(x), 4), heads(m.k(x), 2), heads(m.v(x), 2)
    k, v = (t[:, :, None].expand(t.shape[0], 2, 2, 5, 3).reshape(t.shape[0], 4, 5, 3) for t in (k, v))
    return m.o(joined(F.scaled_dot_product_attention(q, k, v)))


def fused_attention(m: Any, x: Tensor) -> Tensor:
    """Queries, keys and values from one layer: their axis comes first, heads second."""
    qkv = m.qkv(x).reshape(x.shape[0], 5, 3, 2, 3).permute(2, 0, 3, 1, 4)
    return m.proj(joined(F.scaled_dot_product_attention(*qkv.unbind(0))))


def excited(m: Any, x: Tensor) -> Tensor:
    """Squeeze and excite."""
    x = m.s(x)
    return m.fc(mean(x * torch.sigmoid(m.excite(F.relu(m.squeeze(mean(x)))))[:, :, None, None]))


def split(m: Any, x: Tensor) -> Tensor:
    """Two channels here, three there."""
    left, right = m.s(x).split([2, 3], 1)
    return m.fc(mean(m.left(left) + m.right(right)))


def product_of_halves(m: Any, x: Tensor) -> Tensor:
    """One half gates the other."""
    value, gate = m.s(x).chunk(2, 1)
    return m.fc(value * torch.sigmoid(gate))


GROUPED_QUERIES = {
    "q.weight": [repeated(*units("q", 2), times=6), None],
    "k.weight": [repeated(*units("q", 2), times=3), None],
    "v.bias": [repeated(*units("q", 2), times=3)],
    "o.weight": [None, repeated(*units("q", 2), times=6)],
}


def queries() -> dict[str, nn.Module | nn.Parameter]:
    """Layers of attention with grouped queries."""
    return {"q": nn.Linear(4, 12), "k": nn.Linear(4, 6), "v": nn.Linear(4, 6), "o": nn.Linear(12, 2)}


CASES = [
    Case(
        name="residual add",
        run=lambda m, x: m.fc(mean(m.s(x) + m.c(m.s(x)))),
        layers=lambda: {"s": nn.Conv2d(3, 4, 1), "c": nn.Conv2d(4, 4, 3, padding=1), "fc": nn.Linear(4, 2)},
        groups={"s": ("channel", 4)},
        tensors={"c.weight": ["s", "s", None, None], "c.bias": ["s"], "fc.weight": [None, "s"]},
    ),
    Case(
        name="concatenation",
        run=lambda m, x: m.fc(mean(torch.cat([m.a(x), x, m.b(x)], 1))),
        layers=lambda: {"a": nn.Conv2d(3, 2, 1), "b": nn.Conv2d(3, 3, 1), "fc": nn.Linear(8, 2)},
        groups={"a": ("channel", 2), "b": ("channel", 3)},
        tensors={"fc.weight": [None, [*units("a", 2), "", "", "", *units("b", 3)]]},
    ),
    Case(
        name="split",
        run=split,
        layers=lambda: {
            "s": nn.Conv2d(3, 5, 1),
            "left": nn.Conv2d(2, 4, 1),
            "right": nn.Conv2d(3, 4, 1),
            "fc": nn.Linear(4, 2),
        },
        groups={"s": ("channel", 5), "left": ("channel", 4)},
        tensors={
            "left.weight": ["left", units("s", 5)[:2], None, None],
            "right.weight": ["left", units("s", 5)[2:], None, None],
        },
    ),
    Case(
        name="chunk, product of halves",
        run=product_of_halves,
        layers=lambda: {"s": nn.Linear(4, 6), "fc": nn.Linear(3, 2)},
        groups={"s": ("neuron", 3)},
        tensors={"s.weight": [2 * units("s", 3), "s.in"], "fc.weight": [None, "s"]},
        shapes=(VECTOR,),
    ),
    Case(
        name="GLU",
        run=lambda m, x: m.fc(F.glu(m.s(x))),
        layers=lambda: {"s": nn.Linear(4, 6), "fc": nn.Linear(3, 2)},
        groups={"s": ("neuron", 3)},
        tensors={"s.bias": [2 * units("s", 3)], "fc.weight": [None, "s"]},
        shapes=(VECTOR,),
    ),
    Case(
        name="slice",
        run=lambda m, x: m.fc(m.s(x)[:, 1:4]),
        layers=lambda: {"s": nn.Linear(4, 6), "fc": nn.Linear(3, 2)},
        groups={"s": ("neuron", 3)},
        tensors={"s.weight": [["", *units("s", 3), "", ""], "s.in"], "fc.weight": [None, "s"]},
        shapes=(VECTOR,),
    ),
    Case(
        name="repeat",
        run=lambda m, x: m.fc(m.s(x).repeat(1, 2)),
        layers=lambda: {"s": nn.Linear(4, 3), "fc": nn.Linear(6, 2)},
        groups={"s": ("neuron", 3)},
        tensors={"fc.weight": [None, 2 * units("s", 3)]},
        shapes=(VECTOR,),
    ),
    Case(
        name="stack",
        run=lambda m, x: m.fc(torch.stack([m.s(x), m.t(x)], 1).amax(1)),
        layers=lambda: {"s": nn.Linear(4, 3), "t": nn.Linear(4, 3), "fc": nn.Linear(3, 2)},
        groups={"s": ("neuron", 3)},
        tensors={"t.weight": ["s", "s.in"], "fc.weight": [None, "s"]},
        shapes=(VECTOR,),
    ),
    Case(
        name="heads",
        run=lambda m, x: m.o(
            joined(F.scaled_dot_product_attention(heads(m.q(x), 2), heads(m.k(x), 2), heads(m.v(x), 2)))
        ),
        layers=lambda: {
            "q": nn.Linear(4, 6),
            "k": nn.Linear(4, 6),
            "v": nn.Linear(4, 6),
            "o": nn.Linear(6, 2),
        },
        groups={"q": ("head", 2)},
        tensors={
            **{f"{name}.weight": [repeated(*units("q", 2), times=3), None] for name in "qkv"},
            "o.weight": [None, repeated(*units("q", 2), times=3)],
        },
        shapes=(SEQUENCE,),
    ),
    Case(
        name="fused qkv",
        run=fused_attention,
        layers=lambda: {"qkv": nn.Linear(4, 18), "proj": nn.Linear(6, 2)},
        groups={"qkv": ("head", 2)},
        tensors={
            "qkv.weight": [3 * repeated(*units("qkv", 2), times=3), None],
            "proj.weight": [None, repeated(*units("qkv", 2), times=3)],
        },
        shapes=(SEQUENCE,),
    ),
    Case(
        name="grouped queries, copied",
        run=grouped_queries,
        layers=queries,
        groups={"q": ("head", 2)},
        tensors=GROUPED_QUERIES,
        shapes=(SEQUENCE,),
    ),
    Case(
        name="grouped queries, viewed",
        run=viewed_queries,
        layers=queries,
        groups={"q": ("head", 2)},
        tensors=GROUPED_QUERIES,
        shapes=(SEQUENCE,),
    ),
    Case(
        name="tied weights",
        run=lambda m, x: F.linear(m.e(x) + m.b(F.relu(m.a(m.e(x)))), m.e.weight),
        layers=lambda: {"e": nn.Embedding(7, 6), "a": nn.Linear(6, 8), "b": nn.Linear(8, 6)},
        groups={"e": ("embedding", 6), "a": ("neuron", 8)},
        tensors={"e.weight": [None, "e"], "a.weight": ["a", "e"], "b.weight": ["e", "a"], "b.bias": ["e"]},
        shapes=((5,),),
        inputs="int64",
    ),
    Case(
        name="two inputs, shared layer",
        run=lambda m, x, y: m.fc(torch.cat([m.s(x), m.s(x) - m.s(y)], 1)),
        layers=lambda: {"s": nn.Linear(4, 3), "fc": nn.Linear(6, 2)},
        groups={"s": ("neuron", 3)},
        tensors={"s.weight": ["s", "s.in"], "fc.weight": [None, 2 * units("s", 3)]},
        shapes=(VECTOR, VECTOR),
    ),
    Case(
        name="laid along the batch",
        run=lambda m, x: m.fc(m.s(x).reshape(-1).relu().reshape(-1, 6)),
        layers=lambda: {"s": nn.Linear(4, 6), "fc": nn.Linear(6, 2)},
        groups={"s": ("neuron", 6)},
        tensors={"fc.weight": [None, "s"]},
        shapes=(VECTOR,),
    ),
    Case(
        name="raw parameters",
        run=lambda m, x: m.fc(m.s(x) * m.scale + m.shift),
        layers=lambda: {
            "s": nn.Linear(4, 6),
            "fc": nn.Linear(6, 2),
            "scale": nn.Parameter(torch.ones(6)),
            "shift": nn.Parameter(torch.ones(1)),
        },
        groups={"s": ("neuron", 6)},
        tensors={"scale": ["s"], "shift": [None]},
        shapes=(VECTOR,),
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_units(case: Case) -> None:
    """The groups, what lies along the tensors' axes, and that a mask of them can be sliced and cut out."""
    assert_units(case)
