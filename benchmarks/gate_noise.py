"""How much one estimate says of the gates' gradient in a whole network: LeNet-5-Caffe in stage 2 of a job.

    python benchmarks/gate_noise.py --dataset ../shared/data/mnist.npz --out gate_noise.json

At --steps of stage 2 the job stands still, on one minibatch.  The derivative in each of 25 gates of every group is
pi (1 - pi) times the mean difference that flipping it makes, over --samples draws of all others.  Beside it DisARM's
estimates and the slopes: how far one estimate is from it (root of the summed mean squares), how long and how well
directed their mean is.  DisARM's mean would need thousands of draws, so only its deviation is given.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from _machine import machine
from torch import Generator, Tensor

from npn_core.config import Budget, CatalogueModel, Training
from npn_core.cost import cost_model
from npn_core.data import Batch, inspect_dataset, load_dataset
from npn_core.estimators import ESTIMATORS
from npn_core.gated import Network, Noise
from npn_core.prepare import prepare
from npn_core.progress import Stage
from npn_core.step import Evaluation, Masked, gate_step
from npn_core.train import Trainer

PER_GROUP = 25


class Measured(Trainer):
    """Stands still at some steps of stage 2."""

    at: tuple[int, ...] = ()
    samples: int = 0
    found: list[dict[str, Any]]

    def plastic_step(self, batch: Batch, progress: float) -> Evaluation:
        """Measure, then go on."""
        step = self.state.meter.done.get(Stage.PLASTIC, 0)
        if step in self.at:
            self.state.k = self.schedule.k(progress)
            kept = {name: buffer.clone() for name, buffer in self.network.buffers.items()}
            self.found.append({"step": step, **self.measure(batch)})
            print(json.dumps(self.found[-1]), flush=True)
            for name, buffer in self.network.buffers.items():
                buffer.copy_(kept[name])
        return super().plastic_step(batch, progress)

    def measure(self, batch: Batch) -> dict[str, Any]:
        """Everything of one minibatch."""
        generator, noise = Generator().manual_seed(0), Noise(generator=Generator().manual_seed(1))
        gates, pair, groups = self.state.gates, (batch.x, self.target(batch)), self.network.coupling.groups
        pi = gates.probabilities(self.state.k)
        chosen = torch.cat(
            [torch.randperm(g.size, generator=generator)[:PER_GROUP] + g.offset for g in groups]
        )
        masked, weight = Masked(self.network, self.loss()), pi * (1 - pi)
        flips, slopes = [], []
        for _ in range(self.samples):
            z = torch.rand(len(pi), generator=generator, dtype=torch.float64) < pi
            evaluation, slope = masked.slopes(*pair, z, noise)
            slopes.append((weight * slope)[chosen])
            flips.append(self.differences(pair, z, chosen, evaluation.loss, noise) * weight[chosen])
        truth = torch.stack(flips).mean(0)

        def disarm() -> Tensor:
            u = torch.rand((1, len(pi)), generator=generator, dtype=torch.float64)
            step = gate_step(self.runner, gates, self.state.k, ESTIMATORS["disarm"], pair, u, noise)
            assert step.gradient is not None
            return (step.gradient / self.state.k)[chosen]

        return {
            "k": self.state.k,
            "expected_open": [round(float(pi[g.slice].sum()), 1) for g in groups],
            "disarm": deviation(truth, [disarm() for _ in range(4 * self.samples)]),
            "straight-through": deviation(truth, slopes),
            "mean_slope": direction(truth, torch.stack(slopes).mean(0)),
            "by_group": [
                direction(part, mean)
                for part, mean in zip(
                    truth.split(counts(groups)),
                    torch.stack(slopes).mean(0).split(counts(groups)),
                    strict=True,
                )
            ],
        }

    def differences(self, pair: Any, z: Tensor, chosen: Tensor, loss: float, noise: Noise) -> Tensor:
        """The loss with each chosen gate open, less that with it closed, under `z` (G,)."""
        x, y = pair
        found = []
        for gate in chosen.tolist():
            other = z.clone()
            other[gate] = ~z[gate]
            flipped = self.runner.evaluate(x, y, self.network.active(other), noise)
            found.append(loss - flipped if z[gate] else flipped - loss)
        return torch.tensor(found, dtype=torch.float64)


def counts(groups: Any) -> list[int]:
    """How many gates of each group are looked at."""
    return [min(group.size, PER_GROUP) for group in groups]


def deviation(truth: Tensor, estimates: list[Tensor]) -> float:
    """Root of an estimate's mean squared distance from the truth, in lengths of it."""
    return float((torch.stack(estimates) - truth).square().sum(1).mean().sqrt() / truth.norm())


def direction(truth: Tensor, mean: Tensor) -> dict[str, float]:
    """How a mean estimate stands to the truth."""
    both = float(truth.norm() * mean.norm())
    return {"cosine": float(truth @ mean) / max(both, 1e-30), "length": float(mean.norm() / truth.norm())}


def trainer(dataset: Path, training: Training, max_params: int, stop: Callable[[], bool]) -> Measured:
    """The job."""
    prepared = prepare(CatalogueModel(name="lenet5-caffe"), inspect_dataset(dataset), training)
    network = Network(prepared.graph, prepared.coupling)
    return Measured(
        network=network,
        costs=cost_model(network.graph, network.coupling),
        data=load_dataset(dataset, layout="", preprocessing=training.preprocessing, seed=training.seed),
        objective=prepared.objective,
        budget=Budget(max_params=max_params),
        training=training,
        trained=False,
        should_stop=stop,
    )


def main() -> None:
    """Run, print a line each, save JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dataset", type=Path, default=Path("../shared/data/mnist.npz"))
    parser.add_argument("--max-params", type=int, default=2_700)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--steps", type=int, nargs="+", default=[60, 500, 1000])
    parser.add_argument("--samples", type=int, default=24)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    training = Training(epochs=arguments.epochs, seed=arguments.seed, threads=1)
    job = trainer(arguments.dataset, training, arguments.max_params, lambda: False)
    job.at, job.samples, job.found = tuple(arguments.steps), arguments.samples, []
    for progress in job.run():
        if progress.stage is Stage.FINE_TUNE:
            break
    if arguments.out:
        arguments.out.write_text(json.dumps({"machine": machine(), "results": job.found}, indent=2))


if __name__ == "__main__":
    main()
