"""Every structure that users might send: it exports, and its units leave without changing anything else."""

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import pytest
import torch
from structures import STRUCTURES, Structure, transformers_structures
from torch import Generator, Tensor, fx
from torch.utils import _pytree as pytree

from npn_core import recount
from npn_core.budget import check_feasible, fits, harden
from npn_core.config import Budget
from npn_core.cost import cost_model
from npn_core.coupling import couple
from npn_core.gated import Network, Noise
from npn_core.graph import input_names
from npn_core.groups import FIXED, Coupling
from npn_core.lift import lift
from npn_core.optimizer import SlicedAdam
from npn_core.outputs import output_tensors
from npn_core.progress import InputInfo
from npn_core.step import Masked, Sliced, gated_outputs
from npn_core.surgery import compact
from npn_core.units import Kind
from npn_core.widening import widen

LIBRARY = ("transformers-vit", "transformers-bert", "transformers-llama", "transformers-resnet")
OWN = {structure.name: structure for structure in STRUCTURES}
# GroupNorm and residual adds leave no unit that could go: all three of its layers are pinned
UNPRUNABLE = ("group-norm",)
COUPLED = [
    *(name for name in OWN if name not in UNPRUNABLE),
    *(pytest.param(name, marks=pytest.mark.slow) for name in LIBRARY),
]
quiet_library = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


def check(structure: Structure) -> None:
    """Exports in train mode, runs at batch sizes 1 and 5, and gives what the module gives."""
    program = structure.export()
    module = structure.module()
    assert set(program.state_dict) == set(module.state_dict())
    exported = program.module()
    for batch in (5, 2):
        inputs = structure.inputs(batch)
        torch.manual_seed(1)  # dropout
        expected: Any = copy.deepcopy(module)(*inputs)
        torch.manual_seed(1)
        found: Any = exported(*inputs)
        assert pytree.tree_structure(found) == pytree.tree_structure(expected)
        for one, other in zip(pytree.tree_leaves(found), pytree.tree_leaves(expected), strict=True):
            assert one.shape[0] == batch
            assert one.std() > 0
            torch.testing.assert_close(one, other)


@pytest.mark.parametrize("structure", STRUCTURES, ids=lambda structure: structure.name)
def test_hand_written(structure: Structure) -> None:
    """A structure of ours exports with a dynamic batch."""
    check(structure)


@quiet_library
def test_of_transformers() -> None:
    """The library's models export with a dynamic batch and give plain tensors."""
    pytest.importorskip("transformers")
    for structure in transformers_structures():
        check(structure)


def test_names_are_distinct() -> None:
    """Rows of a table are told apart by name."""
    names = [structure.name for structure in STRUCTURES]
    assert len(set(names)) == len(names)


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """A structure, lifted: its graph and coupling, inputs of a batch and how they are told."""

    structure: Structure
    graph: fx.GraphModule
    coupling: Coupling
    x: tuple[Tensor, ...]
    infos: tuple[InputInfo, ...]

    def network(self, dtype: torch.dtype = torch.float64) -> Network:
        """A network of its own, so that nobody moves another's weights."""
        return Network(copy.deepcopy(self.graph).to(dtype), self.coupling)

    @property
    def wide(self) -> tuple[Tensor, ...]:
        """The inputs in float64; numbers of tokens as they are."""
        return tuple(x.double() if x.is_floating_point() else x for x in self.x)


@cache
def case(name: str) -> Case:
    """The structure of this name, exported and lifted once."""
    if name in LIBRARY:
        pytest.importorskip("transformers")
    structure = OWN[name] if name in OWN else transformers_structures()[LIBRARY.index(name)]
    graph = lift(structure.export())
    x = structure.inputs(6)
    infos = tuple(
        InputInfo(name=given, shape=tuple(part.shape[1:]), dtype=str(part.dtype).removeprefix("torch."))
        for given, part in zip(input_names(graph), x, strict=True)
    )
    coupling = couple(graph, infos)
    return Case(
        structure=structure,
        graph=graph,
        coupling=coupling,
        x=x,
        infos=infos,
    )


def some_units(coupling: Coupling, seed: int) -> Tensor:
    """A closed mask that keeps and drops a unit of every group, and keeps one along every axis."""
    generator = Generator().manual_seed(seed)
    while True:
        mask = coupling.close(torch.rand(coupling.size, generator=generator) < 0.6)
        shares = [float(mask[group.slice].double().mean()) for group in coupling.groups]
        if all(0 < share < 1 for share in shares) and coupling.is_network(mask):
            return mask


def assert_same(found: tuple[Tensor, ...], expected: tuple[Tensor, ...], relative: float) -> None:
    """Every output within `relative` of the largest entry of the expected one."""
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        scale = float(other.abs().max())
        torch.testing.assert_close(one, other, rtol=0, atol=relative * scale)


