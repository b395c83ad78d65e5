"""weights.py: single weights as units, from their gates to the file that leaves them out."""

import copy
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from compress_runs import architecture_of, metrics_of, report_of, run
from own_jobs import Normed, Pictures, Regressor, accuracy_of, job_of, pictures, seeded, values
from safetensors.torch import load_file
from small_networks import batch, conv_net, cross_entropy, infos, network
from torch import Generator, Tensor, fx, nn
from torch.func import functional_call

from npn_core import recount, weights
from npn_core.config import Budget, Expansion, ModelFile, Preprocessing, Training
from npn_core.cost import cost_model
from npn_core.data import inspect_dataset
from npn_core.errors import InvalidInput
from npn_core.gated import Network, Noise
from npn_core.graph import annotate
from npn_core.groups import Coupling
from npn_core.job import CompressJob
from npn_core.masks import SCORES
from npn_core.optimizer import SlicedAdam
from npn_core.pipeline import plan
from npn_core.progress import InputInfo
from npn_core.saliency import gate_gradients
from npn_core.step import Masked, Sliced, gated_outputs
from npn_core.surgery import compact, write_back
from npn_core.units import Kind
from npn_core.weights import compacted, weight_coupling

INPUTS = infos((1, 8, 8))
NAMES = ("conv1.weight", "conv2.weight", "fc1.weight", "fc2.weight")


def single_weights(graph: fx.GraphModule, inputs: tuple[InputInfo, ...]) -> Coupling:
    """The graph's single weights as units."""
    return weight_coupling(annotate(graph, inputs))


def conv_network() -> Network:
    """Two convolutions and two linear layers, without dropout."""
    return network(conv_net(dropout=0.0), coupled=single_weights)


def drawn(size: int, seed: int, share: float = 0.5) -> Tensor:
    """A random mask (size,) bool."""
    return torch.rand(size, generator=Generator().manual_seed(seed)) < share


def noise() -> Noise:
    """No dropout draws from it."""
    return Noise(generator=Generator().manual_seed(0))


def job_with_weights(folder: Path) -> CompressJob:
    """A classifier with BatchNorm and a residual connection, to 350 parameters."""
    job = job_of(folder, seeded(Pictures), [(1, 6, 6)], pictures)
    training = replace(job.training, epochs=16, units="weights", preprocessing=Preprocessing(mode="none"))
    return replace(job, training=training, budget=Budget(max_params=350))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> CompressJob:
    """That job, done."""
    job = job_with_weights(tmp_path_factory.mktemp("weights"))
    run(job)
    return job


def test_every_weight_of_a_layer_has_a_gate() -> None:
    """A group for each layer's weight; biases and BatchNorm have none."""
    coupling = conv_network().coupling
    assert [(g.name, g.kind, g.size) for g in coupling.groups] == [
        (name, Kind.WEIGHT, size) for name, size in zip(NAMES, (36, 180, 270, 18), strict=True)
    ]
    assert coupling.size == 504


def test_tied_weights_are_one_unit() -> None:
    """An embedding whose table is the last layer's weight too."""

    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.last = nn.Embedding(9, 4), nn.Linear(4, 9)
            self.last.weight = self.table.weight

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.table(x).mean(1))

    tied = network(seeded(Tied), (3,), inputs="int64", coupled=single_weights)
    assert [group.size for group in tied.coupling.groups] == [36]
    model = cost_model(tied.graph, tied.coupling)
    assert model.count(torch.ones(36, dtype=torch.bool)).params == 36 + 9
    mask = drawn(36, 0)
    smaller, _ = compacted(tied, tied.active(mask), infos((3,), dtype="int64"))
    assert recount.count(
        smaller.graph, (torch.zeros(1, 3, dtype=torch.int64),), tied.coupling.weights
    ).params == (int(mask.sum()) + 9)


