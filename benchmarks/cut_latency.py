"""Latency of a catalogue network cut to so many units of each group, as a job's report measures it.

    python benchmarks/cut_latency.py --kept 15 0 0 0 27 32 28 0 62 64 63 57 --out cut_latency.json

Which units stay does not matter to it, so nothing is trained: `kept` is what the other benchmarks print, and what
`architecture.json` says of each group.  A branch that keeps nothing leaves.
"""

import argparse
import json
from dataclasses import asdict
from pathlib import Path

import torch
from _machine import machine
from _samples import samples_of

from npn_core.branches import find_branches, without
from npn_core.config import CatalogueModel, Training
from npn_core.gated import Network
from npn_core.latency import measure
from npn_core.prepare import prepare
from npn_core.surgery import compact


def main() -> None:
    """Cut, measure, print medians and ratios."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="resnet20")
    parser.add_argument("--shape", type=int, nargs="+", default=[3, 32, 32])
    parser.add_argument("--kept", type=int, nargs="+", required=True)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    info = samples_of(tuple(arguments.shape))
    prepared = prepare(CatalogueModel(name=arguments.model), info, Training())
    dense = Network(prepared.graph, prepared.coupling)
    kept = dict(zip((group.name for group in dense.coupling.groups), arguments.kept, strict=True))
    gone = [branch.name for branch in find_branches(dense) if kept[branch.name] == 0]
    full = without(dense, gone, info.inputs)
    mask = torch.zeros(full.coupling.size, dtype=torch.bool)
    for group in full.coupling.groups:
        mask[group.offset : group.offset + kept[group.name]] = True
    small = compact(full, full.active(full.coupling.close(mask)), info.inputs).eval()
    example = (torch.rand(64, *arguments.shape),)
    latencies = measure(dense.graph.eval(), small, example, arguments.threads)
    for entry in latencies.entries:
        ratio = entry.compact_ms / entry.dense_ms
        print(f"batch {entry.batch}: {entry.compact_ms:.2f} of {entry.dense_ms:.2f} ms, {ratio:.2f}")
    if arguments.out:
        found = {"machine": machine(), "kept": kept, **asdict(latencies)}
        arguments.out.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