def loss(outputs: tuple[Tensor, ...], goal: Any) -> Tensor:
    """The mean squared distance of all outputs from `goal`, which is as different for each entry."""
    total = torch.zeros((), dtype=torch.float64)
    for output in outputs:
        target = torch.linspace(-1, 1, output.numel(), dtype=torch.float64).view_as(output)
        total = total + (output - goal * target).square().mean()
    return total


@pytest.fixture
def _slow_attention() -> Iterator[None]:
    """nn.MultiheadAttention without its fused kernel, whose products nobody counts."""
    torch.backends.mha.set_fastpath_enabled(False)
    yield
    torch.backends.mha.set_fastpath_enabled(True)


@quiet_library
@pytest.mark.usefixtures("_slow_attention")
@pytest.mark.parametrize("name", COUPLED)
def test_everything_awake_is_the_users_network(name: str) -> None:
    """Without a mask the outputs are those of the module, and the dense cost is that counted on it."""
    found, module = case(name), case(name).structure.module().eval()
    # the library's norms compute in float32 whatever they are given
    dtype, x, relative = (torch.float64, found.wide, 1e-9) if name in OWN else (torch.float32, found.x, 1e-5)
    net, module = found.network(dtype), module.to(dtype)
    with torch.no_grad():
        assert_same(net.evaluate(x), output_tensors(module(*x)), relative)
    everything = torch.ones(found.coupling.size, dtype=torch.bool)
    dense = cost_model(net.graph, net.coupling).count(everything)
    assert dense == recount.count(module, tuple(part[:1] for part in x))


@quiet_library
@pytest.mark.parametrize("name", COUPLED)
def test_units_leave_without_changing_the_function(name: str) -> None:
    """Sliced, masked and compact networks give the same outputs, and the compact one costs what was promised."""
    found, net, precise = case(name), case(name).network(torch.float32), case(name).network()
    model = cost_model(net.graph, net.coupling)
    one_sample, whole = tuple(part[:1] for part in found.x), net.evaluate(found.x)
    for seed in range(3):
        mask = some_units(net.coupling, seed)
        active = net.active(mask)
        exact = gated_outputs(precise, found.wide, active)
        assert_same(precise.evaluate(found.wide, active, chunk=4), exact, 1e-9)
        masked = gated_outputs(net, found.x, active)
        smaller = compact(net, active, found.infos).eval()
        with torch.no_grad():
            assert_same(output_tensors(smaller(*found.x)), masked, 1e-5)
        assert model.count(mask) == recount.count(smaller, one_sample)
        assert any(not torch.equal(one, other) for one, other in zip(masked, whole, strict=True))


@quiet_library
@pytest.mark.parametrize("quiet", [False, True], ids=["drawn", "quiet"])
@pytest.mark.parametrize("name", COUPLED)
def test_widening_changes_no_output(name: str, quiet: bool) -> None:
    """Two more units in every group, asleep, or awake where it is quiet: the same outputs, and costs that agree."""
    found, net = case(name), case(name).network(torch.float32)
    more = {group.name: 2 for group in net.coupling.groups if group.kind is not Kind.FEATURE}
    wider = widen(net, more, found.infos, Generator().manual_seed(0), quiet=quiet)
    coupling = wider.network.coupling
    precise = Network(copy.deepcopy(wider.network.graph).double(), coupling)
    before = case(name).network().evaluate(found.wide)
    for group in net.coupling.groups:
        grown = coupling.by_name[group.name].size - group.size
        assert grown == more.get(group.name, 0) or group.kind is Kind.FEATURE
    assert torch.equal(wider.origin[~wider.inserted].sort().values, torch.arange(net.coupling.size))
    if quiet:
        assert_same(precise.evaluate(found.wide), before, 1e-9)
    asleep = precise.active(coupling.close(~wider.inserted))
    assert_same(precise.evaluate(found.wide, asleep), before, 1e-9)
    everything = torch.ones(coupling.size, dtype=torch.bool)
    one_sample = tuple(part[:1] for part in found.x)
    costs = cost_model(wider.network.graph, coupling)
    whole = compact(wider.network, wider.network.everything, found.infos).eval()
    assert costs.count(everything).params == recount.count(whole, one_sample).params
    assert (
        costs.count(~wider.inserted).params
        == cost_model(net.graph, net.coupling).count(torch.ones(net.coupling.size, dtype=torch.bool)).params
    )


@quiet_library
@pytest.mark.parametrize("name", COUPLED)
def test_masked_equals_sliced(name: str) -> None:
    """Three steps under three masks leave the same parameters, buffers and moments, computed either way."""
    found, states = case(name), []
    for kind in (Masked, Sliced):
        net = found.network()
        runner, adam = kind(net, loss), SlicedAdam(parameters=net.parameters, weight_decay=0.1)
        noise, losses = Generator().manual_seed(5), {}
        for seed in range(3):
            active = net.active(some_units(net.coupling, seed))
            evaluation = runner.differentiate(found.wide, seed, active, Noise(generator=noise))
            adam.step(evaluation.updates, lr=0.01)
            losses[f"loss {seed}"] = torch.tensor(evaluation.loss)
        moments = {f"{name} {which}": t for which, named in adam.moments.items() for name, t in named.items()}
        states.append(net.parameters | net.buffers | moments | losses)
    masked, sliced = states
    for key, tensor in masked.items():
        torch.testing.assert_close(
            sliced[key], tensor, rtol=0, atol=1e-5, msg=lambda m, key=key: f"{key}: {m}"
        )