def test_there_are_only_so_many_gates(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their numbers have to be held."""
    monkeypatch.setattr(weights, "MOST", 503)
    with pytest.raises(InvalidInput, match="504 weights, and at most 503") as refused:
        conv_network()
    assert refused.value.field == "training.units"


def test_costs_are_those_of_a_recount() -> None:
    """Parameters of any mask, multiply-adds of all; expected parameters are linear."""
    full = conv_network()
    model = cost_model(full.graph, full.coupling)
    one = torch.zeros(1, 1, 8, 8)
    dense = model.count(torch.ones(504, dtype=torch.bool))
    assert dense == recount.count(full.graph, (one,))
    for seed, share in ((0, 0.5), (1, 0.05), (2, 0.0)):
        mask = drawn(504, seed, share)
        smaller = compact(full, full.active(mask), INPUTS)
        counted = recount.count(smaller, (one,), full.coupling.weights)
        assert (counted.params, counted.macs) == (model.count(mask).params, dense.macs)
    pi = torch.rand(504, generator=Generator().manual_seed(3), dtype=torch.float64)
    assert model.expected(pi)[0].item() == pytest.approx(dense.params - 504 + float(pi.sum()))


def test_a_closed_gate_is_a_zero() -> None:
    """Gated, sliced and compact networks compute what torch does with those weights at zero; statistics move alike."""
    full, ((x,), y) = conv_network(), batch(Generator().manual_seed(0))
    mask = drawn(504, 4)
    active = full.active(mask)
    gates = {g.name: mask[g.slice].view_as(full.parameters[g.name]) for g in full.coupling.groups}
    module = copy.deepcopy(full.graph).train()
    zeroed = {name: p.detach() * gates[name] if name in gates else p for name, p in module.named_parameters()}
    expected = cross_entropy((functional_call(module, zeroed, (x,)),), y).item()
    for runner in (Sliced(copy.deepcopy(full), cross_entropy), Masked(copy.deepcopy(full), cross_entropy)):
        evaluation = runner.differentiate((x,), y, active, noise())
        assert evaluation.loss == pytest.approx(expected, rel=1e-5)
        buffers = dict(module.named_buffers())
        for name, buffer in runner.network.buffers.items():
            torch.testing.assert_close(buffer, buffers[name])
    compacted_outputs = compact(full, active, INPUTS).eval()(x)
    torch.testing.assert_close(gated_outputs(full, (x,), active)[0], compacted_outputs)
    torch.testing.assert_close(full.evaluate((x,), active)[0], compacted_outputs)


def test_the_gradient_of_a_gate() -> None:
    """Of open and closed gates it is autograd's, where every gate is a real number that multiplies its weight."""
    full, ((x,), y) = conv_network(), batch(Generator().manual_seed(0))
    mask = drawn(504, 5)
    z = mask.float().requires_grad_()
    module = copy.deepcopy(full.graph).train()
    gated = dict(module.named_parameters())
    for group in full.coupling.groups:
        weight = gated[group.name].detach()
        gated[group.name] = weight * z[group.slice].view_as(weight)  # type: ignore[assignment]
    cross_entropy((functional_call(module, gated, (x,)),), y).backward()  # type: ignore[no-untyped-call]
    assert z.grad is not None
    _, slopes = Masked(full, cross_entropy).slopes((x,), y, mask, noise())
    torch.testing.assert_close(slopes.float(), z.grad, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", [Sliced, Masked])
def test_what_is_closed_does_not_move(kind: type[Sliced]) -> None:
    """Neither such a weight nor its moments, decay or not; all others do."""
    full, ((x,), y) = conv_network(), batch(Generator().manual_seed(0))
    mask = drawn(504, 6)
    before = {name: p.detach().clone() for name, p in full.parameters.items()}
    optimizer = SlicedAdam(parameters=full.parameters, weight_decay=0.1)
    optimizer.step(kind(full, cross_entropy).differentiate((x,), y, full.active(mask), noise()).updates, 0.01)
    for group in full.coupling.groups:
        moved = full.parameters[group.name] != before[group.name]
        assert torch.equal(moved.flatten(), mask[group.slice])
        assert not optimizer.moments["second"][group.name].flatten()[~mask[group.slice]].any()
    assert (full.parameters["fc2.bias"] != before["fc2.bias"]).all()


def test_gates_that_hibernate_take_no_part() -> None:
    """Stage 2's pass is that of what is awake: the others' weights are zeros, and their slopes are not asked for."""
    full, ((x,), y) = conv_network(), batch(Generator().manual_seed(0))
    awake = drawn(504, 7, 0.6)
    base, z = full.active(awake), awake & drawn(504, 8)
    runner = Masked(full, cross_entropy, base)
    evaluation, slopes = runner.slopes((x,), y, z, noise())
    assert evaluation.loss == pytest.approx(
        Sliced(full, cross_entropy).evaluate((x,), y, full.active(z), noise())
    )
    expected = gate_gradients(
        full, full.everything, Masked(full, cross_entropy).slopes((x,), y, z, noise())[0].updates
    )
    torch.testing.assert_close(slopes, expected)
    assert slopes[z].count_nonzero() > 0


def test_the_weights_that_stay_are_written_back() -> None:
    """The full network gets those, keeps its own where they are gone, and its gates make the difference."""
    full, ((x,), _) = conv_network(), batch(Generator().manual_seed(0))
    mask = drawn(504, 9)
    active = full.active(mask)
    smaller, kept = compacted(full, active, INPUTS)
    assert torch.equal(kept.alive, active.alive)
    with torch.no_grad():
        for parameter in smaller.parameters.values():
            parameter.mul_(1.5)
    before = full.parameters["fc1.weight"].detach().clone()
    write_back(full, active, smaller.graph)
    gates = mask[full.coupling.by_name["fc1.weight"].slice].view_as(before)
    torch.testing.assert_close(full.parameters["fc1.weight"], torch.where(gates, 1.5 * before, before))
    torch.testing.assert_close(gated_outputs(full, (x,), active)[0], smaller.graph.eval()(x))


@pytest.mark.parametrize("mask", ["learned", "random", "magnitude", "saliency"])
def test_the_budget_is_used_to_the_last_weight(mask: str, tmp_path: Path) -> None:
    """Whatever chose them; and what is left of the network is told as such."""
    job = job_of(tmp_path, seeded(Regressor), [(6,)], values)
    job = replace(
        job,
        budget=Budget(max_params=150),
        training=replace(job.training, loss="mse", units="weights", mask=mask),
    )
    outcome, _ = run(job)
    assert outcome.compact.params == 150
    assert outcome.compact.macs == outcome.dense.macs
    assert "single weights leave" in " ".join(report_of(job).warnings)
    assert report_of(job).largest_difference < 1e-5


def test_magnitude_scores_are_the_weights_own() -> None:
    """Relative to their layer's mean."""
    full = conv_network()
    scores = SCORES["magnitude"](full, Generator())
    weight = full.parameters["fc1.weight"].detach().double().abs().flatten()
    torch.testing.assert_close(scores[full.coupling.by_name["fc1.weight"].slice], weight / weight.mean())


def test_a_job_keeps_zeros_zero(finished: CompressJob) -> None:
    """Through stage 3; the program that comes out has as many weights as the budget, and learned something."""
    stored = torch.export.load(finished.output / "model.pt2").state_dict
    document = architecture_of(finished)
    assert (document.groups, [one.name for one in document.sparse]) == (
        (),
        ["conv1.weight", "conv2.weight", "fc.weight"],
    )
    assert [one.kept for one in document.sparse] == [
        int(stored[one.name].count_nonzero()) for one in document.sparse
    ]
    others = sum(
        value.numel()
        for name, value in stored.items()
        if name not in {one.name for one in document.sparse}
        and "running" not in name
        and "tracked" not in name
    )
    assert others + sum(one.kept for one in document.sparse) == 350
    accuracy = accuracy_of(finished)
    assert accuracy == pytest.approx(metrics_of(finished)["compact_test_accuracy"])
    assert accuracy > 0.9


def test_the_file_leaves_zeros_out(finished: CompressJob) -> None:
    """The weights come back from their values and places; a weight that would not become smaller is whole."""
    held = load_file(finished.output / "model.safetensors")
    stored = torch.export.load(finished.output / "model.pt2").state_dict
    assert (
        sum(t.nbytes for t in held.values())
        == report_of(finished).compact.bytes
        < report_of(finished).dense.bytes
    )
    whole = 0
    for one in architecture_of(finished).sparse:
        if one.name in held:
            assert 2 * one.kept >= math.prod(one.shape)
            whole += 1
            continue
        indices, kept = held[f"{one.name}.indices"], held[f"{one.name}.values"]
        assert (indices.dtype, len(indices), bool((indices.diff() > 0).all())) == (
            torch.int32,
            one.kept,
            True,
        )
        weight = torch.zeros(one.shape)
        weight.view(-1)[indices.long()] = kept
        assert torch.equal(weight, stored[one.name])
    assert whole < len(architecture_of(finished).sparse)


@pytest.mark.parametrize(
    ("budget", "changes", "expansion", "field"),
    [
        (Budget(max_macs=1000), {}, None, "budget.max_macs"),
        (Budget(max_params=150, max_bytes=1000), {}, None, "budget.max_bytes"),
        (Budget(max_params=150), {"round_to": 8}, None, "training.round_to"),
        (Budget(max_params=150), {}, Expansion(), "training.units"),
    ],
)
def test_what_weights_cannot_do_is_refused(
    budget: Budget, changes: dict[str, int], expansion: Expansion | None, field: str, tmp_path: Path
) -> None:
    """Before training, with the field."""
    job = job_of(tmp_path, seeded(Regressor), [(6,)], values)
    training = Training(loss="mse", units="weights", **changes)  # type: ignore[arg-type]
    with pytest.raises(InvalidInput) as refused:
        plan(job.model, inspect_dataset(job.dataset), budget, training, expansion)
    assert refused.value.field == field


def test_the_plan_tells_the_range(tmp_path: Path) -> None:
    """From the parameters that have no gate to all of them."""
    job = job_of(tmp_path, seeded(Regressor), [(6,)], values)
    training = replace(job.training, loss="mse", units="weights")
    found = plan(job.model, inspect_dataset(job.dataset), job.budget, training)
    assert (found.smallest.params, found.dense.params) == (24 + 16 + 2, 602)
    assert next((group.name, group.kind) for group in found.groups) == ("fc1.weight", "weight")
    assert found.prunable == pytest.approx(560 / 602)


def test_a_network_whose_channels_stay_can_lose_weights(tmp_path: Path) -> None:
    """GroupNorm holds all channels; single weights leave nonetheless."""
    job = job_of(tmp_path, seeded(Normed), [(1, 6, 6)], pictures)
    job = replace(job, training=replace(job.training, preprocessing=Preprocessing(mode="none")))
    assert isinstance(job.model, ModelFile)
    with pytest.raises(InvalidInput, match="units weights"):
        plan(job.model, inspect_dataset(job.dataset), job.budget, job.training)
    job = replace(job, training=replace(job.training, units="weights"), budget=Budget(max_params=70))
    assert run(job)[0].compact.params == 70
