"""What bfloat16, torch.compile and both do to the time of a training step, forward and backward, in plain PyTorch.

    python benchmarks/precision.py --threads 1 --out precision.json
    python benchmarks/precision.py --only resnet20 --compile --out compile.json

Networks of the catalogue at several sizes, batches of 128, images with channels innermost; medians of steps taken in
turn in one process.  `--compile` needs a C++ compiler.
"""

import argparse
import copy
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from _cifar import place
from _machine import machine
from _turns import medians
from torch import nn

from npn_core.catalogue import build
from npn_core.device import CPU, mixed_precision
from npn_core.gated import channels_last

BATCH, WARM, STEPS = 128, 2, 12


@dataclass(frozen=True, kw_only=True, slots=True)
class Subject:
    """A network of the catalogue on samples of a shape."""

    name: str
    shape: tuple[int, ...]
    params: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return " ".join([self.name, *(f"{key}={value}" for key, value in self.params.items())])

    def build(self) -> nn.Module:
        """In training mode, with the channels of images innermost."""
        module = build(self.name, self.params, input_shape=self.shape, classes=10, seed=0).train()
        place(module, CPU)
        return module


SUBJECTS = (
    Subject(name="mlp", shape=(784,), params={"hidden": "60,30"}),
    Subject(name="mlp", shape=(784,)),
    Subject(name="mlp", shape=(784,), params={"hidden": "1024,1024"}),
    Subject(name="lenet5-caffe", shape=(1, 28, 28), params={"widths": "5,9,15"}),
    Subject(name="lenet5-caffe", shape=(1, 28, 28), params={"widths": "19,12,50"}),
    Subject(name="lenet5-caffe", shape=(1, 28, 28)),
    Subject(name="resnet20", shape=(3, 32, 32)),
    Subject(name="resnet20", shape=(3, 32, 32), params={"widths": "13,31,55"}),
    Subject(name="mobilenet-v2", shape=(3, 32, 32)),
)


def steps_of(subject: Subject, *, compiles: bool) -> dict[str, Callable[[], None]]:
    """The ways to take a step, by name."""
    module, generator = subject.build(), torch.Generator().manual_seed(0)
    x = channels_last(torch.randn(BATCH, *subject.shape, generator=generator))
    y = torch.randint(10, (BATCH,), generator=generator)

    def step(network: Callable[[torch.Tensor], torch.Tensor], precision: str) -> Callable[[], None]:
        def run() -> None:
            with mixed_precision(CPU, precision):
                loss = F.cross_entropy(network(x), y)
            loss.backward()

        return run

    ways = {precision: step(module, precision) for precision in ("float32", "bfloat16")}
    if compiles:
        for precision in ("float32", "bfloat16"):
            ways[f"{precision}, compiled"] = step(torch.compile(copy.deepcopy(module)), precision)
    return ways


def main() -> None:
    """Measure, print a line each, save JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", default=sorted({subject.name for subject in SUBJECTS}))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    found = {}
    for subject in SUBJECTS:
        if subject.name in arguments.only:
            seconds = medians(steps_of(subject, compiles=arguments.compile), rounds=STEPS, warm=WARM)
            found[str(subject)] = {name: 1000 * one for name, one in seconds.items()}
            print(subject, {name: round(ms, 2) for name, ms in found[str(subject)].items()}, flush=True)
    if arguments.out:
        document = {"machine": machine(), "threads": arguments.threads, "step_ms": found}
        arguments.out.write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
