"""Who teaches, what the teacher says, and the loss of its pupil."""

import copy

import pytest
import torch
import torch.nn.functional as F
from small_networks import CLASSES, CONV_INPUT, conv_network, infos
from torch import Generator, Tensor

from npn_core import distillation
from npn_core.config import Training
from npn_core.data import Data, Split
from npn_core.distillation import OWN_TEACHER_SHARE, TEMPERATURE, Teacher, pupil_loss, share_of, soft_targets
from npn_core.objective import Objective
from npn_core.progress import DatasetInfo, Metric
from npn_core.report import AppliedPreprocessing
from npn_core.schedule import EARLY, RATES

CLASSIFIER = Objective(kind="cross_entropy", output=0)


def accuracy(value: float) -> tuple[Metric, ...]:
    """What validation said."""
    return (Metric(name="validation_accuracy", value=value), Metric(name="validation_loss", value=0.1))


@pytest.mark.parametrize(
    ("training", "trained", "metrics", "share"),
    [
        (Training(), False, accuracy(0.99), OWN_TEACHER_SHARE),
        (Training(), True, accuracy(0.5), 1.0),
        (Training(), False, (), 0.0),
        (Training(loss="mse"), False, (Metric(name="validation_loss", value=0.0),), 0.0),
        (Training(distillation=0.25), False, accuracy(0.1), 0.25),
        (Training(distillation=0.0), True, accuracy(1.0), 0.0),
        (Training(loss="distill", distillation=0.25), True, (), 1.0),
    ],
)
def test_who_teaches(training: Training, trained: bool, metrics: tuple[Metric, ...], share: float) -> None:
    """What the job says; else a network that came trained all, one of the job's own half; for distill always all."""
    assert share_of(training, RATES["sgd"], trained=trained, metrics=metrics) == share


def test_a_network_whose_rate_never_fell_does_not_teach() -> None:
    """Unless the job says so."""
    metrics = accuracy(0.99)
    assert share_of(Training(), EARLY["sgd"], trained=False, metrics=metrics) == 0.0
    assert share_of(Training(distillation=0.5), EARLY["sgd"], trained=False, metrics=metrics) == 0.5


def data(samples: int = 30) -> Data:
    """Noise with labels, preprocessed."""
    generator = Generator().manual_seed(0)
    x = torch.randn(samples, *CONV_INPUT, generator=generator)
    split = Split(x=(x,), y=torch.randint(CLASSES, (samples,), generator=generator))
    info = DatasetInfo(
        train_samples=samples,
        validation_samples=samples,
        test_samples=1,
        inputs=infos(CONV_INPUT),
        target="classes",
        classes=CLASSES,
    )
    applied = AppliedPreprocessing(scale=0.5, mean=(0.1,), std=(2.0,))
    return Data(train=split, validation=split, info=info, preprocessing=applied)


def test_kept_and_computed_answers_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether the answers are kept or asked for anew, a shuffled batch gets those of its own samples."""
    given, net = data(), conv_network()
    kept = Teacher(net, CLASSIFIER, given, "none")
    monkeypatch.setattr(distillation, "CACHE_BYTES", 0)
    computed = Teacher(net, CLASSIFIER, given, "none")
    assert kept.kept is not None
    assert kept.kept.shape == (30, CLASSES)
    assert computed.kept is None
    for batch in given.batches(7, Generator().manual_seed(3)):
        torch.testing.assert_close(kept.answer(batch), computed.answer(batch), rtol=0, atol=1e-5)
        torch.testing.assert_close(kept.answer(batch), net.evaluate(batch.x)[0], rtol=0, atol=1e-5)


def test_augmented_samples_are_asked_for() -> None:
    """What is different every epoch cannot be kept, and the answer is that to the augmented sample."""
    given, net = data(), conv_network()
    teacher = Teacher(net, CLASSIFIER, given, "crop-flip")
    assert teacher.kept is None
    batch = next(given.batches(8, Generator().manual_seed(3), "crop-flip"))
    torch.testing.assert_close(teacher.answer(batch), net.evaluate(batch.x)[0], rtol=0, atol=1e-6)


def logits(seed: int, *shape: int) -> Tensor:
    """Outputs."""
    return 2 * torch.randn(shape, generator=Generator().manual_seed(seed))


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_soft_targets_are_distributions(share: float) -> None:
    """A share of the teacher's softened answers, the rest the labels; at 0 the labels themselves."""
    said, labels = logits(0, 6, 4, 2), torch.randint(4, (6, 2), generator=Generator().manual_seed(1))
    goal = soft_targets(said, labels, share)
    torch.testing.assert_close(goal.sum(1), torch.ones(6, 2))
    hard = F.one_hot(labels, 4).movedim(-1, 1)
    torch.testing.assert_close(goal, share * (said / TEMPERATURE).softmax(1) + (1 - share) * hard)


