"""Dropout inside attention: the same numbers drop whichever heads sleep, and evaluation drops nothing."""

import copy
from functools import cache

import pytest
import torch
import torch.nn.functional as F
from coupled_networks import written
from torch import Generator, Tensor, nn

from npn_core.gated import Network, Noise, Pass
from npn_core.slices import take
from npn_core.step import Masked, Sliced

LENGTH, WIDTH, P = 5, 6, 0.4


@cache
def shared(*, masked: bool, causal: bool) -> Network:
    """Three heads of two, with attention and its output dropped."""
    visible = torch.ones(LENGTH, LENGTH, dtype=torch.bool).tril(1) if masked else None

    def attend(m: nn.Module, x: Tensor) -> Tensor:
        q, k, v = (layer(x).view(-1, LENGTH, 3, 2).transpose(1, 2) for layer in (m.q, m.k, m.v))
        x = F.scaled_dot_product_attention(q, k, v, visible, P, is_causal=causal)
        return m.o(m.drop(x.transpose(1, 2).flatten(2)))

    layers = {name: nn.Linear(WIDTH, WIDTH) for name in "qkvo"}
    return written(attend, (LENGTH, WIDTH), drop=nn.Dropout(P), **layers)


def network(*, masked: bool = False, causal: bool = False) -> Network:
    """A network of its own in float64."""
    net = shared(masked=masked, causal=causal)
    return Network(copy.deepcopy(net.graph).double(), net.coupling)


def x() -> tuple[Tensor]:
    """Four sequences."""
    return (torch.randn(4, LENGTH, WIDTH, generator=Generator().manual_seed(0), dtype=torch.float64),)


def noise() -> Noise:
    """The same random numbers every time."""
    return Noise(generator=Generator().manual_seed(3))


def loss(outputs: tuple[Tensor, ...], y: None) -> Tensor:
    """Of any kind."""
    return outputs[0].square().mean()


@pytest.mark.parametrize(("masked", "causal"), [(False, False), (True, False), (False, True)])
def test_attention_drops_as_its_formula_says(masked: bool, causal: bool) -> None:
    """softmax(q k^T / sqrt(d)) times the kept share, times v; without noise it is torch's own."""
    net, (sample,) = network(masked=masked, causal=causal), x()
    q, k, v = (
        F.linear(sample, net.parameters[f"{n}.weight"], net.parameters[f"{n}.bias"])
        .view(4, LENGTH, 3, 2)
        .transpose(1, 2)
        for n in "qkv"
    )
    visible = torch.ones(LENGTH, LENGTH, dtype=torch.bool).tril(0 if causal else 1 if masked else LENGTH)
    weights = (q @ k.mT / 2**0.5).masked_fill(~visible, -torch.inf).softmax(-1)

    def output(keep: Tensor | float, kept: Tensor | float) -> Tensor:
        heads = (weights * keep) @ v
        joined = heads.transpose(1, 2).flatten(2) * kept
        return F.linear(joined, net.parameters["o.weight"], net.parameters["o.bias"])

    drawn = noise()
    one = Pass(active=net.everything, tensors=net.slices(net.everything), noise=drawn, update_stats=False)
    (found,) = net.run((sample,), one)
    (attention,) = (name for name in drawn.drawn if "attention" in name)
    assert drawn.drawn[attention].shape == (4, 3, LENGTH, LENGTH)
    assert sorted(drawn.drawn[attention].unique().tolist()) == pytest.approx([0, 1 / (1 - P)])
    torch.testing.assert_close(found, output(drawn.drawn[attention], drawn.drawn["drop"]))
    torch.testing.assert_close(net.evaluate((sample,))[0], output(1.0, 1.0).detach())


@pytest.mark.parametrize("awake", ["101", "010", "000"])
@pytest.mark.parametrize("masked", [False, True])
def test_masked_equals_sliced(awake: str, masked: bool) -> None:
    """Loss, gradients and the numbers drawn are the same whether sleeping heads are computed or not."""
    mask = torch.tensor([bit == "1" for bit in awake])
    losses, gradients, states = [], [], []
    for kind in (Masked, Sliced):
        net, drawn = network(masked=masked), noise()
        evaluation = kind(net, loss).differentiate(x(), None, net.active(mask), drawn)
        losses.append(evaluation.loss)
        indices = {
            update.name: net.active(mask).indices(net.dims[update.name]) for update in evaluation.updates
        }
        if kind is Sliced:
            indices = dict.fromkeys(indices, ())
        gradients.append({u.name: take(u.gradient, indices[u.name]) for u in evaluation.updates})
        states.append(drawn.generator.get_state())
    assert losses[0] == pytest.approx(losses[1], abs=1e-10)
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, rtol=0, atol=1e-10)
    assert torch.equal(*states)
