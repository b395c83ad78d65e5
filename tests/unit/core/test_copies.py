"""Copies that share what need not differ."""

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from npn_core.copies import fake_copy, in_format, stored_alone

IMAGES = torch.randn(3, 2, 4, 4)


@pytest.mark.parametrize("form", [torch.contiguous_format, torch.channels_last])
def test_a_format_is_given_to_a_copy(form: torch.memory_format) -> None:
    """The copy computes the same with converted convolutions, shares the rest, and the original is unchanged."""
    module = nn.Sequential(nn.Conv2d(2, 3, 3), nn.Flatten(), nn.Linear(12, 2))
    other = torch.channels_last if form is torch.contiguous_format else torch.contiguous_format
    module[0].to(memory_format=other)
    copied = in_format(module, form)
    assert copied[0].weight.is_contiguous(memory_format=form)
    assert copied[2].weight is module[2].weight
    assert module[0].weight.is_contiguous(memory_format=other)
    assert (module.training, copied.training) == (True, False)
    torch.testing.assert_close(copied(IMAGES), module(IMAGES))


def tied(weight: torch.Tensor) -> nn.Sequential:
    """Two layers with one weight, and a third with a weight of its own."""
    module = nn.Sequential(*(nn.Linear(3, 3, bias=False) for _ in range(3)))
    module[0].weight = module[1].weight = nn.Parameter(weight)
    return module


def test_parts_of_larger_storages_get_their_own() -> None:
    """A view, a transpose and a second tensor over the same storage are copied; the rest is shared."""
    whole = torch.randn(4, 6)
    module = tied(whole[:3, ::2])
    module.register_buffer("first", whole)
    module.register_buffer("same", whole.view(6, 4))
    module.register_buffer("turned", torch.randn(2, 3).T)
    copied = stored_alone(module)
    assert copied[0].weight is copied[1].weight
    assert copied[2].weight is module[2].weight
    assert copied.first is module.first
    tensors = [copied[0].weight, copied[2].weight, copied.first, copied.same, copied.turned]
    assert len({tensor.untyped_storage().data_ptr() for tensor in tensors}) == 5
    for name, tensor in module.state_dict().items():
        assert torch.equal(copied.state_dict()[name], tensor)
        assert copied.state_dict()[name].is_contiguous()


def test_fake_copies_have_shapes_and_ties_but_no_data() -> None:
    """Parameters stay parameters, of the device CPU, whatever the original's device is."""
    with torch.device("meta"):
        module = tied(torch.empty(3, 3))
    copied = fake_copy(module, FakeTensorMode())
    assert copied[0].weight is copied[1].weight
    assert all(isinstance(parameter.data, FakeTensor) for parameter in copied.parameters())
    assert {parameter.device.type for parameter in copied.parameters()} == {"cpu"}
    assert len(list(copied.parameters())) == 2
