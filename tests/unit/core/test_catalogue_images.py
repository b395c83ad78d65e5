"""The networks for images: their published sizes, other shapes, training, export."""

import copy
import re

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from npn_core.catalogue import architectures, build
from npn_core.errors import InvalidInput

# Settings that train and export within a second or two.
SMALL = {
    "convnext-tiny-cifar": {"depths": "1,1,2,1", "dims": "8,12,16,20"},
    "densenet-bc": {"depth": "16", "growth": "4", "dropout": "0.1"},
    "lenet5-caffe": {"widths": "4,6,20"},
    "mlp": {"hidden": "20,10", "batch_norm": "true"},
    "mobilenet-v2": {"multiplier": "0.25", "dropout": "0.1"},
    "resnet20": {"widths": "4,6,8"},
    "resnet56": {"widths": "3,4,5"},
    "vgg16-bn": {"widths": "4,4,6,6,8,8,8,8,8,8,8,8,8", "hidden": "10"},
    "vit-tiny": {"dim": "24", "depth": "2", "dropout": "0.1"},
    "wide-resnet-28-10": {"depth": "10", "widen": "0.5", "dropout": "0.1"},
}
# Parameters with 10 classes where they are published, to the digits that are.
PUBLISHED = {
    "densenet-bc": (0.8e6, 0.05e6),  # DenseNet-BC (k=12), L=100: table 2 of the paper
    "mobilenet-v2": (2_236_682, 0),  # torchvision.models.mobilenet_v2(num_classes=10)
    "resnet20": (0.27e6, 0.005e6),  # table 6 of the paper
    "resnet56": (0.85e6, 0.01e6),
    "vgg16-bn": (1.5e7, 0.05e7),  # Li et al., arXiv:1608.08710, table 1
    "vit-tiny": (5.4e6, 0.1e6),  # DeiT-Ti's 5.7 M without ImageNet's head and positions
    "wide-resnet-28-10": (36.5e6, 0.05e6),  # table 4 of the paper
    "convnext-tiny-cifar": (27.8e6, 0.1e6),  # ConvNeXt-T's 28.6 M without ImageNet's head
}
NAMES = sorted(SMALL)


def small(
    name: str, input_shape: tuple[int, ...] = (3, 32, 32), classes: int = 10, seed: int = 1
) -> nn.Module:
    """The architecture at a size for tests."""
    return build(name, SMALL[name], input_shape=input_shape, classes=classes, seed=seed)


def test_every_architecture_is_tested_here() -> None:
    """A new one needs small settings."""
    assert [info.name for info in architectures()] == NAMES


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_default_has_the_published_size(name: str) -> None:
    """Parameters agree with the paper, as exactly as it states them."""
    (info,) = (info for info in architectures() if info.name == name)
    expected, tolerance = PUBLISHED[name]
    assert abs(info.dense.params - expected) <= tolerance
    assert (info.example_input_shape, info.example_classes) == ((3, 32, 32), 10)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("input_shape", [(1, 32, 48), (2, 64, 36)])
def test_takes_images_of_other_shapes(name: str, input_shape: tuple[int, ...]) -> None:
    """Channels, sizes and classes are the dataset's; a single sample passes in eval mode."""
    module = small(name, input_shape, classes=7).eval()
    with torch.no_grad():
        assert module(torch.zeros(1, *input_shape)).shape == (1, 7)


@pytest.mark.parametrize(
    ("name", "smallest"),
    [
        ("convnext-tiny-cifar", 16),
        ("densenet-bc", 8),
        ("mobilenet-v2", 8),
        ("resnet20", 8),
        ("resnet56", 8),
        ("vgg16-bn", 32),
        ("vit-tiny", 4),
        ("wide-resnet-28-10", 8),
    ],
)
def test_samples_that_do_not_fit_are_refused(name: str, smallest: int) -> None:
    """The smallest image passes; anything smaller, and what is no image, is refused naming the shape."""
    with torch.no_grad():
        assert small(name, (3, smallest, smallest)).eval()(torch.zeros(1, 3, smallest, smallest)).shape == (
            1,
            10,
        )
    for unfit in ((64,), (3, 32), (3, smallest - 1, 32), (3, 32, smallest - 1), (2, 3, 32, 32)):
        with pytest.raises(InvalidInput, match=f"at least {smallest}x{smallest}") as caught:
            small(name, unfit)
        assert (caught.value.field, caught.value.reason) == ("model.architecture.name", "ARCHITECTURE_UNFIT")
        assert str(unfit) in caught.value.message


