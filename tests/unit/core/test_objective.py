"""The loss of one of several outputs, what is measured of it, and outputs that do not fit the data."""

import pytest
import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from npn_core.config import Training
from npn_core.errors import InvalidInput
from npn_core.graph import Dim, Shape
from npn_core.objective import Objective, chance_warning, check_output, named, objective_of, probe
from npn_core.progress import DatasetInfo, InputInfo, Metric
from npn_core.report import wilson

CLASSES = 5


def noise(*shape: int) -> Tensor:
    """Standard normal values."""
    return torch.randn(shape, generator=Generator().manual_seed(0))


def labels(*shape: int) -> Tensor:
    """Class numbers."""
    return torch.randint(CLASSES, shape, generator=Generator().manual_seed(1))


def objective(kind: str = "cross_entropy", output: int = 0) -> Objective:
    """An objective."""
    return Objective(kind=kind, output=output)


@pytest.mark.parametrize(
    ("output", "target"),
    [((4, CLASSES), (4,)), ((4, CLASSES, 3, 2), (4, 3, 2)), ((4, 7, CLASSES), (4, 7))],
    ids=["a class", "a class per pixel", "a class per token"],
)
def test_classes_are_last_or_first(output: tuple[int, ...], target: tuple[int, ...]) -> None:
    """Axis 1 for images, the last axis for sequences: the loss is torch's over all positions."""
    out, y = noise(*output), labels(*target)
    flat = out if output[1] == CLASSES else out.movedim(-1, 1)
    assert objective().logits((out,), y).shape[1] == CLASSES
    assert objective().loss((out,), y) == F.cross_entropy(flat, y)


def test_several_outputs() -> None:
    """The loss looks at the one that is asked for."""
    outputs, y = (noise(4, 2), noise(4, CLASSES)), labels(4)
    assert objective(output=1).loss(outputs, y) == F.cross_entropy(outputs[1], y)


def test_mse() -> None:
    """The mean square, with targets of one value per sample as they are stored."""
    out = noise(6, 1)
    assert objective("mse").loss((out,), noise(6)) == F.mse_loss(out[:, 0], noise(6))
    assert objective("mse").loss((noise(6, 3),), torch.zeros(6, 3)) == noise(6, 3).square().mean()


def test_distill_is_relative_to_what_varies() -> None:
    """Outputs a thousand times as large, and as far apart, give the same loss."""
    out, target = noise(8, 3), torch.linspace(-1, 1, 24).view(8, 3)
    found = objective("distill").loss((out,), target)
    assert found.item() == pytest.approx((F.mse_loss(out, target) / target.var()).item())
    assert objective("distill").loss((1000 * out,), 1000 * target).item() == pytest.approx(found.item())
    assert objective("distill").loss((out,), torch.zeros(8, 3)).isfinite()


def test_measuring_classes() -> None:
    """Accuracy over all positions of all parts with its interval, and the mean loss over all samples."""
    out, y = noise(6, CLASSES, 2), labels(6, 2)
    parts = [((out[:4],), y[:4]), ((out[4:],), y[4:])]
    accuracy, loss = objective().measure(parts)
    right = int((out.argmax(1) == y).sum())
    assert (accuracy.name, accuracy.value, accuracy.higher_is_better) == ("accuracy", right / 12, True)
    assert (accuracy.low, accuracy.high) == wilson(right, 12)
    assert (loss.name, loss.higher_is_better, loss.low) == ("loss", False, None)
    assert loss.value == pytest.approx(F.cross_entropy(out, y).item())


def test_measuring_values() -> None:
    """Without classes there is the mean loss alone."""
    out, y = noise(6, 2), torch.zeros(6, 2)
    (loss,) = objective("mse").measure([((out[:1],), y[:1]), ((out[1:],), y[1:])])
    assert loss.name == "loss"
    assert loss.value == pytest.approx(out.square().mean().item())


def test_metrics_get_a_prefix() -> None:
    """Nothing else of them changes."""
    metric = Metric(name="accuracy", value=0.5, low=0.4, high=0.6)
    assert named("validation", [metric]) == (
        Metric(name="validation_accuracy", value=0.5, low=0.4, high=0.6),
    )


@pytest.mark.parametrize(("wanted", "number"), [("", 0), ("box", 1), ("scores", 0), ("1", 1)])
def test_an_output_is_chosen_by_name_or_place(wanted: str, number: int) -> None:
    """Nothing asked is the first."""
    found = objective_of(Training(output=wanted, loss="mse"), ("scores", "box"))
    assert found == Objective(kind="mse", output=number)


