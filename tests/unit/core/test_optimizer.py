"""Optimizers on slices against torch's own, and Adam for gates."""

import pytest
import torch
import torch.nn.functional as F
from small_networks import batch, conv_net, conv_network, cross_entropy
from torch import Generator, Tensor

from npn_core.config import Training
from npn_core.gated import Noise
from npn_core.optimizer import GateAdam, SlicedAdam, SlicedSgd, Update, settled
from npn_core.step import Sliced


def test_everything_taking_part_is_adamw() -> None:
    """Five steps of the whole network are those of torch.optim.AdamW on the plain module."""
    plain = conv_net(dropout=0).double().train()
    net = conv_network(dropout=0, dtype=torch.float64)
    adamw = torch.optim.AdamW(plain.parameters(), lr=0.01, weight_decay=0.1)
    adam = SlicedAdam(parameters=net.parameters, weight_decay=0.1)
    runner, generator = Sliced(net, cross_entropy), Generator().manual_seed(0)
    for _ in range(5):
        x, y = batch(generator, torch.float64)
        adamw.zero_grad()
        F.cross_entropy(plain(*x), y).backward()
        adamw.step()
        evaluation = runner.differentiate(x, y, net.everything, Noise(generator=generator))
        adam.step(evaluation.updates, lr=0.01)
    assert adam.steps == 5
    for name, parameter in plain.named_parameters():
        torch.testing.assert_close(net.parameters[name].detach(), parameter.detach(), rtol=0, atol=1e-8)
        torch.testing.assert_close(
            adam.moments["first"][name], adamw.state[parameter]["exp_avg"], rtol=0, atol=1e-10
        )
        torch.testing.assert_close(
            adam.moments["second"][name], adamw.state[parameter]["exp_avg_sq"], rtol=0, atol=1e-10
        )


def test_everything_taking_part_is_sgd() -> None:
    """Five steps of the whole network are those of torch.optim.SGD with Nesterov momentum on the plain module."""
    plain = conv_net(dropout=0).double().train()
    net = conv_network(dropout=0, dtype=torch.float64)
    theirs = torch.optim.SGD(plain.parameters(), lr=0.01, momentum=0.9, nesterov=True, weight_decay=0.1)
    ours = SlicedSgd(parameters=net.parameters, weight_decay=0.1)
    runner, generator = Sliced(net, cross_entropy), Generator().manual_seed(0)
    for _ in range(5):
        x, y = batch(generator, torch.float64)
        theirs.zero_grad()
        F.cross_entropy(plain(*x), y).backward()
        theirs.step()
        evaluation = runner.differentiate(x, y, net.everything, Noise(generator=generator))
        ours.step(evaluation.updates, lr=0.01)
    for name, parameter in plain.named_parameters():
        torch.testing.assert_close(net.parameters[name].detach(), parameter.detach(), rtol=0, atol=1e-8)
        buffer = theirs.state[parameter]["momentum_buffer"]
        torch.testing.assert_close(ours.moments["momentum"][name], buffer, rtol=0, atol=1e-10)


def test_a_slice_moves_by_sgd_and_the_rest_not_at_all() -> None:
    """Weight decay and momentum touch what took part alone."""
    start = torch.rand(3, 4, generator=Generator().manual_seed(0))
    full, rows = start.clone(), torch.tensor([0, 2])
    sgd = SlicedSgd(parameters={"w": full}, weight_decay=0.1)
    part = start[rows].clone().requires_grad_()
    theirs = torch.optim.SGD([part], lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.1)
    for seed in range(3):
        part.grad = torch.rand(2, 4, generator=Generator().manual_seed(seed)) - 0.5
        sgd.step([Update(name="w", indices=(rows, None), gradient=part.grad)], lr=0.1)
        theirs.step()
    torch.testing.assert_close(full[rows], part.detach())
    assert torch.equal(full[1], start[1])
    assert not sgd.moments["momentum"]["w"][1].any()


@pytest.mark.parametrize(
    ("asked", "normed", "objective", "trained", "expected"),
    [
        (Training(), True, "cross_entropy", False, ("sgd", 0.1, 5e-4)),
        (Training(), False, "cross_entropy", False, ("adam", 1e-3, 0.1)),
        (Training(), True, "cross_entropy", True, ("adam", 1e-3, 0.0)),
        (Training(), True, "mse", False, ("adam", 1e-3, 0.1)),
        (Training(lr=0.01), True, "cross_entropy", False, ("adam", 0.01, 0.01)),
        (Training(optimizer="sgd", lr=0.01), False, "mse", True, ("sgd", 0.01, 5e-4)),
        (Training(weight_decay=0.0), True, "cross_entropy", False, ("sgd", 0.1, 0.0)),
        (Training(optimizer="adam", weight_decay=0.3), True, "cross_entropy", False, ("adam", 1e-3, 0.3)),
    ],
)
def test_the_optimizer_suits_the_network(
    asked: Training, normed: bool, objective: str, trained: bool, expected: tuple[str, float, float]
) -> None:
    """SGD for new networks with BatchNorm and classes, Adam else; what the job says stays."""
    found = settled(asked, normed, objective, trained=trained)
    assert (found.optimizer, found.lr, found.weight_decay) == expected


