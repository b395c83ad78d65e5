"""Every catalogue model, every structure of the tests and four models of `transformers`, the whole way.

    python benchmarks/coverage.py --out coverage.json [--only NAME ...]

Export in train mode, compress to half the parameters for a few steps on random data, and measure what comes out:
groups, prunable share, budget, random masks, a bare process, ONNX Runtime, latency.  One row each as JSON and as
the table of docs/models.md.  A row that fails says with what; the others go on.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _machine import ROOT, machine
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from npn_core.catalogue import architectures, build
from npn_core.config import Budget, ModelFile, Preprocessing, Training
from npn_core.cost import cost_model
from npn_core.data import inspect_dataset
from npn_core.difference import Difference
from npn_core.gated import Network
from npn_core.job import CompressJob, Outcome
from npn_core.outputs import output_tensors
from npn_core.pipeline import compress, plan
from npn_core.prepare import prepare
from npn_core.recount import count
from npn_core.step import gated_outputs
from npn_core.surgery import compact

sys.path.insert(0, str(ROOT / "tests"))
from structures import STRUCTURES, transformers_structures

SAMPLES, BATCH, EPOCHS, MASKS = 32, 8, 4, 20
GATED_TOLERANCE, ONNX_TOLERANCE = 1e-5, 1e-4
BARE = """
import sys, torch
program = torch.export.load(sys.argv[1])
inputs = torch.load(sys.argv[2], weights_only=True)
program.module()(*inputs)
assert not [name for name in sys.modules if name.startswith("npn")]
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Subject:
    """A network to send, and its arguments for a batch size."""

    name: str
    module: Callable[[], nn.Module]
    inputs: Callable[[int], tuple[Tensor, ...]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """What the table shows of a subject.  Latencies are medians in milliseconds by batch size, one thread.

    `limit` is half of the parameters, or halfway to the smallest network where that is larger.
    """

    name: str
    params: int
    macs: int
    groups: int
    prunable: float
    limit: int
    compact_params: int
    recounts_agree: bool
    mask_difference: float
    job_difference: float
    onnx_difference: float | None
    bare_process: bool
    latency: dict[int, tuple[float, float]]
    unpruned: tuple[str, ...]
    warnings: tuple[str, ...]

    @property
    def passes(self) -> bool:
        """Whether the row meets the limits."""
        exact = max(self.mask_difference, self.job_difference) <= GATED_TOLERANCE
        onnx = self.onnx_difference is not None and self.onnx_difference <= ONNX_TOLERANCE
        met = self.compact_params <= self.limit
        return met and self.recounts_agree and exact and onnx and self.bare_process


def main() -> None:
    """Measure the subjects one after the other; print the table as it grows."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    rows: list[dict[str, Any]] = []
    print(HEADER, flush=True)
    for subject in subjects():
        if arguments.only and subject.name not in arguments.only:
            continue
        try:
            row = measure(subject)
            rows.append(asdict(row) | {"passes": row.passes})
            print(line(row), flush=True)
        except Exception as error:  # the next subject may work
            rows.append({"name": subject.name, "passes": False, "error": f"{type(error).__name__}: {error}"})
            print(f"| {subject.name} |{' |' * 10} {type(error).__name__}: {error} |", flush=True)
    if arguments.out:
        arguments.out.write_text(json.dumps({"machine": machine(), "rows": rows}, indent=2))


def subjects() -> Iterator[Subject]:
    """Catalogue models of default size, then the structures, then the library's models."""
    for info in architectures():

        def module(name: str = info.name, shape: tuple[int, ...] = info.example_input_shape) -> nn.Module:
            return build(name, {}, input_shape=shape, classes=10, seed=0)

        def inputs(batch: int, shape: tuple[int, ...] = info.example_input_shape) -> tuple[Tensor, ...]:
            return (torch.randn(batch, *shape, generator=torch.Generator().manual_seed(7)),)

        yield Subject(name=info.name, module=module, inputs=inputs)
    for structure in (*STRUCTURES, *transformers_structures()):
        yield Subject(name=structure.name, module=structure.module, inputs=structure.inputs)


def measure(subject: Subject) -> Row:
    """One row."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        archive, artifact = folder / "sent.pt2", folder / "artifact"
        artifact.mkdir()
        dense = exported(subject.module().train(), subject.inputs(2))
        dense.example_inputs = None
        torch.export.save(dense, archive)
        dataset = write_dataset(subject, dense, folder)
        training = Training(
            epochs=EPOCHS,
            batch_size=BATCH,
            loss="cross_entropy" if scores(subject) else "distill",
            preprocessing=Preprocessing(mode="none"),
        )
        model = ModelFile(path=archive)
        free = plan(model, inspect_dataset(dataset, layout=""), Budget(max_params=1 << 40), training)
        limit = max(free.dense.params // 2, (free.dense.params + free.smallest.params) // 2)
        limit = free.dense.params // 2 if free.smallest.params < free.dense.params // 2 else limit
        budget = Budget(max_params=limit)
        outcome = run(
            CompressJob(
                model=model, dataset=dataset, layout="", budget=budget, training=training, output=artifact
            )
        )
        report = json.loads((artifact / "report.json").read_text())
        torch.save(subject.inputs(3), folder / "inputs.pt")
        bare = [sys.executable, "-I", "-c", BARE, str(artifact / "model.pt2"), str(folder / "inputs.pt")]
        difference, agree = masks(model, dataset, training, subject.inputs(2))
        return Row(
            name=subject.name,
            params=outcome.dense.params,
            macs=outcome.dense.macs,
            groups=len(free.groups),
            prunable=free.prunable,
            limit=limit,
            compact_params=outcome.compact.params,
            recounts_agree=agree,
            mask_difference=difference,
            job_difference=report["relative_difference"],
            onnx_difference=report["onnx"] and report["onnx"]["relative_difference"],
            bare_process=subprocess.run(bare, check=False, cwd=folder).returncode == 0,
            latency={e["batch"]: (e["dense_ms"], e["compact_ms"]) for e in report["latency"]["entries"]},
            unpruned=tuple(f"{entry['name']}: {entry['reason']}" for entry in report["unpruned"]),
            warnings=tuple(report["warnings"]),
        )


def exported(module: nn.Module, inputs: tuple[Tensor, ...]) -> ExportedProgram:
    """The export with a dynamic batch."""
    batch = Dim("batch")
    shapes = tuple({0: batch} for _ in inputs)
    return torch.export.export(module, inputs, dynamic_shapes=shapes, strict=False)


def write_dataset(subject: Subject, program: ExportedProgram, folder: Path) -> Path:
    """Random samples; the labels are classes where the network gives one score per class."""
    arrays: dict[str, np.ndarray[Any, Any]] = {}
    classes = scores(subject)
    names = program.graph_signature.user_inputs
    for split, samples in (("train", SAMPLES), ("test", 2 * BATCH)):
        inputs = subject.inputs(samples)
        keys = [f"x_{split}.{name}" for name in names]  # as they are: x_train alone would get a channel axis
        arrays |= {key: tensor.numpy() for key, tensor in zip(keys, inputs, strict=True)}
        if classes:
            arrays[f"y_{split}"] = np.arange(samples) % classes
    path = folder / "data.npz"
    np.savez(path, allow_pickle=False, **arrays)
    return path


def scores(subject: Subject) -> int | None:
    """How many classes the network scores, where that is what it gives."""
    with torch.no_grad():
        outputs = subject.module().eval()(*subject.inputs(2))
    flat = isinstance(outputs, Tensor) and outputs.dim() == 2 and outputs.shape[1] > 1
    return outputs.shape[1] if flat else None


def run(job: CompressJob) -> Outcome:
    """The job's outcome, its progress dropped."""
    generator = compress(job, lambda: False)
    while True:
        try:
            next(generator)
        except StopIteration as done:
            outcome: Outcome = done.value
            return outcome


def masks(
    model: ModelFile, dataset: Path, training: Training, inputs: tuple[Tensor, ...]
) -> tuple[float, bool]:
    """MASKS random masks that each drop and keep at least one unit of every group.

    The largest relative difference gated/compact; whether the cost model and a recount agree on all of them.
    """
    prepared = prepare(model, inspect_dataset(dataset, layout=""), training)
    network = Network(prepared.graph.eval(), prepared.coupling)
    costs = cost_model(network.graph, network.coupling)
    worst, agree = 0.0, True
    for seed in range(MASKS):
        mask = random_mask(network, torch.Generator().manual_seed(seed))
        active = network.active(mask)
        module = compact(network, active, prepared.info.inputs).eval()
        with torch.no_grad():
            found = output_tensors(module(*inputs))
        worst = max(worst, Difference.of(gated_outputs(network, inputs, active), found).relative)
        agree &= costs.count(mask) == count(module, tuple(x[:1] for x in inputs))
    return worst, agree


def random_mask(network: Network, generator: torch.Generator) -> Tensor:
    """About half of the units, with at least one dropped and one kept in every group, closed."""
    coupling = network.coupling
    while True:
        mask = torch.rand(coupling.size, generator=generator) < torch.rand(1, generator=generator)
        for group in coupling.groups:
            kept = int(torch.randint(group.size, (1,), generator=generator))
            mask[group.offset + kept] = True
            mask[group.offset + (kept + 1) % group.size] = False
        mask = coupling.close(mask)
        if coupling.is_network(mask):
            return mask


HEADER = (
    "| model | params | groups | prunable | limit | compact | gated/compact | ONNX | bare | "
    "batch 1, ms | batch 64, ms | |\n|---|---|---|---|---|---|---|---|---|---|---|---|"
)


def line(row: Row) -> str:
    """A row of the table; latencies are dense / compact."""
    speed = (f"{row.latency[n][0]:.2f} / {row.latency[n][1]:.2f}" for n in (1, 64))
    cells = (
        row.name,
        f"{row.params:,}",
        str(row.groups),
        f"{row.prunable:.1%}",
        f"{row.limit:,}",
        f"{row.compact_params:,}",
        f"{max(row.mask_difference, row.job_difference):.1e}",
        "none" if row.onnx_difference is None else f"{row.onnx_difference:.1e}",
        "yes" if row.bare_process else "no",
        *speed,
        "passes" if row.passes else "FAILS",
    )
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
