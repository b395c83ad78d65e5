"""Models of the `transformers` library from small configurations with random weights."""

import transformers
from torch import Tensor, nn

from .structure import Structure, floats, tokens

CLASSES, VOCABULARY, LENGTH = 5, 99, 12
HIDDEN = 64


class Logits(nn.Module):
    """A model of the library that gives its logits alone."""

    def __init__(self, model: nn.Module, **arguments: object) -> None:
        super().__init__()
        self.model = model
        self.arguments = arguments

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x, **self.arguments).logits


def _vit() -> nn.Module:
    config = transformers.ViTConfig(
        hidden_size=HIDDEN,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=4 * HIDDEN,
        image_size=32,
        patch_size=8,
        num_labels=CLASSES,
    )
    return Logits(transformers.ViTForImageClassification(config))


def _bert() -> nn.Module:
    config = transformers.BertConfig(
        vocab_size=VOCABULARY,
        hidden_size=HIDDEN,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=4 * HIDDEN,
        max_position_embeddings=32,
        num_labels=CLASSES,
    )
    return Logits(transformers.BertForSequenceClassification(config))


def _llama() -> nn.Module:
    config = transformers.LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=HIDDEN,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=3 * HIDDEN,
        max_position_embeddings=32,
    )
    return Logits(transformers.LlamaForCausalLM(config), use_cache=False)


def _resnet() -> nn.Module:
    config = transformers.ResNetConfig(
        embedding_size=16,
        hidden_sizes=[32, 64],
        depths=[2, 2],
        layer_type="bottleneck",
        num_labels=CLASSES,
    )
    return Logits(transformers.ResNetForImageClassification(config))


_IMAGE = floats((3, 32, 32))
_TOKENS = tokens(LENGTH, VOCABULARY)

LIBRARY = (
    Structure(name="transformers-vit", coupling="an image encoder", build=_vit, inputs=_IMAGE),
    Structure(name="transformers-bert", coupling="a text encoder", build=_bert, inputs=_TOKENS),
    Structure(
        name="transformers-llama",
        coupling="a decoder with grouped-query attention",
        build=_llama,
        inputs=_TOKENS,
    ),
    Structure(name="transformers-resnet", coupling="a convolutional net", build=_resnet, inputs=_IMAGE),
)
