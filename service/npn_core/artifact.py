"""The artifact: a folder with the compact network, its weights, and the proof, free of pickle.

    model.pt2           the network (`torch.export`, dynamic batch, inputs named as the user's)
    model.onnx          the same for ONNX Runtime, where it can be written
    model.safetensors   its parameters and persistent buffers, under the user's names
    architecture.json   which units stayed, and the layers' new sizes
    report.json         what was asked, what came out, and the proof
    metrics.jsonl       one line per validation, that is per epoch
    SHA256SUMS          of the files above, for `sha256sum -c`

`torch.export.load` runs model.pt2 where this project is not installed.
"""

import hashlib
import json
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from .copies import stored_alone
from .onnx_export import export_onnx
from .outputs import output_names
from .program import export
from .progress import Progress
from .recount import payload
from .report import FORMAT_VERSION, ArchitectureDocument, InputSpec, OnnxCheck, Report, write_document
from .strict_json import to_json
from .widths import input_specs


@dataclass(frozen=True, kw_only=True, slots=True)
class OutputFile:
    """One file of the artifact: path relative to the folder, size in bytes, SHA-256 in lower-case hex."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Exported:
    """What `export_model` wrote: the ends of the network for its documents, and the check of model.onnx.

    `onnx` is None where there is no model.onnx; `warnings` say why.
    """

    inputs: tuple[InputSpec, ...]
    outputs: tuple[str, ...]
    onnx: OnnxCheck | None
    warnings: tuple[str, ...]


def export_model(
    folder: Path,
    module: nn.Module,
    example: tuple[Tensor, ...],
    input_names: tuple[str, ...],
    sparse: Collection[str] = (),
) -> Exported:
    """Write model.pt2, model.onnx and model.safetensors of the compact `module` into an existing `folder`.

    `module` is in eval mode; `example` is a batch of two real samples, (2, *shape) each; what is `sparse` is stored
    as in `recount.payload`.  Raises InvalidInput
    where the network works for one batch size alone; that model.onnx cannot be written is only a warning.
    """
    module = stored_alone(module)
    program = export(module, example, input_names)
    torch.export.save(program, folder / "model.pt2")
    save_file(payload(module, sparse), folder / "model.safetensors")
    onnx, warnings = export_onnx(folder, program, module, example)
    with torch.inference_mode():
        outputs = output_names(module(*example))
    return Exported(inputs=input_specs(input_names, example), outputs=outputs, onnx=onnx, warnings=warnings)


def write_documents(
    folder: Path, *, architecture: ArchitectureDocument, report: Report, metrics: Iterable[Progress]
) -> tuple[OutputFile, ...]:
    """Write the documents beside what `export_model` wrote, then SHA256SUMS; returns all files of `folder`."""
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


def _describe(path: Path) -> OutputFile:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
    return OutputFile(path=path.name, size=path.stat().st_size, sha256=digest.hexdigest())