def test_a_name_goes_before_a_place() -> None:
    """An output called "0" is meant by "0", wherever it stands."""
    assert objective_of(Training(output="0"), ("1", "0")).output == 1


@pytest.mark.parametrize("wanted", ["logits", "2", "-1", "²", "1.0", " "])
def test_an_unknown_output_is_refused(wanted: str) -> None:
    """With the outputs that there are."""
    with pytest.raises(InvalidInput, match="it has: scores, box") as refused:
        objective_of(Training(output=wanted), ("scores", "box"))
    assert refused.value.field == "training.output"


def shape(*sizes: int, batched: bool = True) -> Shape:
    """The shape of an output."""
    return (Dim(1, batched), *(Dim(size, False) for size in sizes))


def info(target: str, *sizes: int, classes: int = 0) -> DatasetInfo:
    """A dataset with such targets."""
    return DatasetInfo(
        train_samples=9,
        validation_samples=1,
        test_samples=1,
        inputs=(InputInfo(name="x", shape=(3,), dtype="float32"),),
        target=target,
        classes=classes,
        target_shape=sizes,
    )


@pytest.mark.parametrize(
    ("kind", "output", "data"),
    [
        ("cross_entropy", shape(5), info("classes", classes=5)),
        ("cross_entropy", shape(7), info("classes", classes=5)),
        ("cross_entropy", shape(5, 3, 2), info("classes", 3, 2, classes=5)),
        ("cross_entropy", shape(3, 5), info("classes", 3, classes=5)),
        ("mse", shape(3, 2), info("values", 3, 2)),
        ("distill", shape(3, 2), info("none")),
    ],
)
def test_outputs_that_fit(kind: str, output: Shape, data: DatasetInfo) -> None:
    """Classes last or first and no fewer than in the data; values of the output's shape; anything to distill."""
    check_output(objective(kind), output, data)


@pytest.mark.parametrize(
    ("kind", "output", "data", "reason"),
    [
        ("cross_entropy", shape(4), info("classes", classes=5), "DATASET_LABELS"),
        ("cross_entropy", shape(5, 3), info("classes", classes=5), "DATASET_LABELS"),
        ("cross_entropy", shape(5), info("classes", 4, classes=5), "DATASET_LABELS"),
        ("cross_entropy", shape(), info("classes", classes=5), "DATASET_LABELS"),
        ("mse", shape(3), info("values", 4), "DATASET_SHAPES"),
        ("mse", shape(1), info("values", 1, 1), "DATASET_SHAPES"),
    ],
)
def test_outputs_that_do_not_fit(kind: str, output: Shape, data: DatasetInfo, reason: str) -> None:
    """The data's targets are refused with both shapes."""
    with pytest.raises(InvalidInput) as refused:
        check_output(objective(kind), output, data)
    assert refused.value.field == "dataset.uri"
    assert refused.value.reason == reason
    assert str(tuple(dim.size for dim in output[1:])) in refused.value.message


@pytest.mark.parametrize("output", [(), shape(3, batched=False), (Dim(4, True), Dim(3, False))])
@pytest.mark.parametrize("kind", ["cross_entropy", "mse", "distill"])
def test_an_output_without_the_batch_is_refused(kind: str, output: Shape) -> None:
    """The loss compares sample with sample."""
    with pytest.raises(InvalidInput, match="no batch axis") as refused:
        check_output(objective(kind), output, info("none"))
    assert refused.value.field == "training.output"


def test_the_probe_has_the_curvature_of_a_squared_error() -> None:
    """The mean square of its gradient is that of the outputs' Jacobian, in units of their deviation."""
    w = torch.tensor([0.5, -2.0], requires_grad=True)
    x = noise(6, 2)
    generator, squares = Generator().manual_seed(0), torch.zeros(2)
    draws = 3000
    for _ in range(draws):
        out = x * w
        squares += torch.autograd.grad(probe((torch.zeros(1), out), 1, generator), w)[0] ** 2 / draws
    expected = x.square().sum(0) / ((x * w).std().detach() ** 2 * x.numel())
    torch.testing.assert_close(squares, expected, rtol=0.1, atol=0)


@pytest.mark.parametrize(("right", "warns"), [(8, True), (12, True), (60, False)])
def test_guessing_is_told(right: int, warns: bool) -> None:
    """A network that came trained and is right as often as by chance is told of, with what to check."""
    low, high = wilson(right, 100)
    metric = Metric(name="validation_accuracy", value=right / 100, low=low, high=high)
    said = chance_warning((metric, Metric(name="validation_loss", value=2.3, higher_is_better=False)), 10)
    assert ("training.preprocessing" in said) is warns
    assert bool(said) is warns
