"""model.onnx: the program for ONNX Runtime and everything else that reads ONNX.

The packages onnx, onnxscript and onnxruntime (the extra `[onnx]`) are optional and slow to import, so they are
imported on use.  What goes wrong here never fails a job: the artifact has no model.onnx and says why.
"""

import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from .difference import Difference
from .outputs import output_names, output_tensors
from .report import OnnxCheck

FILE = "model.onnx"
EXTERNAL_DATA = FILE + ".data"  # where the exporter puts weights that exceed protobuf's 2 GB
TOLERANCE = 1e-4
# The newest that torch 2.13's exporter can write and ONNX Runtime runs, and what to try where that fails:
# 23 brings fused attention, 18 is what the exporter's operators are written in.
OPSETS = (25, 23, 18)
_PACKAGES = ("onnx", "onnxscript", "onnxruntime")
_LOGGERS = ("torch.onnx", "onnxscript", "onnx_ir")
_OPERATOR = re.compile(r"OpOverload\(op='([\w.]+)', overload='(\w+)'\)")
_PATH = re.compile(r"(?:/[\w.+-]+){2,}")


class OnnxError(Exception):
    """There is no model.onnx; the message says why and names no path.  `final`: no other opset helps."""

    def __init__(self, message: str, *, final: bool = False) -> None:
        super().__init__(message)
        self.final = final


def export_onnx(
    folder: Path, program: ExportedProgram, module: nn.Module, example: tuple[Tensor, ...]
) -> tuple[OnnxCheck | None, tuple[str, ...]]:
    """Write folder/model.onnx and compare it with `module`, in eval mode; returns the check and warnings.

    `example` is a batch of two real samples.  A file that ONNX Runtime does not run, or whose outputs differ
    by more than TOLERANCE, is not kept: then there is no check, and a warning.
    """
    path = folder / FILE
    missing = [package for package in _PACKAGES if find_spec(package) is None]
    if missing:
        return None, (f"no {FILE}: {', '.join(missing)} not installed (the extra [onnx])",)
    first: OnnxError | None = None
    for opset in OPSETS:
        try:
            write_onnx(path, program, module, example, opset)
            check = _check(path, module, example, opset)
        except OnnxError as error:
            first = first or error
            if error.final:
                break
        else:
            external = (
                f"{FILE} keeps its weights in {EXTERNAL_DATA}: together they exceed what one file can hold"
            )
            return check, (external,) if (folder / EXTERNAL_DATA).exists() else ()
    for name in (FILE, EXTERNAL_DATA):
        (folder / name).unlink(missing_ok=True)
    return None, (f"no {FILE}: {first}",)


def write_onnx(
    path: Path, program: ExportedProgram, module: nn.Module, example: tuple[Tensor, ...], opset: int
) -> None:
    """Write `program`, the export of `module`, to `path` with the user's names; raises OnnxError."""
    with torch.inference_mode():
        outputs = output_names(module(*example))
    try:
        with _quiet():
            written = torch.onnx.export(program, dynamo=True, opset_version=opset, verbose=False)
            assert written is not None  # noqa: S101  # None is what the exporter before dynamo returns
            if written.model.opset_imports[""] != opset:
                raise OnnxError(f"the exporter cannot write opset {opset}")
            _strip(written.model)
            _rename_batch(written.model)
            _rename_ends(written.model, _user_inputs(program), outputs)
            written.save(path)
    except OnnxError:
        raise
    except Exception as error:  # the exporter raises whatever its parts raise
        raise _refusal(error) from error


