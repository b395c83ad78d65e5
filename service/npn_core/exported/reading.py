"""The order in which an archive is read."""

import warnings
from pathlib import Path
from typing import Any

from torch._export.serde import schema
from torch._export.serde.serialize import ExportedProgramDeserializer
from torch.export import ExportedProgram

from npn_core.errors import InvalidInput

from .archive import ModelArchive
from .graph import check_graph
from .payloads import Tensors, read_constants, read_weights
from .refusal import HOW_TO_EXPORT, refuse
from .shapes import check_shapes
from .signature import check_header, check_signature
from .typed import read_document


def read_exported(path: Path) -> ExportedProgram:
    """The program in a file that `torch.export.save` wrote, with its weights in a private mapping of the file.

    Nothing in the file is unpickled, evaluated or imported; example inputs are dropped unread, and so are guards.
    Outputs of library types are read as dicts.  What was exported on an accelerator is read for the processor.

    Raises InvalidInput on "model.uri" with a reason MODEL_NOT_PT2, MODEL_VERSION, MODEL_PICKLED, MODEL_UNSAFE,
    MODEL_OPERATOR or MODEL_TOO_LARGE for whatever cannot be read.  MemoryError passes.  Only one thread of a process
    may read at a time: torch keeps the state of its deserializer in a global.
    """
    archive = ModelArchive(path)
    program = read_document(archive, f"models/{archive.model}.json", schema.ExportedProgram)
    check_header(program)
    check_graph(program.graph_module.graph)
    weights, constants = read_weights(archive), read_constants(archive)
    check_signature(program.graph_module, weights, constants)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's, about its own functions
        try:
            exported = _build(program, weights, constants)
            check_shapes(exported)
        except (InvalidInput, MemoryError):
            raise
        except Exception as error:
            # torch's checks raise whatever comes to hand; their messages show paths and whole graphs.
            kind = type(error).__name__
            raise refuse(
                "MODEL_NOT_PT2", f"torch finds the graph inconsistent ({kind}); {HOW_TO_EXPORT}"
            ) from None
    return exported


def _build(program: schema.ExportedProgram, weights: Tensors, constants: Tensors) -> ExportedProgram:
    deserializer: Any = ExportedProgramDeserializer()
    exported: ExportedProgram = deserializer.deserialize(program, weights, constants, None)
    return exported
