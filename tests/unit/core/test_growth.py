"""growth.py and widening.py: what starts awake, what wakes next, and networks that grow as they train."""

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from compress_runs import architecture_of, report_of, run
from small_networks import CONV_INPUTS, batch, conv_network, cross_entropy
from test_pipeline import write_digits
from torch import Generator

from npn_core.budget import OVERSHOOT
from npn_core.config import Budget, CatalogueModel, Expansion, Training
from npn_core.cost import cost_model
from npn_core.data import inspect_dataset
from npn_core.errors import InvalidInput
from npn_core.gated import Network, Noise
from npn_core.growth import (
    Pulse,
    asked,
    awake_at_first,
    demand,
    hibernate,
    is_grown,
    lacking,
    wake,
)
from npn_core.job import CompressJob
from npn_core.optimizer import SlicedAdam
from npn_core.pipeline import plan
from npn_core.progress import Stage
from npn_core.step import Sliced
from npn_core.widening import widen

FEW = Expansion(awake={"conv1": 2, "conv2": 2, "fc1.in": 7, "fc1": 3})


@pytest.fixture(autouse=True)
def without_onnx(monkeypatch: pytest.MonkeyPatch) -> None:
    """No model.onnx, which takes longer than a job of these."""
    monkeypatch.setattr("npn_core.onnx_export._PACKAGES", ("an_absent_package",))


def counts(net: Network, awake: torch.Tensor) -> dict[str, int]:
    """Awake units by group."""
    return {group.name: int(awake[group.slice].sum()) for group in net.coupling.groups}


def sleeping(net: Network, expansion: Expansion = FEW) -> torch.Tensor:
    """The awake units of a network that has been put to sleep."""
    awake = awake_at_first(net.coupling, expansion)
    hibernate(net, ~awake)
    return awake


def test_what_starts_awake() -> None:
    """So many of each named group; features lie in channels that are awake; all of what is not named."""
    net = conv_network()
    awake = awake_at_first(net.coupling, FEW)
    assert counts(net, awake) == {"conv1": 2, "conv2": 2, "fc1.in": 7, "fc1": 3}
    assert torch.equal(net.coupling.close(awake), awake)
    named = awake_at_first(net.coupling, Expansion(awake={"conv2": 1}))
    assert counts(net, named) == {"conv1": 4, "conv2": 1, "fc1.in": 9, "fc1": 6}
    assert bool(awake_at_first(net.coupling, Expansion()).all())


@pytest.mark.parametrize(
    ("awake", "said"),
    [
        ({"conv9": 1}, "no group 'conv9'; it has conv1, conv2, fc1.in, fc1"),
        ({"conv1": 5}, "between 1 and 4"),
        ({"conv2": 1, "fc1.in": 10}, "the channels that are awake hold 9"),
    ],
)
def test_what_cannot_start_awake_is_refused(awake: dict[str, int], said: str) -> None:
    """With the groups that there are, and how large they are."""
    with pytest.raises(InvalidInput, match=said) as caught:
        awake_at_first(conv_network().coupling, Expansion(awake=awake))
    assert caught.value.field == "expand.awake"


def test_waking_changes_no_output_of_a_trained_network() -> None:
    """What was put to sleep is read with weights of 0; the same network, all awake, is another function before."""
    net = conv_network(dtype=torch.float64)
    x, _ = batch(Generator().manual_seed(0), torch.float64)
    whole = net.evaluate(x)[0]
    awake = sleeping(net)
    before = net.evaluate(x, net.active(awake))[0]
    torch.testing.assert_close(net.evaluate(x)[0], before, rtol=0, atol=1e-12)
    assert not torch.allclose(whole, before)


def test_demand_is_the_fall_of_the_loss() -> None:
    """The squared gradients of the weights that read a unit, as autograd has them; no weight and no statistic moves."""
    net = conv_network(dropout=0, dtype=torch.float64)
    awake = awake_at_first(net.coupling, FEW)
    kept = copy.deepcopy(net.graph.state_dict())
    x, y = batch(Generator().manual_seed(1), torch.float64)
    found = demand(net, awake, cross_entropy, [(x, y, Noise(generator=Generator()))])
    silent = Network(copy.deepcopy(net.graph), net.coupling)
    hibernate(silent, ~awake)
    plain = silent.graph.train()
    cross_entropy((plain(*x),), y).backward()
    gradient = plain.get_submodule("fc2").weight.grad
    own = net.coupling.by_name["fc1"].slice
    torch.testing.assert_close(found[own], gradient.square().sum(dim=0))
    assert all(torch.equal(tensor, kept[name]) for name, tensor in net.graph.state_dict().items())