def onnx_difference(path: Path, module: nn.Module, inputs: tuple[Tensor, ...]) -> Difference:
    """How far ONNX Runtime's outputs are from those of `module` (in eval mode); raises OnnxError."""
    try:
        with _quiet():
            session = _session(path)
            names = [entry.name for entry in session.get_inputs()]
            feed = {name: x.detach().cpu().numpy() for name, x in zip(names, inputs, strict=True)}
            found = [torch.from_numpy(x) for x in session.run(None, feed)]
    except Exception as error:  # ONNX Runtime's errors have no common root
        raise OnnxError(f"ONNX Runtime does not run it: {_first_line(error)}") from error
    with torch.inference_mode():
        expected = [x.cpu() for x in output_tensors(module(*inputs))]
    try:
        return Difference.of(expected, found)
    except ValueError as error:
        raise OnnxError(f"ONNX Runtime gives other outputs: {error}") from error


def _check(path: Path, module: nn.Module, example: tuple[Tensor, ...], opset: int) -> OnnxCheck:
    """Agreement on one sample and on both."""
    found = [onnx_difference(path, module, tuple(x[:batch] for x in example)) for batch in (1, 2)]
    relative = max(difference.relative for difference in found)
    if not all(difference.relative <= TOLERANCE for difference in found):  # NaN too
        raise OnnxError(f"its outputs differ from the network's by {relative:.1e} of the largest")
    return OnnxCheck(
        opset=opset,
        largest_difference=max(difference.largest for difference in found),
        relative_difference=relative,
    )


def _session(path: Path) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 4  # errors are raised as well
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def _user_inputs(program: ExportedProgram) -> tuple[str, ...]:
    return tuple(str(name) for name in program.graph_signature.user_inputs)


def _values(model: Any) -> Iterator[Any]:
    """Every value of an ONNX graph: inputs, weights, results of nodes, also in graphs within nodes."""
    yield from model.graph.inputs
    yield from model.graph.initializers.values()
    for node in model.graph.all_nodes():
        yield from node.outputs


def _strip(model: Any) -> None:
    """Remove what the exporter notes of its own process: source lines, traces, internal names."""
    for graph in (model.graph, *model.graph.subgraphs(), *model.functions.values()):
        graph.doc_string = None
        for node in graph:
            node.doc_string = None
            node.metadata_props.clear()
        graph.metadata_props.clear()
    for value in _values(model):
        value.doc_string = None
        value.metadata_props.clear()
    model.doc_string = None
    model.metadata_props.clear()


def _rename_batch(model: Any) -> None:
    """Call the shared first dimension of the inputs "batch" instead of a generated symbol."""
    import onnx_ir

    symbol = re.compile(rf"\b{re.escape(str(model.graph.inputs[0].shape[0]))}\b")
    for value in _values(model):
        for axis, size in enumerate(value.shape or ()):
            if not isinstance(size, int) and size.value is not None:
                value.shape[axis] = onnx_ir.SymbolicDim(symbol.sub("batch", size.value))


def _rename_ends(model: Any, inputs: tuple[str, ...], outputs: tuple[str, ...]) -> None:
    """Give inputs and outputs the user's names; an output with an input's name becomes NAME_output."""
    outputs = tuple(f"{name}_output" if name in inputs else name for name in outputs)
    ends = [*model.graph.inputs, *model.graph.outputs]
    taken = {value.name for value in _values(model)} | set(inputs) | set(outputs)
    for value in list(_values(model)):
        if value.name in (*inputs, *outputs) and not any(value is end for end in ends):
            while value.name in taken:
                value.name += "_"
            taken.add(value.name)
    for value, name in zip(ends, (*inputs, *outputs), strict=True):
        value.name = name


def _refusal(error: BaseException) -> OnnxError:
    """What the exporter's error comes to: the operator that it cannot write, where it names one."""
    cause: BaseException | None = error
    while cause is not None:
        operator = _OPERATOR.search(str(cause))
        if operator:
            return OnnxError(f"the exporter cannot write operator {'.'.join(operator.groups())}", final=True)
        cause = cause.__cause__
    return OnnxError(f"the exporter failed: {_first_line(error)}")


def _first_line(error: BaseException) -> str:
    """The error's first line without paths of this machine."""
    line = str(error).strip().partition("\n")[0]
    return f"{type(error).__name__}: {_PATH.sub('...', line)}"


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's remarks on itself out of the worker's log."""
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
