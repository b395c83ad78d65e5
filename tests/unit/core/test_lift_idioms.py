"""Idioms that users write, from the export to the compact network: the same outputs, costs that add up, gradients."""

import copy
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F
from coupled_networks import Written
from small_networks import infos
from torch import Generator, Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from npn_core.cost import cost_model
from npn_core.coupling import couple
from npn_core.difference import Difference
from npn_core.gated import Network, Noise
from npn_core.lift import lift
from npn_core.outputs import output_tensors
from npn_core.recount import count
from npn_core.step import Sliced, gated_outputs
from npn_core.surgery import compact


def written(run: Callable[..., Tensor], **layers: nn.Module | nn.Parameter) -> nn.Module:
    """The layers, used by `run(layers, x)`."""
    return Written(run, layers)


@dataclass(frozen=True, kw_only=True, slots=True)
class Idiom:
    """A network, the shape of its samples, and the groups that can leave."""

    build: Callable[[], nn.Module]
    shape: tuple[int, ...]
    groups: set[str]


def padded_encoder() -> nn.Module:
    """Attention whose mask torch spreads over the heads."""
    layer = nn.TransformerEncoderLayer(8, 2, 12, dropout=0.0, batch_first=True)

    def run(self: nn.Module, x: Tensor) -> Tensor:
        masked = x[:, :, 0] > 1
        return self.out(self.layer(x, src_key_padding_mask=masked.detach()).flatten(1))

    return written(run, layer=layer, out=nn.Linear(40, 3))


def biased_attention() -> nn.Module:
    """A bias for each head, as in ALiBi and Swin."""

    def run(self: nn.Module, x: Tensor) -> Tensor:
        q, k, v = (part.unflatten(2, (2, 4)).transpose(1, 2) for part in self.qkv(x).chunk(3, 2))
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=self.bias)
        return self.out(attended.transpose(1, 2).flatten(1))

    bias = nn.Parameter(torch.randn(1, 2, 5, 5))
    return written(run, qkv=nn.Linear(4, 24), bias=bias, out=nn.Linear(40, 3))


def single_head(dropout: float = 0.0) -> nn.Module:
    """Attention without an axis of heads."""

    def run(self: nn.Module, x: Tensor) -> Tensor:
        p = dropout if self.training else 0.0
        attended = F.scaled_dot_product_attention(self.q(x), self.k(x), self.v(x), dropout_p=p)
        return self.out(torch.relu(self.hidden(attended)).mean(1))

    parts = {name: nn.Linear(4, 6) for name in "qkv"}
    return written(run, **parts, hidden=nn.Linear(6, 7), out=nn.Linear(7, 3))


def normed_weight() -> nn.Module:
    """A convolution whose weight is computed."""
    layers = weight_norm(nn.Conv2d(2, 6, 3)), nn.ReLU(), nn.Conv2d(6, 5, 3), nn.ReLU(), nn.Flatten()
    return nn.Sequential(*layers, nn.Linear(20, 3))


def einsum() -> nn.Module:
    """A product that einsum writes."""

    def run(self: nn.Module, x: Tensor) -> Tensor:
        x = torch.relu(self.hidden(x))
        return torch.einsum("nlf,fo->nlo", x, self.weight).mean(1)

    return written(run, hidden=nn.Linear(4, 6), weight=nn.Parameter(torch.randn(6, 3)))


def decoder() -> nn.Module:
    """Cross-attention, which takes its projections out of one weight."""
    layer = nn.TransformerDecoderLayer(8, 2, 12, dropout=0.0, batch_first=True)
    return written(lambda self, x: self.out(self.layer(x, x).flatten(1)), layer=layer, out=nn.Linear(40, 3))


def writes() -> nn.Module:
    """Steps written into a tensor, and a column changed in place."""

    def run(self: nn.Module, x: Tensor) -> Tensor:
        out = torch.zeros(x.shape[0], 5, 6)
        for step in range(5):
            out[:, step] = torch.tanh(self.cell(x[:, step]))
        out[:, :, 0] += 1
        return self.out(torch.relu(self.hidden(out)).mean(1))

    return written(run, cell=nn.Linear(4, 6), hidden=nn.Linear(6, 7), out=nn.Linear(7, 3))


def alpha_dropout() -> nn.Module:
    """The dropout of SELU networks."""
    layers = nn.Linear(4, 8), nn.SELU(), nn.AlphaDropout(0.2), nn.Linear(8, 7), nn.SELU()
    return nn.Sequential(*layers, nn.FeatureAlphaDropout(0.2), nn.Linear(7, 3))


def instance_norm() -> nn.Module:
    """Statistics of every sample in training, and those that were gathered in evaluation."""
    norm = nn.InstanceNorm2d(6, affine=True, track_running_stats=True)
    layers = nn.Conv2d(2, 6, 3), norm, nn.ReLU(), nn.Conv2d(6, 5, 3), nn.ReLU(), nn.Flatten()
    return nn.Sequential(*layers, nn.Linear(20, 3))


def transposes() -> nn.Module:
    """.T, .mT, .mH and swapaxes."""

    def run(self: nn.Module, x: Tensor) -> Tensor:
        x = torch.relu(self.hidden(x))
        x = torch.relu(x @ self.weight.T)
        return self.out(x.mT.mH.swapaxes(1, 2).mT.mean(1))

    return written(run, hidden=nn.Linear(4, 6), weight=nn.Parameter(torch.randn(7, 6)), out=nn.Linear(7, 3))


