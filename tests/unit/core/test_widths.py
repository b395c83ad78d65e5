"""The layers' sizes before and after."""

import pytest
import torch
from torch import nn

from npn_core.report import InputSpec, LayerWidths
from npn_core.widths import input_specs, layer_widths


class Tokens(nn.Module):
    """A layer, and a parameter that no standard module holds."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.zeros(1, 1, width))
        self.block = nn.Sequential(nn.Conv2d(3, width, 3), nn.BatchNorm2d(width), nn.ReLU())
        self.depthwise = nn.Conv2d(width, width, 3, groups=width)


def test_widths_before_and_after() -> None:
    """Every layer and raw parameter is named with both shapes and what its constructor takes."""
    with torch.device("meta"):
        dense = Tokens(8)
    assert layer_widths(dense, Tokens(5)) == (
        LayerWidths(name="token", type="Parameter", dense=(1, 1, 8), compact=(1, 1, 5), arguments={}),
        LayerWidths(
            name="block.0",
            type="Conv2d",
            dense=(8, 3, 3, 3),
            compact=(5, 3, 3, 3),
            arguments={"in_channels": 3, "out_channels": 5, "groups": 1},
        ),
        LayerWidths(
            name="block.1", type="BatchNorm2d", dense=(8,), compact=(5,), arguments={"num_features": 5}
        ),
        LayerWidths(
            name="depthwise",
            type="Conv2d",
            dense=(8, 1, 3, 3),
            compact=(5, 1, 3, 3),
            arguments={"in_channels": 5, "out_channels": 5, "groups": 5},
        ),
    )


@pytest.mark.parametrize("layer", [nn.Linear(4, 3), nn.GroupNorm(2, 6), nn.Embedding(7, 3)])
def test_a_layer_is_rebuilt_from_its_arguments(layer: nn.Module) -> None:
    """The listed type and arguments make a layer that loads the compact weights."""
    (widths,) = layer_widths(nn.ModuleDict({"a": layer}), nn.ModuleDict({"a": layer}))
    getattr(nn, widths.type)(**widths.arguments).load_state_dict(layer.state_dict())


def test_a_layer_that_is_gone() -> None:
    """A layer of which nothing stayed is listed as such."""
    dense = nn.ModuleDict({"a": nn.Linear(2, 3)})
    (widths,) = layer_widths(dense, nn.ModuleDict())
    assert (widths.name, widths.dense, widths.compact, widths.arguments) == ("a", (3, 2), None, {})


def test_inputs() -> None:
    """Inputs are described by one sample."""
    assert input_specs(("ids", "x"), (torch.zeros(2, 5, dtype=torch.int64), torch.zeros(2))) == (
        InputSpec(name="ids", shape=(5,), dtype="int64"),
        InputSpec(name="x", shape=(), dtype="float32"),
    )
