"""A training step with a tenth of the units awake, against a plain network of that size.

    python benchmarks/sliced_step.py

LeNet-5-Caffe at batch 128: the same tenth awake in every step (hibernation), another tenth in every step (as
sampled gates are), a whole DisARM step with its antithetic evaluation, and the dense step.  Times are medians,
taken in turn in one process, the dense step's apart.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from _machine import machine
from _samples import samples_of
from _turns import medians
from torch import Tensor

from npn_core.catalogue import build
from npn_core.config import CatalogueModel, Training
from npn_core.cost import cost_model
from npn_core.estimators import ESTIMATORS
from npn_core.gated import Network, Noise
from npn_core.gates import Gates
from npn_core.optimizer import SlicedAdam
from npn_core.prepare import prepare
from npn_core.step import Sliced, gate_step
from npn_core.surgery import compact
from npn_core.units import Kind

SHAPE, BATCH, SHARE = (1, 28, 28), 128, 0.1


def main() -> None:
    """Measure in turn and print medians and ratios."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    steps = cases()
    # apart from the others: it would leave cold caches to whoever comes next
    dense = {"plain dense": steps.pop("plain dense")}
    small, whole = (medians(group, rounds=arguments.rounds, warm=20) for group in (steps, dense))
    found = small | whole
    plain = found["plain small"]
    for name, median in found.items():
        print(f"{name:28} {median * 1e3:7.2f} ms  {median / plain:5.2f} x plain small")
    if arguments.out:
        arguments.out.write_text(json.dumps({"machine": machine(), "median_seconds": found}, indent=2))


def cases() -> dict[str, Callable[[], object]]:
    """The steps to compare, each ready to run."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(BATCH, *SHAPE, generator=generator)
    y = torch.randint(10, (BATCH,), generator=generator)
    prepared = prepare(CatalogueModel(name="lenet5-caffe"), samples_of(SHAPE), Training())
    graph, coupling = prepared.graph, prepared.coupling
    network = Network(graph, coupling)
    runner = Sliced(network, prepared.objective.loss)
    adam = SlicedAdam(parameters=network.parameters)

    def tenth() -> Tensor:
        mask = torch.zeros(coupling.size, dtype=torch.bool)
        for group in coupling.groups:
            if group.kind is not Kind.FEATURE:
                chosen = torch.randperm(group.size, generator=generator)[: round(SHARE * group.size)]
                mask[group.offset + chosen] = True
        mask[coupling.features] = mask[coupling.parent[coupling.features]]
        return mask

    fixed = tenth()
    small = compact(network, network.active(fixed), prepared.info.inputs).train()
    small_adam = torch.optim.Adam(small.parameters(), fused=True)
    dense = build("lenet5-caffe", {}, input_shape=SHAPE, classes=10, seed=0)
    dense_adam = torch.optim.Adam(dense.parameters(), fused=True)
    gates = Gates.open(coupling.size, 0.0)
    gates.awake = fixed
    disarm, phi = ESTIMATORS["disarm"], torch.Generator().manual_seed(1)

    def plain(module: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
        optimizer.zero_grad()
        F.cross_entropy(module(x), y).backward()
        optimizer.step()

    def sliced(mask: Tensor) -> None:
        evaluation = runner.differentiate((x,), y, network.active(mask), Noise(generator=generator))
        adam.step(evaluation.updates, 1e-3)

    def gated() -> None:
        u = torch.rand((disarm.rows, coupling.size), generator=phi, dtype=torch.float64)
        gates.phi.fill_(2.0)
        result = gate_step(runner, gates, 2.0, disarm, ((x,), y), u, Noise(generator=generator))
        adam.step(result.evaluation.updates, 1e-3)

    print(f"dense {cost_model(graph, coupling).count(torch.ones_like(fixed))}")
    print(f"a tenth {cost_model(graph, coupling).count(fixed)}")
    return {
        "plain small": lambda: plain(small, small_adam),
        "sliced, same tenth": lambda: sliced(fixed),
        "sliced, another tenth": lambda: sliced(tenth()),
        "sliced, DisARM (two passes)": gated,
        "plain dense": lambda: plain(dense, dense_adam),
    }


if __name__ == "__main__":
    main()
