"""The built-in architectures."""

import subprocess
import sys

import pytest
import torch

from npn_core.catalogue import architectures, build, resolve_params
from npn_core.errors import InvalidInput
from npn_core.recount import count


@pytest.mark.parametrize("info", architectures(), ids=lambda info: info.name)
def test_listed_cost_is_the_recounted_one(info) -> None:
    """The cost that the catalogue lists is what the default network really has."""
    with torch.device("meta"):
        module = build(
            info.name, {}, input_shape=info.example_input_shape, classes=info.example_classes, seed=1
        )
    assert count(module, (torch.empty(1, *info.example_input_shape),)) == info.dense


def test_listing_imports_no_torch() -> None:
    """The server lists the catalogue and resolves parameters without torch."""
    code = (
        "import sys; from npn_core.catalogue import architectures, resolve_params; architectures();"
        "resolve_params('mlp', {}); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0


def test_lenet_is_caffes() -> None:
    """Layers, order and shapes of LeNet-5-Caffe."""
    module = build("lenet5-caffe", {"widths": "3,4,5"}, input_shape=(2, 20, 28), classes=7, seed=1)
    names = "conv1 pool1 relu1 conv2 pool2 relu2 flatten fc1 relu3 fc2"
    assert [name for name, _ in module.named_children()] == names.split()
    assert module.fc1.weight.shape == (5, 4 * 2 * 4)
    assert module(torch.zeros(6, 2, 20, 28)).shape == (6, 7)


@pytest.mark.parametrize(
    ("params", "input_shape", "names"),
    [
        ({"hidden": "4"}, (9,), "fc1 relu1 fc2"),
        ({"hidden": "4, 5", "batch_norm": "true"}, (1, 3, 3), "flatten fc1 bn1 relu1 fc2 bn2 relu2 fc3"),
        ({"hidden": "4", "dropout": "0.25"}, (9,), "fc1 relu1 dropout1 fc2"),
    ],
)
def test_mlp(params: dict[str, str], input_shape: tuple[int, ...], names: str) -> None:
    """Widths, BatchNorm and dropout are where they were asked for; images are flattened."""
    module = build("mlp", params, input_shape=input_shape, classes=3, seed=1)
    assert [name for name, _ in module.named_children()] == names.split()
    assert module(torch.zeros(6, *input_shape)).shape == (6, 3)


def test_initialisation_follows_the_seed_alone() -> None:
    """Same seed, same weights; the global generator is neither read nor moved."""
    before = torch.random.get_rng_state()
    one, same, other = (
        build("mlp", {}, input_shape=(9,), classes=3, seed=seed).fc1.weight for seed in (1, 1, 2)
    )
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert torch.equal(before, torch.random.get_rng_state())


def test_resolve_fills_in_defaults() -> None:
    """Every parameter has a value afterwards."""
    assert resolve_params("mlp", {"dropout": "0.5"}) == {
        "hidden": "300,100",
        "batch_norm": "false",
        "dropout": "0.5",
    }


@pytest.mark.parametrize(
    ("name", "params", "field", "words"),
    [
        ("resnet", {}, "model.architecture.name", "lenet5-caffe, "),
        ("mlp", {"widths": "3"}, "model.architecture.params[widths]", "it has: hidden"),
        ("mlp", {"hidden": ""}, "model.architecture.params[hidden]", "1 to 64 widths"),
        ("mlp", {"hidden": "3,0"}, "model.architecture.params[hidden]", "from 1 to 65536"),
        ("mlp", {"hidden": "65537"}, "model.architecture.params[hidden]", "from 1 to 65536"),
        ("mlp", {"hidden": "3,-3"}, "model.architecture.params[hidden]", "from 1 to 65536"),
        ("mlp", {"hidden": "٣"}, "model.architecture.params[hidden]", "from 1 to 65536"),
        ("mlp", {"hidden": ",".join("1" * 65)}, "model.architecture.params[hidden]", "1 to 64 widths"),
        ("mlp", {"hidden": "1" * 10**6}, "model.architecture.params[hidden]", "1 to 64 widths"),
        ("mlp", {"dropout": "1"}, "model.architecture.params[dropout]", "below 1"),
        ("mlp", {"dropout": "nan"}, "model.architecture.params[dropout]", "below 1"),
        ("mlp", {"batch_norm": "yes"}, "model.architecture.params[batch_norm]", "true or false"),
        ("lenet5-caffe", {"widths": "20,50"}, "model.architecture.params[widths]", "3 widths"),
    ],
)
def test_refusals(name: str, params: dict[str, str], field: str, words: str) -> None:
    """What is unknown or out of range is refused on its field, with what would be right."""
    with pytest.raises(InvalidInput) as caught:
        resolve_params(name, params)
    assert caught.value.field == field
    assert words in caught.value.message
    assert len(caught.value.message) < 300


@pytest.mark.parametrize("input_shape", [(64,), (1, 15, 28), (1, 28, 15)])
def test_lenet_needs_images_of_a_size(input_shape: tuple[int, ...]) -> None:
    """Samples that LeNet-5 cannot take are refused with the shape they have."""
    with pytest.raises(InvalidInput, match="at least 16x16") as caught:
        build("lenet5-caffe", {}, input_shape=input_shape, classes=10, seed=1)
    assert caught.value.field == "model.architecture.name"


def test_network_that_would_fill_the_memory_is_refused() -> None:
    """The size is known before a weight is allocated."""
    with pytest.raises(InvalidInput, match="4,296,343,562"):
        build("mlp", {"hidden": "65536,65536"}, input_shape=(9,), classes=10, seed=1)