def test_the_most_wanted_wake() -> None:
    """Half as many again of each group, by their scores; a channel brings its features, and others wake alone."""
    net = conv_network()
    coupling, awake = net.coupling, awake_at_first(net.coupling, FEW)
    wanted = asked(coupling, awake)
    assert wanted == {"conv1": 1, "conv2": 1, "fc1.in": 4, "fc1": 2}
    scores = torch.arange(coupling.size, dtype=torch.float64)
    grown = wake(coupling, awake, wanted, scores)
    assert bool(grown[awake].all())
    assert bool(grown[coupling.by_name["conv1"].slice][3])
    assert bool(grown[coupling.by_name["conv2"].slice][4])
    assert counts(net, grown) == {"conv1": 3, "conv2": 3, "fc1.in": 7 + 4 + 9, "fc1": 5}
    assert torch.equal(coupling.close(grown), grown)


def test_room_is_made_where_it_lacks() -> None:
    """A group is widened by its own size at least; features come with their channels."""
    coupling = conv_network().coupling
    everything = torch.ones(coupling.size, dtype=torch.bool)
    assert lacking(coupling, everything, asked(coupling, everything)) == {"conv1": 4, "conv2": 5, "fc1": 6}
    few = awake_at_first(coupling, FEW)
    assert lacking(coupling, few, asked(coupling, few)) == {}


def test_a_network_that_does_not_gain_is_asked_less_often() -> None:
    """32 steps after each validation that was the best so far; twice as long after each that was not."""
    pulse = Pulse.of(10_000)
    due = [pulse.due]
    for loss in (1.0, 0.9, 0.95, 0.9, 0.8, 0.7):
        pulse = pulse.after(loss, pulse.due)
        due.append(pulse.due)
    assert due == [32, 64, 96, 96 + 64, 96 + 64 + 128, 320, 352]
    assert pulse.best == 0.7
    assert Pulse.of(80).due == 5  # eight times in the first half
    assert Pulse.of(3).due == 1


def test_growing_ends_at_a_multiple_of_the_budget() -> None:
    """So that stage 2 has something to choose from."""
    net = conv_network()
    costs, everything = cost_model(net.graph, net.coupling), torch.ones(net.coupling.size, dtype=torch.bool)
    params = costs.count(everything).params
    assert is_grown(costs, Budget(max_params=int(params / OVERSHOOT)), everything)
    assert not is_grown(costs, Budget(max_params=int(params / OVERSHOOT) + 1), everything)