def test_vit_needs_whole_patches_and_heads() -> None:
    """A side that is no multiple of the patch and heads that do not divide dim are refused."""
    with pytest.raises(InvalidInput, match="divisible by 4") as caught:
        small("vit-tiny", (3, 32, 30))
    assert caught.value.reason == "ARCHITECTURE_UNFIT"
    with pytest.raises(InvalidInput, match="must divide dim, which is 192") as caught:
        build("vit-tiny", {"heads": "5"}, input_shape=(3, 32, 32), classes=10, seed=1)
    assert caught.value.field == "model.architecture.params[heads]"


@pytest.mark.parametrize("name", NAMES)
def test_training_lowers_the_loss(name: str) -> None:
    """A few steps on one batch, with every parameter receiving a gradient."""
    module = small(name)
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(16, 3, 32, 32, generator=generator)
    y = torch.randint(10, (16,), generator=generator)
    optimizer = torch.optim.Adam(module.parameters(), lr=3e-3)
    losses = []
    torch.manual_seed(3)  # dropout
    for _ in range(12):
        loss = F.cross_entropy(module(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.15
    without = [key for key, p in module.named_parameters() if p.grad is None or not p.grad.any()]
    assert without == []


@pytest.mark.parametrize("name", NAMES)
def test_exports_in_train_mode_with_a_dynamic_batch(name: str) -> None:
    """The exported program runs at another batch size and gives what the module gives."""
    module = small(name).train()
    x = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    batch = torch.export.Dim("batch")
    program = torch.export.export(module, (x[:3],), dynamic_shapes=({0: batch},))
    assert set(program.state_dict) == set(module.state_dict())
    outputs = []
    for network in (copy.deepcopy(module), program.module()):  # the program shares the module's buffers
        torch.manual_seed(2)  # dropout
        outputs.append(network(x))
    torch.testing.assert_close(outputs[1], outputs[0])


@pytest.mark.parametrize("name", NAMES)
def test_seed_fixes_the_weights(name: str) -> None:
    """Same seed, same weights; another seed, other ones."""
    one, same, other = (small(name, seed=seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(one[key], same[key]) for key in one)
    assert any(not torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("wide-resnet-28-10", {"depth": "250", "widen": "64"}),
        ("densenet-bc", {"depth": "250", "growth": "512"}),
        ("convnext-tiny-cifar", {"dims": "1024,2048,4096,8192"}),
        ("vit-tiny", {"dim": "8192", "heads": "1", "depth": "64"}),
        ("vgg16-bn", {"hidden": "65536", "widths": ",".join(["65536"] * 13)}),
        ("resnet56", {"widths": "65536,65536,65536"}),
        ("mobilenet-v2", {"multiplier": "16"}),
    ],
)
def test_network_that_would_fill_the_memory_is_refused(name: str, params: dict[str, str]) -> None:
    """The largest settings are refused before a weight is allocated."""
    with pytest.raises(InvalidInput, match="at most 268,435,456") as caught:
        build(name, params, input_shape=(3, 64, 64), classes=10, seed=1)
    assert caught.value.reason == "ARCHITECTURE_TOO_LARGE"


@pytest.mark.parametrize(
    ("name", "param", "value", "words"),
    [
        ("convnext-tiny-cifar", "depths", "3,3,9", "4 depths from 1 to 48"),
        ("convnext-tiny-cifar", "depths", "3,3,49,3", "4 depths from 1 to 48"),
        ("convnext-tiny-cifar", "patch", "0", "from 1 to 16"),
        ("densenet-bc", "compression", "1.5", "from 0.05 to 1"),
        ("densenet-bc", "growth", "12.5", "a whole number"),
        ("mobilenet-v2", "multiplier", "nan", "a decimal number"),
        ("mobilenet-v2", "multiplier", "1e2", "a decimal number"),
        ("vit-tiny", "heads", "", "a whole number"),
        ("wide-resnet-28-10", "depth", "20", "6 n + 4"),
        ("wide-resnet-28-10", "depth", "4", "6 n + 4"),
        ("wide-resnet-28-10", "depth", "1000", "6 n + 4"),
        ("vgg16-bn", "widths", "64,64", "13 widths"),
    ],
)
def test_values_out_of_range_are_refused(name: str, param: str, value: str, words: str) -> None:
    """The parameter is named, with what would be right."""
    with pytest.raises(InvalidInput, match=re.escape(words)) as caught:
        build(name, {param: value}, input_shape=(3, 32, 32), classes=10, seed=1)
    assert caught.value.field == f"model.architecture.params[{param}]"


def test_mobilenet_rounds_widths_to_multiples_of_8() -> None:
    """At multiplier 0.35 the table of widths is the authors' own."""
    module = build("mobilenet-v2", {"multiplier": "0.35"}, input_shape=(3, 32, 32), classes=10, seed=1)
    widths = [block.project.conv.out_channels for block in module.blocks]
    assert sorted(set(widths)) == [8, 16, 24, 32, 56, 112]
    assert (module.stem.conv.out_channels, module.last.conv.out_channels) == (16, 1280)