@pytest.mark.parametrize("layout", ["a class", "per pixel", "per token"])
@pytest.mark.parametrize("share", [0.4, 1.0])
def test_the_loss_of_a_classifying_pupil(layout: str, share: float) -> None:
    """T^2 KL(goal || softened pupil), the mean over all positions, wherever the classes stand."""
    shape, positions = {
        "a class": ((6, 4), ()),
        "per pixel": ((6, 4, 3), (3,)),
        "per token": ((6, 3, 4), (3,)),
    }[layout]
    own, said = logits(0, *shape), logits(1, *shape)
    labels = torch.randint(4, (6, *positions), generator=Generator().manual_seed(2))
    found = pupil_loss(CLASSIFIER, share)((own,), (said, labels))

    rows = [
        t.reshape(-1, 4) if layout != "per pixel" else t.movedim(1, -1).reshape(-1, 4) for t in (own, said)
    ]
    goal = soft_targets(rows[1], labels.flatten(), share)
    expected = F.kl_div((rows[0] / TEMPERATURE).log_softmax(1), goal, reduction="batchmean") * TEMPERATURE**2
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)


def test_a_pupil_that_says_the_same_has_no_loss() -> None:
    """Where the teacher says everything its own answer is the minimum, with no gradient."""
    own = logits(0, 6, 4).requires_grad_()
    labels = torch.zeros(6, dtype=torch.int64)
    loss = pupil_loss(CLASSIFIER, 1.0)((own,), (own.detach(), labels))
    assert loss.item() == pytest.approx(0, abs=1e-6)
    assert float(torch.autograd.grad(loss, own)[0].abs().max()) < 1e-6


def test_classes_without_labels_are_a_defect_of_the_caller() -> None:
    """There is nobody to mix the teacher with."""
    with pytest.raises(ValueError, match="labels"):
        pupil_loss(CLASSIFIER, 1.0)((logits(0, 2, 4),), (logits(1, 2, 4), None))


def test_the_loss_of_a_pupil_of_values() -> None:
    """The squared error from the mixed target; without targets of its own from the teacher alone."""
    own, said, true = logits(0, 6, 2), logits(1, 6, 2), logits(2, 6, 2)
    mse = Objective(kind="mse", output=0)
    found = pupil_loss(mse, 0.25)((own,), (said, true))
    assert found.item() == pytest.approx(F.mse_loss(own, 0.25 * said + 0.75 * true).item())
    distill = Objective(kind="distill", output=0)
    alone = pupil_loss(distill, 1.0)((own,), (said, None))
    assert alone.item() == pytest.approx((F.mse_loss(own, said) / said.var()).item())


def test_the_teacher_is_not_its_pupil() -> None:
    """Later steps on the network leave a copy's answers as they are."""
    net, given = conv_network(), data()
    teacher = Teacher(type(net)(copy.deepcopy(net.graph), net.coupling), CLASSIFIER, given, "crop-flip")
    batch = next(iter(given.training_batches()))
    before = teacher.answer(batch)
    with torch.no_grad():
        net.parameters["fc2.weight"].zero_()
    assert torch.equal(teacher.answer(batch), before)
