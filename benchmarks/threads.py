"""How fast one and two training processes are with one and two threads each, spinning or asleep while they wait.

    python benchmarks/threads.py

Plain dense LeNet-5-Caffe steps at batch 128, samples/s of each process.  OpenMP's OMP_WAIT_POLICY=PASSIVE makes
waiting threads sleep; workers of the service are started with it.
"""

import argparse
import os
import subprocess
import sys
import time

import torch
import torch.nn.functional as F

from npn_core.catalogue import build
from npn_core.gated import channels_last

SHAPE, BATCH = (1, 28, 28), 128


def train(threads: int, seconds: float) -> float:
    """samples/s of steps on `threads` threads for about `seconds`."""
    torch.set_num_threads(threads)
    module = build("lenet5-caffe", {}, input_shape=SHAPE, classes=10, seed=0)
    optimizer = torch.optim.Adam(module.parameters(), fused=True)
    x, y = channels_last(torch.randn(BATCH, *SHAPE)), torch.randint(10, (BATCH,))
    steps, started = -5, time.perf_counter()
    while steps < 0 or time.perf_counter() - started < seconds:
        if steps == 0:
            started = time.perf_counter()
        optimizer.zero_grad()
        F.cross_entropy(module(x), y).backward()
        optimizer.step()
        steps += 1
    return steps * BATCH / (time.perf_counter() - started)


def main() -> None:
    """Every combination, each in fresh processes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--worker", type=int, metavar="THREADS", help="measure in this process")
    arguments = parser.parse_args()
    if arguments.worker:
        print(round(train(arguments.worker, arguments.seconds)))
        return
    print("| processes | threads each | waiting threads | samples/s |\n|---|---|---|---|")
    for processes, threads, policy in ((1, 1, ""), (1, 2, "ACTIVE"), (1, 2, "PASSIVE"),
                                       (2, 1, ""), (2, 2, "ACTIVE"), (2, 2, "PASSIVE")):  # fmt: skip
        command = [sys.executable, __file__, "--worker", str(threads), "--seconds", str(arguments.seconds)]
        environment = os.environ | ({"OMP_WAIT_POLICY": policy} if policy else {})
        running = [
            subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
            for _ in range(processes)
        ]
        speeds = " and ".join(process.communicate()[0].strip() for process in running)
        waits = {"": "", "ACTIVE": "spin", "PASSIVE": "sleep"}[policy]
        print(f"| {processes} | {threads} | {waits} | {speeds} |", flush=True)


if __name__ == "__main__":
    main()
