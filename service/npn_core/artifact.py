"""The artifact: a folder with the compact network, its weights, and the proof, free of pickle.

    model.pt2           the network (`torch.export`, dynamic batch, one input named x)
    model.safetensors   its parameters and persistent buffers
    architecture.json   which units stayed
    report.json         what was asked, what came out, and the proof
    metrics.jsonl       one line per validation, that is per epoch
    SHA256SUMS          of the files above, for `sha256sum -c`

`torch.export.load` runs model.pt2 where this project is not installed.
"""

import copy
import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, fx, nn

from .progress import Progress
from .recount import payload
from .report import FORMAT_VERSION, ArchitectureDocument, Report, write_document
from .strict_json import to_json

# What torch records of the exporting process: source files, and addresses that differ from run to run.
_PROCESS_META = ("stack_trace", "from_node")


@dataclass(frozen=True, kw_only=True, slots=True)
class OutputFile:
    """One file of the artifact: path relative to the folder, size in bytes, SHA-256 in lower-case hex."""

    path: str
    size: int
    sha256: str


def write_artifact(
    folder: Path,
    module: nn.Module,
    example: Tensor,
    *,
    architecture: ArchitectureDocument,
    report: Report,
    metrics: Iterable[Progress],
) -> tuple[OutputFile, ...]:
    """Write the artifact of the compact `module` into an existing `folder`, and return its files.

    `module` is in eval mode and takes one tensor; `example` is a batch of two samples, (2, *input_shape).
    """
    torch.export.save(export(module, example), folder / "model.pt2")
    weights = {
        name: tensor.clone(memory_format=torch.contiguous_format) for name, tensor in payload(module).items()
    }
    save_file(weights, folder / "model.safetensors")
    (folder / "architecture.json").write_text(write_document(architecture), encoding="utf-8")
    (folder / "report.json").write_text(write_document(report), encoding="utf-8")
    with (folder / "metrics.jsonl").open("w", encoding="utf-8") as lines:
        for progress in metrics:
            line = {"format_version": FORMAT_VERSION, **to_json(progress)}
            lines.write(json.dumps(line, allow_nan=False) + "\n")
    files = [_describe(path) for path in sorted(folder.iterdir())]
    sums = folder / "SHA256SUMS"
    sums.write_text("".join(f"{file.sha256}  {file.path}\n" for file in files), encoding="ascii")
    return (*files, _describe(sums))


def export(module: nn.Module, example: Tensor) -> torch.export.ExportedProgram:
    """`module` as a program with the input x of any batch size.

    It carries no example inputs, which `torch.export.save` would pickle, and no path of this machine.
    """
    if module.training or example.shape[0] != 2:
        raise ValueError("export takes a module in eval mode and a batch of two samples")
    graph_module = fx.symbolic_trace(copy.deepcopy(module))
    (placeholder,) = graph_module.graph.find_nodes(op="placeholder")
    placeholder.target = placeholder.name = "x"
    graph_module.recompile()
    batch = torch.export.Dim("batch", min=1)
    program = torch.export.export(graph_module, (example,), dynamic_shapes=({0: batch},))
    program.example_inputs = None
    for node in program.graph.nodes:
        for key in _PROCESS_META:
            node.meta.pop(key, None)
    return program


def _describe(path: Path) -> OutputFile:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
    return OutputFile(path=path.name, size=path.stat().st_size, sha256=digest.hexdigest())
