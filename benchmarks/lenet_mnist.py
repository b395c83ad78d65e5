"""LeNet-5-Caffe on MNIST under a parameter budget: accuracy and time against the dense network and three baselines.

    python benchmarks/lenet_mnist.py --dataset ../shared/data/mnist.npz --out lenet_mnist.json

For each seed: the job with learned gates, the same job with its mask drawn at random, by weight magnitude, and
by stage 1's saliency alone (equal budget, epochs and fine-tuning), and dense training for as many epochs, plain
and in channels-last format.  All in one process on `--threads` threads; the test split is read once, at the end
of each run.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from _machine import machine

from npn_core.catalogue import build
from npn_core.config import Budget, Training
from npn_core.data import batches, load_dataset, load_test
from npn_core.gated import channels_last
from npn_core.pipeline import CompressJob, compress
from npn_core.schedule import Schedule

ARCHITECTURE = "lenet5-caffe"


def dense(dataset: Path, training: Training, run: str) -> dict[str, Any]:
    """Plain PyTorch: the whole network, torch's fused Adam, no validation on the way.

    "dense" is what a user writes; "dense-channels-last" has the memory format that the service uses.
    """
    arrange = channels_last if run == "dense-channels-last" else torch.Tensor.contiguous
    data = load_dataset(dataset, layout="", preprocessing=training.preprocessing, seed=training.seed)
    shape, classes = data.info.input_shape, data.info.classes
    module = build(ARCHITECTURE, {}, input_shape=shape, classes=classes, seed=training.seed)
    optimizer = torch.optim.Adam(module.parameters(), lr=training.lr, fused=True)
    generator = torch.Generator().manual_seed(training.seed)
    started = time.perf_counter()
    for _ in range(training.epochs):
        for x, y in batches(data, training.batch_size, generator):
            optimizer.zero_grad()
            F.cross_entropy(module(arrange(x)), y).backward()
            optimizer.step()
    seconds = time.perf_counter() - started
    x, y = load_test(dataset, layout="", preprocessing=data.preprocessing)
    with torch.no_grad():
        right = sum(
            int((module(a).argmax(1) == b).sum()) for a, b in zip(x.split(1000), y.split(1000), strict=True)
        )
    samples = len(data.x_train) * training.epochs
    return {"mask": run, "seed": training.seed, "seconds": seconds, "test": right / len(y),
            "samples_per_second": {"dense": samples / seconds}}  # fmt: skip


def job(dataset: Path, training: Training, budget: Budget) -> dict[str, Any]:
    """One whole job, data reading and export included, as a worker runs it."""
    with tempfile.TemporaryDirectory() as folder:
        run = compress(
            CompressJob(architecture=ARCHITECTURE, params={}, dataset=dataset, layout="", budget=budget,
                        training=training, output=Path(folder)),
            lambda: False,
        )  # fmt: skip
        started = time.perf_counter()
        try:
            while True:
                next(run)
        except StopIteration as end:
            outcome = end.value
        seconds = time.perf_counter() - started
        report = json.loads((Path(folder) / "report.json").read_text())
        architecture = json.loads((Path(folder) / "architecture.json").read_text())
    accuracies = report["accuracies"]
    samples = report["dataset"]["train_samples"]
    speeds = {
        stage: samples * epochs / report["timings"][stage]
        for stage, epochs in zip(("dense", "plastic", "fine_tune"), stage_epochs(training), strict=True)
        if stage in report["timings"]
    }
    return {
        "mask": training.mask,
        "seed": training.seed,
        "seconds": seconds,
        "params": outcome.compact.params,
        "macs": outcome.compact.macs,
        "kept": [len(group["kept"]) for group in architecture["groups"]],
        "dense_test": accuracies["dense_test"]["value"],
        "validation": accuracies["compact_validation"]["value"],
        "test": accuracies["compact_test"]["value"],
        "difference": report["largest_difference"],
        "hardening": report["hardening"],
        "samples_per_second": speeds,
    }


def stage_epochs(training: Training) -> tuple[int, int, int]:
    """Epochs of the three stages."""
    s = Schedule.of(training.epochs, training.k)
    return s.dense, s.plastic - s.dense, s.epochs - s.plastic


def main() -> None:
    """Run, print a line each, save JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dataset", type=Path, default=Path("../shared/data/mnist.npz"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument(
        "--runs",
        nargs="+",
        default=["learned", "dense", "dense-channels-last", "random", "magnitude", "saliency"],
    )
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--max-params", type=int, default=10_000)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    results = []
    for seed in arguments.seeds:
        for run in arguments.runs:
            mask = "learned" if run.startswith("dense") else run
            training = Training(epochs=arguments.epochs, seed=seed, threads=arguments.threads, mask=mask)
            budget = Budget(max_params=arguments.max_params)
            if run.startswith("dense"):
                result = dense(arguments.dataset, training, run)
            else:
                result = job(arguments.dataset, training, budget)
            results.append(result)
            print(json.dumps(result), flush=True)
            if arguments.out:
                arguments.out.write_text(json.dumps({"machine": machine(), "results": results}, indent=2))
    summary(results)


def summary(results: list[dict[str, Any]]) -> None:
    """Mean and range per kind of run, and the job's time as a ratio to dense training."""
    for mask in dict.fromkeys(r["mask"] for r in results):
        own = [r for r in results if r["mask"] == mask]
        tests = [100 * r["test"] for r in own]
        seconds = sum(r["seconds"] for r in own) / len(own)
        print(
            f"{mask:10} test {sum(tests) / len(tests):.2f} % ({min(tests):.2f} to {max(tests):.2f}), {seconds:.0f} s"
        )
    by_seed = {(r["mask"], r["seed"]): r["seconds"] for r in results}
    for base in ("dense", "dense-channels-last"):
        ratios = [
            seconds / by_seed[base, seed]
            for (mask, seed), seconds in by_seed.items()
            if mask == "learned" and (base, seed) in by_seed
        ]
        if ratios:
            print(f"job / {base} training time: {', '.join(f'{ratio:.2f}' for ratio in ratios)}")


if __name__ == "__main__":
    main()
