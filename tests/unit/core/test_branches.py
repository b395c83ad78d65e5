"""branches.py: residual branches that leave as a whole."""

import copy
from dataclasses import replace

import pytest
import torch
from compress_runs import architecture_of, loaded_outputs, metrics_of, report_of, run
from own_jobs import Pictures, Residual, accuracy_of, job_of, pictures, seeded
from small_networks import infos, network, unit_name
from torch import Tensor, nn

from npn_core import recount
from npn_core.branches import check_branches, find_branches, thin_branches, without
from npn_core.catalogue import build
from npn_core.config import Budget, Expansion, Preprocessing, Training
from npn_core.cost import cost_model
from npn_core.errors import InvalidInput
from npn_core.gated import Network
from npn_core.groups import units_of
from npn_core.job import CompressJob
from npn_core.optimizer import SlicedSgd

SHAPE = (1, 6, 6)
INPUTS = infos(SHAPE)


def residual() -> Network:
    """Two branches that can leave, conv1's and conv3's."""
    return network(seeded(Residual), SHAPE)


def whole(net: Network) -> Tensor:
    """All of its units."""
    return torch.ones(net.coupling.size, dtype=torch.bool)


def scored(net: Network, **groups: float) -> tuple[Tensor, Tensor]:
    """Every gate open, and scores between 0 and 1 by chance, those of the named groups less so much."""
    scores = torch.rand(net.coupling.size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for name, less in groups.items():
        scores[net.coupling.by_name[name].slice] -= less
    return whole(net), scores


def test_a_branch_adds_to_what_it_reads() -> None:
    """Not what is added to a projection, nor a layer whose channels are the stream's own."""
    found = find_branches(residual())
    assert [(branch.name, [group.name for group in branch.groups]) for branch in found] == [
        ("conv1", ["conv1"]),
        ("conv3", ["conv3"]),
    ]
    assert not find_branches(network(seeded(Pictures), SHAPE))


class Pinned(nn.Module):
    """A stream whose channels stay because the first branch normalises over them, and a second, tied branch."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Linear(16, 12), nn.LayerNorm(12)
        self.a, self.b = nn.Linear(12, 8), nn.Linear(8, 12)
        self.c, self.d, self.head = nn.Linear(12, 8), nn.Linear(8, 12), nn.Linear(12, 4)
        self.d.bias = self.b.bias

    def forward(self, x: Tensor) -> Tensor:
        """(N, 16) -> (N, 4)."""
        x = self.stem(x)
        x = x + self.b(torch.relu(self.a(self.norm(x))))
        x = x + self.d(torch.relu(self.c(x)))
        return self.head(x)


def test_a_branch_that_holds_the_stream_stays() -> None:
    """Without it the stream's channels would be units that have no gates; the other branch may leave."""
    net = network(seeded(Pinned), (16,))
    assert {branch.name for branch in find_branches(net)} == {"a", "c"}
    names, rest = thin_branches(
        net, scored(net, a=2, c=1), Budget(max_params=400), Training(thinnest_branch=1.0), infos((16,))
    )
    assert names == ("c",)
    assert {branch.name for branch in find_branches(rest)} == {"a"}


def test_moments_of_a_tied_weight_outlive_its_first_name() -> None:
    """A tensor is called by the first layer that has it, and that layer may leave."""
    net = network(seeded(Pinned), (16,))
    rest = without(net, ["a"], infos((16,)))
    optimizer = SlicedSgd(parameters=net.parameters, weight_decay=0.0)
    for name, moment in optimizer.moments["momentum"].items():
        moment.fill_(len(name))
    kept = optimizer.kept(rest.parameters, net.names)
    for name, moment in kept.moments["momentum"].items():
        assert torch.equal(moment, optimizer.moments["momentum"][net.names[name]])


@pytest.mark.parametrize(
    ("name", "branches"),
    [("resnet20", 7), ("mobilenet-v2", 10), ("convnext-tiny-cifar", 18), ("vit-tiny", 24), ("vgg16-bn", 0)],
)
def test_the_catalogues_branches(name: str, branches: int) -> None:
    """Blocks that keep the shape; of a transformer attention and MLP, each for itself."""
    module = build(name, {}, input_shape=(3, 32, 32), classes=10, seed=0)
    assert len(find_branches(network(module, (3, 32, 32)))) == branches


@pytest.mark.parametrize("name", ["conv1", "conv3"])
def test_without_a_branch_the_network_computes_what_the_stream_says(name: str) -> None:
    """Parameters keep names and values, and those of the branch are gone, its own norms and scale too."""
    full, x = residual(), torch.rand(4, *SHAPE, generator=torch.Generator().manual_seed(1)) * 255
    module = seeded(Residual).eval()
    setattr(module, {"conv1": "first", "conv3": "second"}[name], lambda x: 0 * x)
    gone = {"conv1": ("conv1", "norm1", "conv2", "norm2"), "conv3": ("norm3", "conv3", "conv4", "scale")}
    smaller = without(full, [name], INPUTS)
    expected = {n for n in full.parameters if n.partition(".")[0] not in gone[name]}
    assert smaller.parameters.keys() == expected
    assert all(torch.equal(smaller.parameters[n], full.parameters[n]) for n in expected)
    with torch.no_grad():
        torch.testing.assert_close(smaller.evaluate((x,))[0], module(x))
    costs = cost_model(smaller.graph, smaller.coupling)
    assert costs.count(whole(smaller)) == recount.count(smaller.graph, (x[:1],))
    assert full.parameters.keys() == residual().parameters.keys()  # a copy


def test_units_stay_what_they_were() -> None:
    """Each of the network without a branch is the unit of the same name."""
    full = residual()
    smaller = without(full, ["conv1"], INPUTS)
    before, now = full.coupling, smaller.coupling
    origin = units_of(before, now).tolist()
    assert [unit_name(before, unit) for unit in origin] == [unit_name(now, unit) for unit in range(now.size)]
    assert len(set(origin)) == now.size == before.size - 6


def test_unknown_branches_are_refused() -> None:
    """A name that is no branch's."""
    with pytest.raises(KeyError):
        without(residual(), ["stem"], INPUTS)


def test_the_thin_branch_leaves() -> None:
    """The one whose units matter less, and what it leaves of the budget goes to others; at a share of 0 none."""
    full = residual()
    budget = Budget(max_macs=int(0.4 * cost_model(full.graph, full.coupling).count(whole(full)).macs))
    for thin in ("conv1", "conv3"):
        chosen = scored(full, **{thin: 1.0})
        assert thin_branches(full, chosen, budget, Training(thinnest_branch=0.5), INPUTS)[0][0] == thin
        assert thin_branches(full, chosen, budget, Training(thinnest_branch=0.0), INPUTS) == ((), full)
        assert thin_branches(full, chosen, budget, Training(), INPUTS) == ((), full)
    pictures = network(seeded(Pictures), SHAPE)
    assert thin_branches(pictures, scored(pictures), budget, Training(thinnest_branch=1.0), INPUTS)[0] == ()


def test_no_branch_leaves_that_the_budget_has_room_for() -> None:
    """Without the first the whole rest would be within the budget, so it stays, however thin."""
    full = residual()
    smaller = without(full, ["conv1"], INPUTS)
    macs = cost_model(smaller.graph, smaller.coupling).count(whole(smaller)).macs
    chosen, training = scored(full, conv1=1.0), Training(thinnest_branch=1.0)
    assert thin_branches(full, chosen, Budget(max_macs=macs), training, INPUTS) == ((), full)
    assert thin_branches(full, chosen, Budget(max_macs=macs - 1), training, INPUTS)[0][0] == "conv1"


@pytest.mark.parametrize(
    ("changes", "expansion", "says"),
    [({}, Expansion(), "grows"), ({"units": "weights"}, None, "single weights")],
)
def test_where_no_branch_can_leave_none_is_asked_to(
    changes: dict[str, str], expansion: Expansion | None, says: str
) -> None:
    """By a share above 0; the field is named."""
    with pytest.raises(InvalidInput, match=says) as refused:
        check_branches(Training(thinnest_branch=0.5, **changes), expansion)
    assert refused.value.field == "training.thinnest_branch"
    check_branches(Training(thinnest_branch=0.0, **changes), expansion)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> CompressJob:
    """A job to 700 of 1,675 parameters that drops what keeps less than nine tenths."""
    job = job_of(tmp_path_factory.mktemp("branches"), seeded(Residual), [SHAPE], pictures)
    training = replace(job.training, epochs=40, thinnest_branch=0.9, preprocessing=Preprocessing(mode="none"))
    job = replace(job, training=training, budget=Budget(max_params=700))
    run(job)
    return job


def test_a_job_without_its_thin_branches(finished: CompressJob) -> None:
    """It meets its budget, is proven, and its documents say what left."""
    report, architecture = report_of(finished), architecture_of(finished)
    kept = {group.name: len(group.kept) for group in architecture.groups}
    gone = [name for name in ("conv1", "conv3") if not kept[name]]
    assert gone
    assert kept.keys() == residual().coupling.by_name.keys()
    layers = {layer.name: layer for layer in architecture.layers}
    assert all(layers[name].compact is None for name in gone)
    assert layers["stem"].compact is not None
    assert 670 <= report.compact.params <= 700
    assert report.dense.params == sum(p.numel() for p in Residual().parameters())
    assert report.relative_difference <= 1e-5
    assert accuracy_of(finished) == metrics_of(finished)["compact_test_accuracy"] > 0.9


def test_its_program_holds_no_layer_of_them(finished: CompressJob) -> None:
    """model.pt2 has the tensors of what stayed alone."""
    x = torch.rand(2, *SHAPE) * 255
    assert isinstance(loaded_outputs(finished, x), Tensor)
    program = torch.export.load(finished.output / "model.pt2")
    layers = {name.partition(".")[0] for name in program.state_dict}
    architecture = copy.copy(architecture_of(finished))
    assert layers.isdisjoint(layer.name for layer in architecture.layers if layer.compact is None)
