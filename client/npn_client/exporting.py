"""A caller's model as something to send: a name, or an archive; modules and programs are exported to one.

torch is imported only to export, from where the caller has it.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import InvalidArgument
from .spec import Architecture, ModelArchive, named_model

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.export import ExportedProgram

    TorchModel = nn.Module | ExportedProgram
    ExampleInputs = Tensor | Sequence[Tensor] | Mapping[str, Tensor]

_FIELD = "job.model"
_LONGEST = 500  # characters of what torch says


def prepare(
    model: str | Path | Architecture | ModelArchive | TorchModel,
    example_inputs: ExampleInputs | None,
    folder: Path,
) -> Architecture | ModelArchive:
    """What `model` is: a network of the catalogue, or an archive; one that is exported here lies in `folder`.

    Raises InvalidArgument where it is neither, or where torch cannot export it.
    """
    named = named_model(model)
    if named is None:
        return ModelArchive(_export(model, example_inputs, folder))
    if example_inputs is not None:
        raise InvalidArgument.of("example_inputs", "example_inputs go with an nn.Module alone")
    return named


def _export(model: object, example_inputs: ExampleInputs | None, folder: Path) -> Path:
    kind = type(model).__name__
    try:
        import torch
    except ModuleNotFoundError as error:
        raise InvalidArgument.of(
            _FIELD,
            f"a {kind} is not a model: give a catalogue name, a .pt2 file or a URI; to export a module here, "
            "install torch",
        ) from error
    if isinstance(model, torch.nn.Module):
        if example_inputs is None:
            raise InvalidArgument.of("example_inputs", f"to export a {kind}, example_inputs are needed")
        program = export(model, example_inputs)
    elif isinstance(model, torch.export.ExportedProgram):
        if example_inputs is not None:
            raise InvalidArgument.of("example_inputs", "an exported program has its inputs already")
        program = copy.copy(model)
    else:
        raise InvalidArgument.of(
            _FIELD,
            f"a {kind} is not a model; give an nn.Module with example_inputs, an ExportedProgram, a catalogue "
            "name, a .pt2 file or a URI",
        )
    program.example_inputs = None  # `save` would pickle them; an empty entry loads, a missing one does not
    path = folder / "model.pt2"
    torch.export.save(program, path)
    return path


def export(module: nn.Module, example_inputs: ExampleInputs) -> ExportedProgram:
    """The program of `module` as it trains, for any batch size (dimension 0 of every input).

    `module` is in its own modes again afterwards.  Outputs become plain tuples, lists and dicts.  Where torch
    finds that the batch size cannot vary, it is fixed, with a warning.  Raises InvalidArgument with what torch
    says and the line of the module that it stopped at.
    """
    import torch

    module = getattr(module, "_orig_mod", module)  # of torch.compile
    args, kwargs = _inputs(example_inputs)
    if any(tensor.device.type != "cpu" for tensor in (*module.parameters(), *module.buffers())):
        module = copy.deepcopy(module).cpu()
    batch = torch.export.Dim("batch")
    shapes = [tensor.shape[:1] for tensor in (*args, *kwargs.values())]
    varying = [{0: batch} if shape and shape == shapes[0] else None for shape in shapes]
    positional, named = varying[: len(args)], varying[len(args) :]
    dynamic = (*positional, *named) if not kwargs else dict(zip(kwargs, named, strict=True))
    with _as_it_trains(module):
        try:
            return torch.export.export(module, args, kwargs, dynamic_shapes=dynamic)
        except Exception as error:
            refusal = error
        try:
            program = torch.export.export(module, args, kwargs)
        except Exception as error:
            raise InvalidArgument.of(
                _FIELD, f"torch.export refuses this {_explain(module, error)}"
            ) from error
    warnings.warn(
        f"the batch size stays {shapes[0][0] if shapes[0] else 1} as in example_inputs: with any batch size "
        f"torch.export refuses this {_explain(module, refusal)}",
        stacklevel=2,
    )
    return program


def _inputs(example_inputs: ExampleInputs) -> tuple[tuple[Tensor, ...], dict[str, Tensor]]:
    """Positional and named inputs on the CPU; a batch of one is doubled, as export takes a 1 for a constant."""
    import torch

    named = dict(example_inputs) if isinstance(example_inputs, Mapping) else {}
    given = example_inputs if isinstance(example_inputs, list | tuple) else [example_inputs]
    positional = [] if isinstance(example_inputs, Mapping) else list(given)
    tensors = [*positional, *named.values()]
    if not tensors or not all(isinstance(tensor, torch.Tensor) for tensor in tensors):
        kinds = ", ".join(type(tensor).__name__ for tensor in tensors) or "nothing"
        raise InvalidArgument.of(
            "example_inputs", f"example_inputs are a tensor, a tuple of them, or a dict by name; not {kinds}"
        )
    if all(tensor.shape[:1] == (1,) for tensor in tensors):
        tensors = [torch.cat([tensor, tensor]) for tensor in tensors]
    tensors = [tensor.detach().cpu() for tensor in tensors]
    args = tuple(tensors[: len(positional)])
    return args, dict(zip(named, tensors[len(positional) :], strict=True))


@contextlib.contextmanager
def _as_it_trains(module: nn.Module) -> Iterator[None]:
    """`module` in training mode and with plain outputs, for a while."""
    modes = [(part, part.training) for part in module.modules()]
    own = module.__dict__.get("forward")  # a forward that was set on the object stays
    forward: Callable[..., object] = module.forward

    @functools.wraps(forward)  # export names the inputs by this signature
    def plain(*args: Any, **kwargs: Any) -> object:
        return _plain(forward(*args, **kwargs))

    module.train()
    module.__dict__["forward"] = plain  # not a wrapper around it: the names of its parameters stay
    try:
        yield
    finally:
        del module.__dict__["forward"]
        if own is not None:
            module.__dict__["forward"] = own
        for part, mode in modes:
            part.training = mode


def _plain(output: object) -> object:
    """Tensors in tuples, lists and dicts alone: an archive cannot name other classes.

    Of mappings and dataclasses (transformers' ModelOutput is both) the entries that hold no tensor, such as
    caches, are left out.
    """
    import torch

    if isinstance(output, torch.Tensor):
        return output
    if isinstance(output, Mapping):
        entries = output.items()
    elif is_dataclass(output) and not isinstance(output, type):
        entries = {field.name: getattr(output, field.name) for field in fields(output)}.items()
    elif isinstance(output, list):
        return [_plain(item) for item in output]
    elif isinstance(output, tuple):
        return tuple(_plain(item) for item in output)
    else:
        raise TypeError(f"the output holds a {type(output).__name__}; it may hold tensors alone")
    containers = (torch.Tensor, Mapping, list, tuple)
    return {
        str(name): _plain(item)
        for name, item in entries
        if isinstance(item, containers) or (is_dataclass(item) and not isinstance(item, type))
    }


def _explain(module: nn.Module, error: Exception) -> str:
    """`Net at net.py:31 (y = x.reshape(4, -1)): ...`: the innermost line that is not torch's, and why."""
    import torch

    other = (str(Path(torch.__file__).parent), __file__, "<", contextlib.__file__)
    frames = [
        frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith(other)
    ]
    where = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno} ({frames[-1].line})" if frames else ""
    said = " ".join(str(error).split("\n\n")[0].split()) or type(error).__name__
    return f"{type(module).__name__}{where}: {said[:_LONGEST]}"
