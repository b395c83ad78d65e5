"""Masked equals sliced: outputs, and parameters, buffers and optimizer state after steps under random gates."""

import copy
from dataclasses import dataclass

import pytest
import torch
from small_networks import batch, conv_net, conv_network, cross_entropy, network, random_mask, without
from torch import Generator, Tensor, nn

from npn_core.gated import Network, Noise
from npn_core.optimizer import SlicedAdam
from npn_core.slices import put, take
from npn_core.step import Masked, Sliced

GROUPS = ("conv1", "conv2", "fc1.in", "fc1")
STEPS = 20
TOLERANCE = 1e-5


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """What 20 steps left: full-width tensors by name, and the losses."""

    tensors: dict[str, Tensor]
    losses: list[float]
    noise: Generator


def full_width(net: Network, adam: SlicedAdam) -> dict[str, Tensor]:
    """Copies of parameters, buffers and both moments."""
    moments = {f"first.{name}": tensor for name, tensor in adam.moments["first"].items()}
    moments |= {f"second.{name}": tensor for name, tensor in adam.moments["second"].items()}
    return {name: t.detach().clone() for name, t in (net.parameters | net.buffers | moments).items()}


def train(
    kind: type[Sliced], masks: list[Tensor], dtype: torch.dtype = torch.float32, *, norm: bool = True
) -> Run:
    """Train from the same start on the same batches and dropout noise, a mask a step."""
    net = conv_network(norm=norm, dtype=dtype)
    runner = kind(net, cross_entropy)
    adam = SlicedAdam(parameters=net.parameters, weight_decay=0.1)
    data, noise = Generator().manual_seed(1), Generator().manual_seed(2)
    losses = []
    for mask in masks:
        x, y = batch(data, dtype)
        evaluation = runner.differentiate(x, y, net.active(mask), Noise(generator=noise))
        adam.step(evaluation.updates, lr=0.01)
        losses.append(evaluation.loss)
    return Run(tensors=full_width(net, adam), losses=losses, noise=noise)


def masks_for(sleeping: list[tuple[str, ...]]) -> list[Tensor]:
    """A random mask a step; in step i the whole groups `sleeping[i]` sleep besides, for as long as there are any."""
    coupling = conv_network().coupling
    generator = Generator().manual_seed(3)
    groups = sleeping + [()] * (STEPS - len(sleeping))
    return [without(coupling, random_mask(coupling, generator), *names) for names in groups]


SLEEPING = {
    "some units": [],
    **{name: [(), (name,)] * 5 for name in GROUPS},
    "several": [("conv1", "conv2"), ("fc1.in", "fc1"), GROUPS, ("conv1", "fc1")] * 3,
}


CASES = [
    pytest.param(sleeping, dtype, norm, id=f"{sleeping}-{dtype}-{'norm' if norm else 'plain'}")
    for sleeping in SLEEPING
    for dtype, norm in [(torch.float64, True), (torch.float32, True), (torch.float32, False)]
    # with conv1 asleep BatchNorm sees constants, and divides their rounding in float32 by sqrt(eps)
    if (sleeping, dtype, norm) != ("conv1", torch.float32, True)
]


@pytest.mark.parametrize(("sleeping", "dtype", "norm"), CASES)
def test_masked_equals_sliced(sleeping: str, dtype: torch.dtype, norm: bool) -> None:
    """After 20 steps parameters, buffers and moments agree, whichever units and whole layers slept meanwhile."""
    masks = masks_for(SLEEPING[sleeping])
    masked, sliced = train(Masked, masks, dtype, norm=norm), train(Sliced, masks, dtype, norm=norm)
    assert masked.losses == pytest.approx(sliced.losses, abs=TOLERANCE)
    for name, tensor in masked.tensors.items():
        torch.testing.assert_close(sliced.tensors[name], tensor, rtol=0, atol=TOLERANCE)


def test_dropout_draws_as_much_for_a_sleeping_layer() -> None:
    """The generator stands at the same place whatever slept: later steps see the same dropout."""
    awake, asleep = (train(Sliced, masks_for(groups)[:3]) for groups in ([], [GROUPS] * 3))
    assert torch.equal(awake.noise.get_state(), asleep.noise.get_state())


@pytest.mark.parametrize("sleeping", [(), *((name,) for name in GROUPS), GROUPS])
def test_asleep_units_do_not_change_in_a_step(sleeping: tuple[str, ...]) -> None:
    """Parameters, statistics and moments of sleeping units are bit-identical; those of active units move."""
    net = conv_network()
    runner = Sliced(net, cross_entropy)
    adam = SlicedAdam(parameters=net.parameters, weight_decay=0.1)
    generator = Generator().manual_seed(4)
    x, y = batch(generator)
    start = runner.differentiate(x, y, net.everything, Noise(generator=generator))
    adam.step(start.updates, lr=0.01)  # moments that could go on moving

    before = full_width(net, adam)
    active = net.active(without(net.coupling, random_mask(net.coupling, generator, 0.5), *sleeping))
    evaluation = runner.differentiate(x, y, active, Noise(generator=generator))
    adam.step(evaluation.updates, lr=0.01)
    for name, after in full_width(net, adam).items():
        if name.endswith("num_batches_tracked"):
            continue
        indices = active.indices(net.dims[name.removeprefix("first.").removeprefix("second.")])
        moved = after != before[name]
        took_part = torch.zeros_like(moved)
        put(took_part, indices, torch.ones_like(take(took_part, indices)))
        assert not bool((moved & ~took_part).any()), name
        if name in net.parameters:  # weight decay moves every weight that takes part
            assert bool(moved[took_part].all()), name