@pytest.mark.parametrize("rows", [None, [], [0, 2]])
@pytest.mark.parametrize("cols", [None, [], [1]])
def test_a_slice_moves_as_adamw_would_and_the_rest_not_at_all(
    rows: list[int] | None, cols: list[int] | None
) -> None:
    """Entries outside of the slice keep their value and their moments to the bit."""
    start = torch.rand(3, 4, generator=Generator().manual_seed(0))
    r = torch.arange(3) if rows is None else torch.tensor(rows, dtype=torch.int64)
    c = torch.arange(4) if cols is None else torch.tensor(cols, dtype=torch.int64)
    gradient = torch.rand(len(r), len(c), generator=Generator().manual_seed(1)) - 0.5

    full = start.clone()
    adam = SlicedAdam(parameters={"w": full}, weight_decay=0.1)
    update = Update(
        name="w",
        indices=(r if rows is not None else None, c if cols is not None else None),
        gradient=gradient,
    )
    adam.step([update], lr=0.01)

    part = start[r][:, c].clone().requires_grad_()
    part.grad = gradient
    torch.optim.AdamW([part], lr=0.01, weight_decay=0.1).step()
    expected, inside = start.clone(), torch.zeros(3, 4, dtype=torch.bool)
    for i, row in enumerate(r.tolist()):
        for j, col in enumerate(c.tolist()):
            expected[row, col], inside[row, col] = part[i, j].item(), True
    torch.testing.assert_close(full, expected)
    assert torch.equal(full[~inside], start[~inside])
    assert not adam.moments["first"]["w"][~inside].any()
    assert not adam.moments["second"]["w"][~inside].any()


def test_the_memory_format_of_a_gradient_does_not_matter() -> None:
    """A channels-last gradient moves each weight by its own entry, as a contiguous one does."""
    gradient = torch.rand(4, 3, 5, 5, generator=Generator().manual_seed(0)) - 0.5
    moved_weights = []
    for layout in (torch.contiguous_format, torch.channels_last):
        adam = SlicedAdam(parameters={"w": torch.zeros(4, 3, 5, 5)})
        own = gradient.contiguous(memory_format=layout)
        adam.step([Update(name="w", indices=(None,) * 4, gradient=own)], lr=0.01)
        moved_weights.append(adam.parameters["w"])
    assert torch.equal(*moved_weights)


PHI = torch.tensor([0.5, -0.5, 1.0, 0.0], dtype=torch.float64)
AWAKE = torch.tensor([True, True, True, False])
ZERO, ONE = torch.zeros(4, dtype=torch.float64), torch.ones(4, dtype=torch.float64)


def moved(gradient: Tensor, pull: Tensor = ZERO, price: Tensor = ONE, lr: float = 0.1) -> Tensor:
    """What one step adds to phi."""
    phi = PHI.clone()
    GateAdam(limit=3.0, first=ZERO.clone()).step(phi, gradient, pull, price, AWAKE, lr)
    return phi - PHI


def test_gates_go_against_the_gradient() -> None:
    """A gate whose opening costs loss closes, one that saves loss opens, one asleep stays."""
    step = moved(torch.tensor([1.0, -1.0, 0.0, 5.0]).double())
    assert step[0] < 0 < step[1]
    assert step[2:].tolist() == [0, 0]


def test_the_size_of_the_loss_does_not_matter() -> None:
    """A loss ten times as large moves the gates as far."""
    gradient = torch.tensor([1.0, -2.0, 0.5, 0.0]).double()
    torch.testing.assert_close(moved(10 * gradient), moved(gradient))


def test_a_multiplier_is_not_cancelled() -> None:
    """Twice the pull moves a gate twice as far, by lr * pull / price, whatever the gradients are."""
    gradient = torch.tensor([1.0, -2.0, 0.5, 0.0]).double()
    pull, price = torch.tensor([0.2, 0.4, 0.1, 9.0]).double(), torch.tensor([1.0, 2.0, 0.5, 1.0]).double()
    alone = moved(gradient, price=price)
    once = moved(gradient, pull, price) - alone
    torch.testing.assert_close(once, -0.1 * (pull / price) * AWAKE)
    torch.testing.assert_close(moved(gradient, 2 * pull, price) - alone, 2 * once)


def test_gates_are_moved_by_loss_per_cost() -> None:
    """Of two gates with the same gradient the dear one moves less, in the ratio of their prices."""
    step = moved(
        torch.tensor([1.0, 1.0, 0.0, 0.0]).double(), price=torch.tensor([1.0, 4.0, 1.0, 1.0]).double()
    )
    assert step[0] / step[1] == pytest.approx(4)


def test_phi_stays_within_its_limit() -> None:
    """So that a sleeping gate can wake again."""
    step = moved(ZERO, pull=torch.tensor([100.0, -100.0, 0.0, 0.0]).double())
    assert (PHI + step).tolist() == [-3.0, 3.0, 1.0, 0.0]
