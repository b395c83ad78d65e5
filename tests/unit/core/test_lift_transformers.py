"""Networks of the transformers library, built from configurations with random weights."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from lift_networks import lifted, modules
from torch import Tensor, nn

transformers = pytest.importorskip("transformers", reason="networks that users have; in the dev extra")

SIZES = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 4}


class Logits(nn.Module):
    """A network of the library whose answer is its logits."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        return self.network(x).logits


def _vit(attention: str) -> nn.Module:
    config = transformers.ViTConfig(image_size=8, patch_size=4, attn_implementation=attention, **SIZES)
    return transformers.ViTForImageClassification(config)


def _bert(attention: str) -> nn.Module:
    config = transformers.BertConfig(vocab_size=20, attn_implementation=attention, **SIZES)
    config.hidden_dropout_prob = config.attention_probs_dropout_prob = 0.0
    return transformers.BertForSequenceClassification(config)


def _llama(attention: str) -> nn.Module:
    options = {"vocab_size": 20, "num_key_value_heads": 2, "max_position_embeddings": 16, "use_cache": False}
    config = transformers.LlamaConfig(
        attn_implementation=attention, tie_word_embeddings=True, **options, **SIZES
    )
    return transformers.LlamaForCausalLM(config)


def _convnext(attention: str) -> nn.Module:
    config = transformers.ConvNextConfig(hidden_sizes=[4, 8], depths=[1, 1], num_stages=2)
    return transformers.ConvNextForImageClassification(config)


def _resnet(attention: str) -> nn.Module:
    config = transformers.ResNetConfig(embedding_size=4, hidden_sizes=[8, 16], depths=[1, 1])
    return transformers.ResNetForImageClassification(config)


def _images(batch: int) -> Tensor:
    return torch.randn(batch, 3, 8, 8)


def _ids(batch: int) -> Tensor:
    return torch.randint(0, 20, (batch, 5))


CASES: list[tuple[Callable[[str], nn.Module], Callable[[int], Tensor], str]] = [
    (_vit, _images, "sdpa"),
    (_vit, _images, "eager"),
    (_bert, _ids, "sdpa"),
    (_llama, _ids, "sdpa"),
    (_llama, _ids, "eager"),
    (_convnext, lambda batch: torch.randn(batch, 3, 32, 32), "sdpa"),
    (_resnet, lambda batch: torch.randn(batch, 3, 32, 32), "sdpa"),
]


@pytest.mark.parametrize("way", ["train", "decomposed", "fixed"])
@pytest.mark.parametrize(("make", "inputs", "attention"), CASES)
def test_a_network_of_the_library_agrees(
    make: Callable[[str], nn.Module], inputs: Callable[[int], Tensor], attention: str, way: str
) -> None:
    """Same state, same logits at batch sizes 1 and 3; attention is the operator where the network had it."""
    torch.manual_seed(0)
    module = Logits(make(attention))
    graph = lifted(module, (inputs(2),), way)
    assert list(graph.state_dict()) == list(module.state_dict())
    for batch in (1, 3):
        x = inputs(batch)
        with torch.no_grad():
            torch.testing.assert_close(graph.eval()(x), module.eval()(x), rtol=1e-5, atol=1e-6)
    targets: list[Any] = [node.target for node in graph.graph.nodes]
    transformer = make in (_vit, _bert, _llama)
    has_operator = torch.ops.aten.scaled_dot_product_attention.default in targets
    assert has_operator == (transformer and attention == "sdpa")


def test_a_tied_head_is_found() -> None:
    """Llama's embedding and head share a weight; its projections are linear layers."""
    graph = lifted(Logits(_llama("sdpa")), (_ids(2),))
    found = modules(graph)
    assert found["network.model.embed_tokens"] is nn.Embedding
    assert found["network.model.layers.0.self_attn.k_proj"] is nn.Linear
    assert graph.get_parameter("network.lm_head.weight") is graph.get_parameter(
        "network.model.embed_tokens.weight"
    )
