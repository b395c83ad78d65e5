"""Differences between outputs, and their names."""

import math

import pytest
import torch

from npn_core.difference import Difference
from npn_core.outputs import output_names, output_tensors

INFINITY = float("inf")


def test_largest_over_all_outputs() -> None:
    """The absolute difference is the largest anywhere, the relative one is measured by its own output."""
    expected = (torch.tensor([100.0, -200.0]), {"b": torch.tensor([0.5])})
    found = (torch.tensor([101.0, -200.0]), {"b": torch.tensor([0.6])})
    difference = Difference.of(expected, found)
    assert difference.largest == 1.0
    assert difference.relative == pytest.approx(0.2)


def test_equal_outputs_differ_by_nothing() -> None:
    """Equal infinities, integers and empty tensors are no difference, and zero divides nothing."""
    outputs = [torch.tensor([INFINITY, 1.0]), torch.tensor([3]), torch.zeros(0), torch.zeros(2)]
    assert Difference.of(outputs, outputs) == Difference(largest=0.0, relative=0.0)


def test_the_worst_of_several() -> None:
    """Each number for itself; NaN stays."""
    several = [Difference(largest=3.0, relative=0.1), Difference(largest=2.0, relative=0.4)]
    assert Difference.worst(several) == Difference(largest=3.0, relative=0.4)
    assert math.isnan(Difference.worst([*several, Difference(largest=math.nan, relative=0.0)]).largest)


@pytest.mark.parametrize("order", [1, -1])
def test_nan_is_never_hidden(order: int) -> None:
    """NaN on one side alone is NaN, whichever output it is in."""
    expected = [torch.tensor([1.0]), torch.tensor([1.0])][::order]
    found = [torch.tensor([float("nan")]), torch.tensor([5.0])][::order]
    assert math.isnan(Difference.of(expected, found).largest)


@pytest.mark.parametrize("found", [torch.zeros(3), (torch.zeros(2), torch.zeros(2))])
def test_other_outputs_are_refused(found: object) -> None:
    """Another shape or another number of outputs is no difference but an error."""
    with pytest.raises(ValueError, match=r"output|longer"):
        Difference.of(torch.zeros(2), found)


@pytest.mark.parametrize(
    ("outputs", "names"),
    [
        (torch.zeros(1), ("output",)),
        ({"logits": torch.zeros(1), "pooled": torch.zeros(1)}, ("logits", "pooled")),
        ([torch.zeros(1), (torch.zeros(1), None)], ("output_0", "output_1.output_0")),
        ((torch.zeros(1), {"a": torch.zeros(1)}), ("output_0", "output_1.a")),
    ],
)
def test_names(outputs: object, names: tuple[str, ...]) -> None:
    """Dict keys are names, places in lists are numbered, and there is one name for each tensor."""
    assert output_names(outputs) == names
    assert len(output_tensors(outputs)) == len(names)
