"""Channels under every kind of convolution, and what pins units, with the reason that a user reads."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from coupled_networks import IMAGE, SEQUENCE, VECTOR, Case, assert_units, mean, repeated, units, why, written
from small_networks import summary
from torch import Tensor, nn

from npn_core.labels import label


def shuffled(x: Tensor, groups: int = 2) -> Tensor:
    """ShuffleNet's exchange of channels between groups."""
    n, c, h, w = x.shape
    return x.view(n, groups, c // groups, h, w).transpose(1, 2).reshape(n, c, h, w)


def excited(m: Any, x: Tensor) -> Tensor:
    """Squeeze and excite."""
    x = m.s(x)
    return m.fc(mean(x * torch.sigmoid(m.excite(F.relu(m.squeeze(mean(x)))))[:, :, None, None]))


CASES = [
    Case(
        name="depthwise, two filters a channel",
        run=lambda m, x: m.fc(mean(m.p(m.d(m.s(x))))),
        layers=lambda: {
            "s": nn.Conv2d(3, 3, 1),
            "d": nn.Conv2d(3, 6, 3, groups=3),
            "p": nn.Conv2d(6, 4, 1),
            "fc": nn.Linear(4, 2),
        },
        groups={"s": ("channel", 3), "p": ("channel", 4)},
        tensors={
            "d.weight": [repeated(*units("s", 3), times=2), None, None, None],
            "d.bias": [repeated(*units("s", 3), times=2)],
            "p.weight": ["p", repeated(*units("s", 3), times=2), None, None],
        },
    ),
    Case(
        name="grouped",
        run=lambda m, x: m.fc(mean(m.g(m.s(x)))),
        layers=lambda: {"s": nn.Conv2d(3, 4, 1), "g": nn.Conv2d(4, 6, 3, groups=2), "fc": nn.Linear(6, 2)},
        groups={"s": ("channel", 2), "g": ("channel", 3)},
        tensors={
            "s.weight": [2 * units("s", 2), None, None, None],
            "g.weight": [2 * units("g", 3), "s", None, None],
            "fc.weight": [None, 2 * units("g", 3)],
        },
    ),
    Case(
        name="channel shuffle",
        run=lambda m, x: m.fc(mean(m.b(m.d(shuffled(m.a(m.s(x))))))),
        layers=lambda: {
            "s": nn.Conv2d(3, 4, 1),
            "a": nn.Conv2d(4, 8, 1, groups=2),
            "d": nn.Conv2d(8, 8, 3, groups=8),
            "b": nn.Conv2d(8, 6, 1, groups=2),
            "fc": nn.Linear(6, 2),
        },
        groups={"s": ("channel", 2), "a": ("channel", 2), "b": ("channel", 3)},
        # the grouped layer merges channels i and i + 4 of a, the shuffle and the next one 0 with 2, 1 with 3
        tensors={
            "a.weight": [4 * units("a", 2), "s", None, None],
            "d.weight": [2 * repeated(*units("a", 2), times=2), None, None, None],
            "b.weight": [2 * units("b", 3), repeated(*units("a", 2), times=2), None, None],
        },
    ),
    Case(
        name="squeeze and excite",
        run=excited,
        layers=lambda: {
            "s": nn.Conv2d(3, 4, 1),
            "squeeze": nn.Linear(4, 3),
            "excite": nn.Linear(3, 4),
            "fc": nn.Linear(4, 2),
        },
        groups={"s": ("channel", 4), "squeeze": ("neuron", 3)},
        tensors={"squeeze.weight": ["squeeze", "s"], "excite.weight": ["s", "squeeze"], "excite.bias": ["s"]},
    ),
    Case(
        name="padded shortcut",
        run=lambda m, x: m.fc(mean(F.pad(m.s(x), (0, 0, 0, 0, 1, 1)) + m.c(x))),
        layers=lambda: {"s": nn.Conv2d(3, 2, 1), "c": nn.Conv2d(3, 4, 1), "fc": nn.Linear(4, 2)},
        groups={"s": ("channel", 4)},  # two of the stem's, and the two of c that padding meets
        tensors={
            "s.weight": [["s[0]", "s[1]"], None, None, None],
            "c.weight": [["s[2]", "s[0]", "s[1]", "s[3]"], None, None, None],
            "fc.weight": [None, ["s[2]", "s[0]", "s[1]", "s[3]"]],
        },
    ),
    Case(
        name="padding alone",
        run=lambda m, x: m.fc(mean(F.pad(m.s(x), (0, 0, 0, 0, 1, 1)))),
        layers=lambda: {"s": nn.Conv2d(3, 2, 1), "fc": nn.Linear(4, 2)},
        groups={"s": ("channel", 2)},
        tensors={"fc.weight": [None, ["", "s[0]", "s[1]", ""]]},
    ),
    Case(
        name="PixelShuffle",
        run=lambda m, x: m.fc(mean(F.pixel_shuffle(m.s(x), 2))),
        layers=lambda: {"s": nn.Conv2d(3, 8, 1), "fc": nn.Linear(2, 2)},
        groups={"s": ("channel", 2)},
        tensors={"s.weight": [repeated(*units("s", 2), times=4), None, None, None], "fc.weight": [None, "s"]},
    ),
    Case(
        name="transposed",
        run=lambda m, x: m.fc(mean(m.up(m.s(x)))),
        layers=lambda: {
            "s": nn.Conv2d(3, 4, 1),
            "up": nn.ConvTranspose2d(4, 5, 2, stride=2),
            "fc": nn.Linear(5, 2),
        },
        groups={"s": ("channel", 4), "up": ("channel", 5)},
        tensors={"up.weight": ["s", "up", None, None], "up.bias": ["up"], "fc.weight": [None, "up"]},
    ),
    Case(
        name="PReLU, BatchNorm",
        run=lambda m, x: m.fc(mean(m.one(m.norm(m.each(m.s(x)))))),
        layers=lambda: {
            "s": nn.Conv2d(3, 4, 1),
            "each": nn.PReLU(4),
            "norm": nn.BatchNorm2d(4),
            "one": nn.PReLU(),
            "fc": nn.Linear(4, 2),
        },
        groups={"s": ("channel", 4)},
        tensors={"each.weight": ["s"], "one.weight": [None], "norm.weight": ["s"], "norm.running_var": ["s"]},
    ),
    Case(
        name="flatten without features",
        run=lambda m, x: m.fc(m.hidden(m.s(x).flatten(1)).relu()),
        layers=lambda: {"s": nn.Conv2d(3, 4, 4), "hidden": nn.Linear(4, 3), "fc": nn.Linear(3, 2)},
        groups={"s": ("channel", 4), "hidden": ("neuron", 3)},
        tensors={"hidden.weight": ["hidden", "s"]},
    ),
    Case(
        name="features into channels",
        run=lambda m, x: m.fc(mean(m.c(m.s(x).reshape(x.shape[0], 3, 2, 2)))),
        layers=lambda: {"s": nn.Linear(4, 12), "c": nn.Conv2d(3, 4, 1), "fc": nn.Linear(4, 2)},
        groups={"s": ("neuron", 3), "c": ("channel", 4)},
        tensors={"s.weight": [repeated(*units("s", 3), times=4), "s.in"], "c.weight": ["c", "s", None, None]},
        shapes=(VECTOR,),
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_units(case: Case) -> None:
    """The groups, what lies along the tensors' axes, and that a mask of them can be sliced and cut out."""
    assert_units(case)


def test_another_division_is_tried() -> None:
    """Fused queries, keys and values: the reshape's first part is picked apart by number, heads are the second."""

    def run(m: Any, x: Tensor) -> Tensor:
        q, k, v = m.qkv(x).reshape(x.shape[0], 5, 3, 2, 3).permute(2, 0, 3, 1, 4).unbind(0)
        return m.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))

    net = written(run, SEQUENCE, qkv=nn.Linear(4, 18), proj=nn.Linear(6, 2))
    divisions = label(net.graph).divisions
    (division,) = (chosen for node, chosen in divisions.items() if node.startswith("reshape"))
    assert division == 1
    assert summary(net.coupling) == [("qkv", "head", 2)]


Extra = dict[str, nn.Module | nn.Parameter]
MIXES, APART = "mixes it", "is not known to keep its units apart"
PINS: list[tuple[str, Callable[..., Any], Extra, str, str]] = [
    ("LayerNorm", lambda m, s: m.norm(s), {"norm": nn.LayerNorm(6)}, "module 'norm'", "normalises over it"),
    ("softmax", lambda m, s: s.softmax(1), {}, "aten.softmax.int", MIXES),
    ("cumulative sum", lambda m, s: s.cumsum(1), {}, "aten.cumsum.default", MIXES),
    ("mean", lambda m, s: s - s.mean(1, keepdim=True), {}, "aten.mean.dim", "reduces it to one"),
    ("unknown", lambda m, s: s.flip(1), {}, "aten.flip.default", APART),
    ("entries", lambda m, s: s[:, [5, 4, 3, 2, 1, 0]], {}, "aten.index.Tensor", APART),
    ("every other", lambda m, s: s[:, ::2].repeat(1, 2), {}, "aten.slice.Tensor", "entries of it by number"),
    (
        "unbind",
        lambda m, s: torch.cat([t[:, None] for t in s.unbind(1)], 1),
        {},
        "aten.unbind.int",
        "by number",
    ),
    (
        "one for all",
        lambda m, s: s + m.t(s).flip(1),
        {"t": nn.Linear(6, 6)},
        "aten.add.Tensor",
        "never changes",
    ),
    (
        "the batch",
        lambda m, s: s.t().reshape(-1).relu().reshape(-1, 6),
        {},
        "aten.reshape.default",
        "mixes it with the batch",
    ),
    ("scores", lambda m, s: (s[:, :, None] @ s[:, None]).amax(2), {}, "aten.matmul.default", "pairs it with"),
]


@pytest.mark.parametrize(
    ("run", "extra", "operator", "words"), [pin[1:] for pin in PINS], ids=[p[0] for p in PINS]
)
def test_pins(run: Callable[..., Any], extra: Extra, operator: str, words: str) -> None:
    """What mixes units keeps them all, and the reason names the operation and the user's source."""
    net = written(lambda m, x: m.fc(run(m, m.s(x))), VECTOR, s=nn.Linear(4, 6), fc=nn.Linear(6, 2), **extra)
    assert summary(net.coupling) == [("s.in", "feature", 4)]
    reason = why(net.coupling, "s")
    assert operator in reason
    assert words in reason
    assert "coupled_networks.py:" in reason


def test_outputs_and_single_units_stay() -> None:
    """What the network gives keeps its size; a layer of one unit keeps it."""

    def run(m: Any, x: Tensor) -> dict[str, Tensor]:
        x = m.s(x)
        return {"logits": m.fc(x), "gate": m.fc(torch.sigmoid(m.one(x)) * x), "inner": x}

    net = written(run, VECTOR, s=nn.Linear(4, 6), one=nn.Linear(6, 1), fc=nn.Linear(6, 2))
    assert summary(net.coupling) == [("s.in", "feature", 4)]
    assert why(net.coupling, "s") == "it is an output of the network"
    assert why(net.coupling, "fc") == "it is an output of the network"
    assert "aten.mul.Tensor" in why(net.coupling, "one")


def test_channels_that_are_normed_in_groups_stay() -> None:
    """GroupNorm and circular padding pin the channels in front of them, and those alone."""
    net = written(
        lambda m, x: m.fc(mean(m.last(m.circular(m.norm(m.s(x)))))),
        IMAGE,
        s=nn.Conv2d(3, 4, 1),
        norm=nn.GroupNorm(2, 4),
        circular=nn.Conv2d(4, 5, 3, padding=1, padding_mode="circular"),
        last=nn.Conv2d(5, 6, 1),
        fc=nn.Linear(6, 2),
    )
    assert summary(net.coupling) == [("circular", "channel", 5), ("last", "channel", 6)]
    assert "module 'norm'" in why(net.coupling, "s")
    assert "normalises over it" in why(net.coupling, "s")


def test_positions_are_no_units() -> None:
    """A linear layer along the width of an image acts on every channel alike: the channels stay."""
    net = written(
        lambda m, x: m.fc(m.along(m.s(x)).amax(1).amax(1)),
        IMAGE,
        s=nn.Conv2d(3, 4, 1),
        along=nn.Linear(4, 6),
        fc=nn.Linear(6, 2),
    )
    assert summary(net.coupling) == [("along", "neuron", 6)]
    assert "acts on each of its positions with the same weights" in why(net.coupling, "s")