@quiet_library
@pytest.mark.parametrize("name", COUPLED)
def test_bfloat16_is_nearly_float32(name: str) -> None:
    """Gradients point the same way and come in float32, as statistics do, sliced and masked.

    BatchNorm of six samples turns rounding into more than elsewhere.
    """
    found, mask = case(name), some_units(case(name).coupling, 0)
    for kind in (Masked, Sliced):
        gradients = []
        for precision in ("float32", "bfloat16"):
            net = found.network(torch.float32)
            runner = kind(net, loss, precision=precision)
            noise = Noise(generator=Generator().manual_seed(1))
            updates = runner.differentiate(found.x, 1, net.active(mask), noise).updates
            assert all(update.gradient.dtype is torch.float32 for update in updates)
            assert all(b.dtype is torch.float32 for b in net.buffers.values() if b.is_floating_point())
            gradients.append(torch.cat([update.gradient.flatten() for update in updates]))
        exact, rounded = gradients
        assert not torch.equal(exact, rounded)
        assert float(torch.cosine_similarity(exact, rounded, dim=0)) > 0.95


@quiet_library
@pytest.mark.parametrize("name", COUPLED)
def test_whole_groups_may_sleep(name: str) -> None:
    """In a sample of the gates a group may have no unit awake, or none at all: losses are those of the masks."""
    found, net = case(name), case(name).network()
    groups = net.coupling.groups
    masks = [some_units(net.coupling, 0) for _ in groups]
    for mask, group in zip(masks, groups, strict=True):
        mask[group.slice] = False
    for mask in [*masks, torch.zeros(net.coupling.size, dtype=torch.bool)]:
        active = net.active(mask)
        losses = []
        for kind in (Masked, Sliced):
            runner = kind(found.network(), loss)
            losses.append(runner.evaluate(found.wide, 1, active, Noise(generator=Generator().manual_seed(1))))
            evaluation = runner.differentiate(
                found.wide, 1, active, Noise(generator=Generator().manual_seed(1))
            )
            assert evaluation.loss == pytest.approx(losses[-1], abs=1e-9)
        assert losses[0] == pytest.approx(losses[1], abs=1e-5)


def test_what_has_nothing_to_prune_says_why() -> None:
    """Norms over channels and adds leave no group; every layer has its reason."""
    coupling = case("group-norm").coupling
    assert coupling.groups == ()
    assert {one.name for one in coupling.unpruned} == {"stem", "conv1", "conv2", "fc"}
    assert all("normalises over it" in one.reason for one in coupling.unpruned if one.name != "fc")


@quiet_library
@pytest.mark.parametrize("round_to", [1, 2, 3])
@pytest.mark.parametrize("name", COUPLED)
def test_budgets_are_met_and_used(name: str, round_to: int) -> None:
    """From the smallest network on, whatever the scores: what is kept computes, costs no more, and leaves no room."""
    net = case(name).network()
    coupling, model = net.coupling, cost_model(net.graph, net.coupling)
    dense, smallest = check_feasible(model, Budget(max_params=10**9), round_to)
    for seed, share in enumerate((0.0, 0.1, 0.4, 0.8)):
        budget = Budget(max_params=smallest.params + int(share * (dense.params - smallest.params)))
        scores = torch.randn(coupling.size, generator=Generator().manual_seed(seed), dtype=torch.float64)
        hardened = harden(model, budget, scores > 0, scores, round_to)
        mask = hardened.mask
        assert hardened.cost.params <= budget.limits["params"], (seed, share)
        assert torch.equal(coupling.close(mask), mask)
        assert coupling.is_network(mask)
        for group in coupling.groups:
            live, step = int(mask[group.slice].sum()), min(round_to, group.size)
            if group.kind not in (Kind.HEAD, Kind.FEATURE):
                assert live % step == 0 or live == group.size, (group.name, live)
            sleeping = [group.offset + place for place in range(group.size) if not mask[group.offset + place]]
            if round_to == 1:
                assert not any(fits(model.count(opened(coupling, mask, unit)), budget) for unit in sleeping)


def opened(coupling: Coupling, mask: Tensor, unit: int) -> Tensor:
    """The mask with one more unit, and the one that it lies in, or one that lies in it."""
    mask = mask.clone()
    mask[unit] = True
    if coupling.parent[unit] != FIXED:
        mask[coupling.parent[unit]] = True
    if unit in coupling.children:
        mask[coupling.children[unit][0]] = True
    assert torch.equal(coupling.close(mask), mask)
    return mask
