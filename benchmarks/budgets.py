"""Random budgets on five networks: met at or under, used up, or refused with the right range.

    python benchmarks/budgets.py --out budgets.json

Each budget limits one or two of parameters, multiply-adds and bytes, at sizes drawn evenly on a logarithmic scale from
two thirds of the smallest network to the whole one.  A whole job of a few steps on random data meets it.  The compact
network is counted anew, and every unit that sleeps is opened alone, with what it cannot live without: none may fit.
A limit under the smallest network must be refused before training, in words that name the range.
"""

import argparse
import json
import math
import random
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from _machine import machine
from torch import Tensor

from npn_core.branches import without
from npn_core.budget import check_feasible, fits
from npn_core.catalogue import architectures
from npn_core.config import COST_KINDS, Budget, CatalogueModel, Training
from npn_core.cost import CostModel, cost_model
from npn_core.data import inspect_dataset
from npn_core.errors import InfeasibleBudget
from npn_core.gated import Network
from npn_core.groups import FIXED, units_of
from npn_core.job import CompressJob
from npn_core.pipeline import compress
from npn_core.prepare import Prepared, prepare
from npn_core.progress import Cost
from npn_core.report import ArchitectureDocument, Report, read_document

MODELS = ("lenet5-caffe", "mlp", "resnet20", "mobilenet-v2", "vit-tiny")
BUDGETS = 4  # of each model
SAMPLES, EPOCHS = 64, 4


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """A budget and what became of it.  `fitting`: sleeping units that would still have fitted, `asleep` of all."""

    model: str
    limits: dict[str, int]
    smallest: Cost
    dense: Cost
    refused: str | None = None
    compact: Cost | None = None
    before: dict[str, int] | None = None
    changed: int = 0
    asleep: int = 0
    fitting: int = 0

    @property
    def passes(self) -> bool:
        """Whether the budget was met and used up, or rightly refused."""
        if self.refused is not None:
            low = next(k for k, limit in self.limits.items() if limit < getattr(self.smallest, k))
            ends = f"{getattr(self.smallest, low):,} and {getattr(self.dense, low):,}"
            return f"budget.max_{low}" in self.refused and ends in self.refused
        return self.compact is not None and fits(self.compact, _budget(self.limits)) and self.fitting == 0


def main() -> None:
    """All jobs, one after the other."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    print(
        "| model | limits | compact | before repair | repaired | asleep | would fit | |\n" + "|---" * 8 + "|"
    )
    for row in measured(random.Random(arguments.seed)):
        rows.append(asdict(row) | {"passes": row.passes})
        print(line(row), flush=True)
    if arguments.out:
        arguments.out.write_text(json.dumps({"machine": machine(), "rows": rows}, indent=2))


def measured(chance: random.Random) -> Iterator[Row]:
    """A row for each model and budget."""
    shapes = {info.name: info.example_input_shape for info in architectures()}
    for name in MODELS:
        with tempfile.TemporaryDirectory() as folder:
            dataset = write_dataset(Path(folder), shapes[name])
            model, training = CatalogueModel(name=name), Training(epochs=EPOCHS, batch_size=16)
            prepared = prepare(model, inspect_dataset(dataset, layout=""), training)
            costs = cost_model(prepared.graph, prepared.coupling)
            dense, smallest = check_feasible(costs, Budget(max_params=1 << 40))
            for number in range(BUDGETS):
                limits = draw(chance, smallest, dense)
                output = Path(folder) / str(number)
                output.mkdir()
                job = CompressJob(
                    model=model,
                    dataset=dataset,
                    layout="",
                    budget=_budget(limits),
                    training=training,
                    output=output,
                )
                yield measure(job, prepared, Row(model=name, limits=limits, smallest=smallest, dense=dense))


def _budget(limits: dict[str, int]) -> Budget:
    return Budget(**{f"max_{kind}": limit for kind, limit in limits.items()})


def draw(chance: random.Random, smallest: Cost, dense: Cost) -> dict[str, int]:
    """Limits of one or two kinds."""
    kinds = chance.sample(COST_KINDS, chance.choice((1, 1, 2)))
    ends = {kind: (getattr(smallest, kind) / 1.5, getattr(dense, kind)) for kind in kinds}
    return {
        kind: round(math.exp(chance.uniform(math.log(low), math.log(high))))
        for kind, (low, high) in ends.items()
    }


def write_dataset(folder: Path, shape: tuple[int, ...]) -> Path:
    """Noise in ten classes."""
    noise = np.random.default_rng(0)
    x, y = noise.normal(size=(2 * SAMPLES, *shape)).astype(np.float32), np.arange(2 * SAMPLES) % 10
    path = folder / "data.npz"
    np.savez(path, x_train=x[:SAMPLES], y_train=y[:SAMPLES], x_test=x[SAMPLES:], y_test=y[SAMPLES:])
    return path


def measure(job: CompressJob, prepared: Prepared, row: Row) -> Row:
    """Run the job and look at what it made."""
    try:
        for _ in compress(job, lambda: False):
            pass
    except InfeasibleBudget as error:
        return replace(row, refused=f"{error.field}: {error}")
    report = read_document(Report, (job.output / "report.json").read_text())
    kept = read_document(ArchitectureDocument, (job.output / "architecture.json").read_text()).groups
    whole = Network(prepared.graph, prepared.coupling)
    mask = torch.zeros(whole.coupling.size, dtype=torch.bool)
    for group, units in zip(whole.coupling.groups, kept, strict=True):
        mask[group.offset + torch.tensor(units.kept, dtype=torch.int64)] = True
    # the units of a branch that left as a whole do not sleep
    network = without(whole, [units.name for units in kept if not units.kept], prepared.info.inputs)
    costs = cost_model(network.graph, network.coupling)
    mask = mask[units_of(whole.coupling, network.coupling)]
    sleeping = (~mask).nonzero().flatten().tolist()
    return replace(
        row,
        compact=report.compact,
        before=dict(report.hardening.hard_cost_before_repair),
        changed=report.hardening.units_changed,
        asleep=len(sleeping),
        fitting=sum(fits(costs.count(opened(costs, mask, unit)), job.budget) for unit in sleeping),
    )


def opened(costs: CostModel, mask: Tensor, unit: int) -> Tensor:
    """The mask with one more unit: the channel that a feature lies in, the cheapest feature of a channel."""
    parent, inside = int(costs.coupling.parent[unit]), costs.coupling.children.get(unit)
    larger = mask.clone()
    larger[[unit] if parent == FIXED else [unit, parent]] = True
    if inside is not None and not larger[inside].any():
        larger[inside[0]] = True  # features of a channel cost the same
    return larger


def line(row: Row) -> str:
    """A row of the table."""
    limits = ", ".join(f"{limit:,} {kind}" for kind, limit in row.limits.items())
    verdict = "passes" if row.passes else "FAILS"
    if row.compact is None or row.before is None:
        return f"| {row.model} | {limits} | refused | | | | | {verdict} |"
    compact = ", ".join(f"{getattr(row.compact, kind):,}" for kind in row.limits)
    before = ", ".join(f"{row.before[kind]:,}" for kind in row.limits)
    cells = (row.model, limits, compact, before, str(row.changed), str(row.asleep), str(row.fitting), verdict)
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