def test_moments_follow_their_units() -> None:
    """A step on what was there before goes the same way in the wide network; new weights have no moments."""
    narrow = conv_network(dropout=0)
    adam = SlicedAdam(parameters=narrow.parameters)
    data = Generator().manual_seed(0)

    def step(net: Network, optimizer: SlicedAdam, active: torch.Tensor) -> None:
        x, y = batch(data)
        noise = Noise(generator=Generator())  # of another length in the wider network
        found = Sliced(net, cross_entropy).differentiate(x, y, net.active(active), noise)
        optimizer.step(found.updates, lr=0.01)

    everything = torch.ones(narrow.coupling.size, dtype=torch.bool)
    for _ in range(3):
        step(narrow, adam, everything)
    wider = widen(narrow, {"conv1": 3, "conv2": 2, "fc1": 4}, CONV_INPUTS, Generator().manual_seed(1))
    wide_adam = adam.widened(wider.network.parameters, wider.layout, narrow.dims)
    for name, moment in wide_adam.moments["first"].items():
        assert int((moment != 0).sum()) == int((adam.moments["first"][name] != 0).sum())
    state = data.get_state()
    for net, optimizer, active in ((narrow, adam, everything), (wider.network, wide_adam, ~wider.inserted)):
        data.set_state(state)
        for _ in range(2):
            step(net, optimizer, active)
    x, _ = batch(Generator().manual_seed(5))
    found = wider.network.evaluate(x, wider.network.active(~wider.inserted))[0]
    torch.testing.assert_close(found, narrow.evaluate(x)[0], rtol=0, atol=1e-5)


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The digits that ship with scikit-learn."""
    return write_digits(tmp_path_factory.mktemp("digits") / "digits.npz")


def expansion_job(digits: Path, output: Path, hidden: str = "3,3", **awake: int) -> CompressJob:
    """A job on a network of this size that ends in a few seconds."""
    return CompressJob(
        model=CatalogueModel(name="mlp", params={"hidden": hidden}),
        dataset=digits,
        layout="",
        budget=Budget(max_params=1_500),
        training=Training(epochs=20, batch_size=32, seed=3, lr=3e-3),
        expansion=Expansion(awake=awake),
        output=output,
    )


def test_a_small_network_grows(digits: Path, tmp_path: Path) -> None:
    """From 3 and 3 neurons, too few for ten classes, to a network within the budget that knows them."""
    job = expansion_job(digits, tmp_path)
    outcome, said = run(job)
    first = 64 * 3 + 3 + 3 * 3 + 3 + 3 * 10 + 10
    assert outcome.dense.params == first < outcome.compact.params <= 1_500
    assert {m.name: m.value for m in outcome.metrics}["compact_test_accuracy"] > 0.9
    assert report_of(job).relative_difference <= 1e-5
    sizes = [sum(g.active for g in one.groups) for one in said if one.stage is Stage.DENSE]
    assert sizes == sorted(sizes)
    assert len(set(sizes)) > 2
    widths = {group.name: len(group.kept) for group in architecture_of(job).groups}
    assert widths["fc1"] > 3


def test_awake_units_alone_take_part(digits: Path, tmp_path: Path) -> None:
    """In stage 1 what hibernates costs nothing: costs begin with what is awake."""
    job = expansion_job(digits, tmp_path, hidden="100,50", fc1=3, fc2=3)
    _, said = run(job)
    started = next(one for one in said if one.costs)
    assert started.costs[0].hard == 64 * 3 + 3 + 3 * 3 + 3 + 3 * 10 + 10


def test_a_network_that_starts_too_large_shrinks(digits: Path, tmp_path: Path) -> None:
    """All of 100 and 50 neurons awake, the same budget: met, and used."""
    outcome, _ = run(expansion_job(digits, tmp_path, hidden="100,50"))
    assert outcome.dense.params > 11_000
    assert 1_350 <= outcome.compact.params <= 1_500


def test_what_hibernates_is_no_part_of_the_dense_network(digits: Path, tmp_path: Path) -> None:
    """The teacher, and what the report calls dense, is what stage 1 trained, and not what it left as it was drawn."""
    job = expansion_job(digits, tmp_path, hidden="200,100", fc1=3, fc2=3)
    _, said = run(job)
    last = [one for one in said if one.stage is Stage.DENSE and one.metrics][-1]
    assert sum(group.active for group in last.groups) < 364
    dense = {metric.name: metric.value for metric in report_of(job).metrics}
    for metric in last.metrics:
        assert dense[f"dense_{metric.name}"] == pytest.approx(metric.value, rel=1e-5)


def test_every_class_is_asked_what_it_wants(
    digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a dataset is sorted by its classes, too."""
    arrays = dict(np.load(digits))
    order = arrays["y_train"].argsort()
    np.savez(tmp_path / "sorted.npz", **arrays | {k: arrays[k][order] for k in ("x_train", "y_train")})
    heard: list[set[int]] = []

    def recorded(*task: Any) -> torch.Tensor:
        batches = [*task[-1]]
        heard.append({int(label) for _, y, _ in batches for label in y})
        return demand(*task[:-1], batches)

    monkeypatch.setattr("npn_core.train.demand", recorded)
    job = replace(
        expansion_job(tmp_path / "sorted.npz", tmp_path), training=Training(epochs=3, batch_size=32)
    )
    run(job)
    assert heard
    assert all(len(classes) > 7 for classes in heard)


def test_a_plan_names_the_groups(digits: Path, tmp_path: Path) -> None:
    """Before training: an unknown group is refused with those that there are."""
    job = expansion_job(digits, tmp_path, fc7=1)
    with pytest.raises(InvalidInput, match="no group 'fc7'"):
        plan(job.model, inspect_dataset(digits, layout=""), job.budget, job.training, job.expansion)
    plan(job.model, inspect_dataset(digits, layout=""), job.budget, job.training, Expansion())


def test_the_same_seed_grows_the_same_network(digits: Path, tmp_path: Path) -> None:
    """New units are drawn from the job's seed."""
    files = []
    for name in ("one", "other"):
        job = replace(expansion_job(digits, tmp_path / name), output=tmp_path / name)
        run(job)
        files.append((job.output / "model.safetensors").read_bytes())
    assert files[0] == files[1]
