"""The sizes of a network's layers, before and after: what a user needs to build the compact one in own code."""

from collections.abc import Iterator

from torch import Tensor, nn

from .report import InputSpec, LayerWidths

# The constructor arguments of the standard modules that surgery changes.
_ARGUMENTS = (
    "in_channels",
    "out_channels",
    "groups",
    "in_features",
    "out_features",
    "num_features",
    "num_groups",
    "num_channels",
    "num_embeddings",
    "embedding_dim",
)


def layer_widths(dense: nn.Module, compact: nn.Module) -> tuple[LayerWidths, ...]:
    """Every module of `dense` with parameters of its own, against the one of the same name in `compact`.

    Parameters that lie in no standard module, such as a class token, stand for themselves.  `dense` may be on
    the meta device.
    """
    modules = dict(compact.named_modules())
    parameters = dict(compact.named_parameters(remove_duplicate=False))
    widths = []
    for name, kind, tensor, key in _weights(dense):
        after = parameters.get(key)
        layer = modules.get(name)
        widths.append(
            LayerWidths(
                name=name,
                type=kind,
                dense=tuple(tensor.shape),
                compact=None if after is None else tuple(after.shape),
                arguments={} if layer is None or after is None else _arguments(layer),
            )
        )
    return tuple(widths)


def input_specs(names: tuple[str, ...], inputs: tuple[Tensor, ...]) -> tuple[InputSpec, ...]:
    """The inputs of a network by a batch of samples, (N, *shape) each."""
    return tuple(
        InputSpec(name=name, shape=tuple(x.shape[1:]), dtype=str(x.dtype).removeprefix("torch."))
        for name, x in zip(names, inputs, strict=True)
    )


def _weights(module: nn.Module) -> Iterator[tuple[str, str, Tensor, str]]:
    """Layer, type, representative tensor and that tensor's name, in the order of the modules."""
    for path, part in module.named_modules():
        own = dict(part.named_parameters(recurse=False, remove_duplicate=False))
        prefix = f"{path}." if path else ""
        if "weight" in own and type(part).__module__.startswith("torch.nn.modules"):
            yield path, type(part).__name__, own["weight"], f"{prefix}weight"
        else:
            for name, parameter in own.items():
                yield f"{prefix}{name}", "Parameter", parameter, f"{prefix}{name}"


def _arguments(layer: nn.Module) -> dict[str, int]:
    return {name: value for name in _ARGUMENTS if isinstance(value := getattr(layer, name, None), int)}