def test_a_hibernating_unit_stays_bit_identical() -> None:
    """Whatever the others do for many steps, its parameters, buffers and optimizer state do not change."""
    masks = masks_for([("fc1",)])
    coupling = conv_network().coupling
    hibernating = [coupling.by_name[name].offset for name in ("conv1", "conv2", "fc1")]
    for mask in masks:
        mask[hibernating] = False
    after = train(Sliced, masks).tensors
    before = train(Sliced, []).tensors
    for name, tensor in before.items():
        layer = name.removeprefix("first.").removeprefix("second.").partition(".")[0]
        if layer in ("conv1", "bn1", "conv2", "bn2", "fc1") and tensor.dim():
            assert torch.equal(after[name][0], tensor[0]), name
            assert not torch.equal(after[name], tensor), name
        if layer in ("conv2", "fc2") and tensor.dim() > 1:
            assert torch.equal(after[name][:, 0], tensor[:, 0]), name


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("sleeping", [(), *((name,) for name in GROUPS), GROUPS])
def test_outputs_agree_in_evaluation(sleeping: tuple[str, ...], seed: int) -> None:
    """Sliced outputs are those of the plain network whose consumers' weights are zeroed, statistics as they are."""
    net = conv_network()
    generator = Generator().manual_seed(seed)
    mask = without(net.coupling, random_mask(net.coupling, generator), *sleeping)
    x, _ = batch(generator)
    assert_close(net.evaluate(x, net.active(mask), chunk=3)[0], zeroed(net, mask)(*x))


def zeroed(net: Network, mask: Tensor) -> nn.Module:
    """The plain network in evaluation mode with the input weights of closed units at 0."""
    plain = conv_net().eval()
    coupling = net.coupling
    features = mask[coupling.by_name["fc1.in"].slice].view(5, 9)
    channels = mask[coupling.by_name["conv2"].slice]
    with torch.no_grad():
        plain.conv2.weight *= mask[coupling.by_name["conv1"].slice].view(1, -1, 1, 1)
        plain.fc1.weight *= (features & channels[:, None]).flatten()
        plain.fc2.weight *= mask[coupling.by_name["fc1"].slice]
    return plain


def assert_close(found: Tensor, expected: Tensor) -> None:
    """Equal to the promised 1e-5."""
    torch.testing.assert_close(found, expected, rtol=0, atol=TOLERANCE)


def test_evaluation_of_everything_is_the_plain_network() -> None:
    """Without a mask, in chunks, with BatchNorm's statistics and without dropout."""
    x, _ = batch(Generator().manual_seed(0))
    assert_close(conv_network().evaluate(x, chunk=3)[0], conv_net().eval()(*x))


@pytest.mark.parametrize("momentum", [0.1, None])
def test_statistics_are_those_of_torch(momentum: float | None) -> None:
    """Running statistics move as nn.BatchNorm's do, with a fixed momentum and as a cumulative average."""
    module = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(72, 3))
    net = network(module)
    for norm in (module[1], net.graph.get_submodule("1")):
        norm.momentum = momentum  # torch does not export None in training mode
    runner, generator = Sliced(net, cross_entropy), Generator().manual_seed(0)
    for _ in range(3):
        x, y = batch(generator)
        module(*x)
        runner.differentiate(x, y, net.everything, Noise(generator=generator))
    for name, buffer in module.named_buffers():
        torch.testing.assert_close(net.buffers[name], buffer)


def test_noise_is_drawn_once() -> None:
    """A node's dropout mask is the same however often it is asked for, at full width, scaled to mean one."""
    noise = Noise(generator=Generator().manual_seed(0))
    keep = noise.keep("drop", (100, 50), 0.25)
    assert noise.keep("drop", (100, 50), 0.25) is keep
    assert keep.unique().tolist() == pytest.approx([0, 1 / 0.75])
    assert float(keep.mean()) == pytest.approx(1, abs=0.05)
    assert not noise.keep("all", (3, 3), 1.0).any()


@pytest.mark.parametrize("channels", [2, 3, 7, 8])
def test_a_kernel_of_one_may_take_steps_over_few_channels(channels: int) -> None:
    """As often as one likes: oneDNN's gradient of such weights writes beyond its memory (kernels.VECTOR)."""

    class Stepping(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.step = nn.Conv2d(4, channels, 3, padding=1), nn.Conv2d(channels, 64, 1, stride=2)
            self.fc = nn.Linear(64, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(self.step(self.stem(x)).mean((2, 3)))

    torch.manual_seed(0)
    net, exact = network(module := Stepping(), (4, 16, 16)), copy.deepcopy(module).double()
    x, y = torch.randn(16, 4, 16, 16), torch.randint(3, (16,))
    cross_entropy((exact(x.double()),), y).backward()
    assert exact.step.weight.grad is not None
    runner, noise = Sliced(net, cross_entropy), Noise(generator=Generator())
    for _ in range(200):
        updates = runner.differentiate((x,), y, net.everything, noise).updates
    found = next(update.gradient for update in updates if update.name == "step.weight")
    torch.testing.assert_close(found, exact.step.weight.grad.float())