def one_channel() -> nn.Module:
    """The first channel on its own, without its axis."""

    def run(self: nn.Module, x: Tensor) -> Tensor:
        y = self.conv(x)
        first = y[:, :1].reshape(y.shape[0], -1)
        return self.out(torch.relu(self.other(y)).mean((2, 3))) + first.sum(1, keepdim=True)

    return written(run, conv=nn.Conv2d(2, 6, 3), other=nn.Conv2d(6, 5, 3), out=nn.Linear(5, 3))


def pooled_features() -> nn.Module:
    """Pooling without an axis of channels."""
    return written(
        lambda self, x: self.out(F.max_pool1d(self.hidden(x), 2)), hidden=nn.Linear(4, 8), out=nn.Linear(4, 3)
    )


def shuffled_frames() -> nn.Module:
    """A shuffle of pixels behind an axis of time."""

    def run(self: nn.Module, x: Tensor) -> Tensor:
        frames = self.conv(x.flatten(0, 1)).unflatten(0, (-1, 2))
        return self.out(F.pixel_shuffle(frames, 2).mean((1, 3, 4)))

    return written(run, conv=nn.Conv2d(2, 8, 3), out=nn.Linear(2, 3))


IDIOMS = {
    "mask spread over heads": Idiom(build=padded_encoder, shape=(5, 8), groups={"layer.linear1"}),
    "a bias for each head": Idiom(build=biased_attention, shape=(5, 4), groups=set()),
    "attention without heads": Idiom(build=single_head, shape=(5, 4), groups={"hidden"}),
    "with dropout": Idiom(build=lambda: single_head(0.2), shape=(5, 4), groups={"hidden"}),
    "computed weight": Idiom(build=normed_weight, shape=(2, 6, 6), groups={"2"}),
    "einsum": Idiom(build=einsum, shape=(5, 4), groups=set()),
    "decoder": Idiom(build=decoder, shape=(5, 8), groups={"layer.linear1"}),
    "writes into views": Idiom(build=writes, shape=(5, 4), groups={"hidden"}),
    "alpha dropout": Idiom(build=alpha_dropout, shape=(4,), groups={"0", "3"}),
    "instance norm": Idiom(build=instance_norm, shape=(2, 6, 6), groups={"3"}),
    "transposes": Idiom(build=transposes, shape=(5, 4), groups={"weight"}),
    "one channel": Idiom(build=one_channel, shape=(2, 6, 6), groups={"other"}),
    "pooled features": Idiom(build=pooled_features, shape=(4,), groups=set()),
    "shuffled frames": Idiom(build=shuffled_frames, shape=(2, 2, 6, 6), groups=set()),
}


@pytest.mark.parametrize("name", IDIOMS)
def test_an_idiom(name: str) -> None:
    """What the network says, masked, sliced and cut; what it costs, before and after; that it can be trained."""
    idiom = IDIOMS[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = idiom.build().train()
    x = torch.randn(6, *idiom.shape, generator=Generator().manual_seed(1))
    dynamic = ({0: torch.export.Dim("batch", min=1)},)
    graph = lift(torch.export.export(copy.deepcopy(module), (x,), dynamic_shapes=dynamic))
    inputs = infos(idiom.shape)
    net = Network(graph, couple(graph, inputs))
    outputs = net.evaluate((x,))
    assert Difference.of(module.eval()(x), outputs).relative < 1e-5
    assert Difference.of(net.evaluate((x,)), outputs).largest == 0
    costs, one = cost_model(graph, net.coupling), (x[:1],)
    everything = torch.ones(net.coupling.size, dtype=torch.bool)
    assert costs.count(everything) == count(compact(net, net.everything, inputs).eval(), one)
    assert idiom.groups <= {group.name for group in net.coupling.groups}
    for seed in range(3):
        mask = net.coupling.close(
            torch.rand(net.coupling.size, generator=Generator().manual_seed(seed)) < 0.6
        )
        active = net.active(mask)
        smaller = compact(net, active, inputs).eval()
        gated = gated_outputs(net, (x,), active)
        assert Difference.of(gated, net.evaluate((x,), active)).relative < 1e-5
        if net.coupling.is_network(mask):
            assert Difference.of(gated, output_tensors(smaller(x))).relative < 1e-5
            assert costs.count(mask) == count(smaller, one)
        trained = Sliced(net, lambda outputs, _: outputs[0].square().mean())
        found = trained.differentiate((x,), None, active, Noise(generator=Generator().manual_seed(2)))
        assert all(bool(update.gradient.isfinite().all()) for update in found.updates)


def test_a_row_that_is_masked_altogether_gives_nothing() -> None:
    """Padding on the left under a causal mask, with dropout: 0 as torch says, and no NaN."""

    def run(self: nn.Module, x: Tensor) -> Tensor:
        q, k, v = (part.unflatten(2, (2, 4)).transpose(1, 2) for part in self.qkv(x).chunk(3, 2))
        mask = torch.ones(5, 5, dtype=torch.bool).tril() & (x[:, :, 0] > 0)[:, None, None, :]
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=0.1)
        return self.out(attended.transpose(1, 2).flatten(1))

    module = written(run, qkv=nn.Linear(4, 24), out=nn.Linear(40, 3))
    x = torch.randn(6, 5, 4, generator=Generator().manual_seed(1))
    x[:, 0, 0] = -1
    dynamic = ({0: torch.export.Dim("batch", min=1)},)
    graph = lift(torch.export.export(module.train(), (x,), dynamic_shapes=dynamic))
    net = Network(graph, couple(graph, infos((5, 4))))
    trained = Sliced(net, lambda outputs, _: outputs[0].square().mean())
    found = trained.differentiate((x,), None, net.everything, Noise(generator=Generator().manual_seed(2)))
    assert all(bool(update.gradient.isfinite().all()) for update in found.updates)
