"""200 watchers and 50 calls a second on a server that trains: latencies, order of events, and the training's speed.

    python benchmarks/rpc_load.py --dataset ../shared/data/mnist.npz --out rpc_load.json
    python benchmarks/rpc_load.py --threads 1 2      # also: which number of threads is the better default

Starts `npn-server` with one worker.  GetJob is measured on the idle server first.  Then LeNet-5 trains on MNIST
with small jobs queued behind it, in turn without load and with: half of the watchers on the queued jobs, half on
the one that trains.  At last all watch the queued jobs, the training is cancelled, and the jobs run.  Exit code 1
when a limit is missed.
"""

import argparse
import asyncio
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
from _machine import ROOT, machine
from _rpc_clients import asking, connections, watching
from _rpc_results import Latencies, Results, TrainingSpeed, Window, tell
from sklearn.datasets import load_digits

from npn.v1 import compression_pb2 as pb
from npn.v1.compression_pb2_grpc import CompressionServiceStub
from npn_client import Architecture, AsyncClient, AsyncJob, Budget, KSchedule, Progressed, Training

sys.path.append(str(ROOT / "tests"))
from server_process import ServerProcess, descendants, launch_server

BATCH_SIZE = 128
# Trains the dense network for as long as anybody measures it.
LENET = Training(
    epochs=10_000, batch_size=BATCH_SIZE, k=KSchedule(dense_fraction=1.0, plastic_fraction=0.0), seed=0
)
DIGITS = Training(epochs=4, batch_size=64, seed=0)


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """How much, and how long: `seconds` of a window, `settle` seconds before the first of a job."""

    seconds: float = 30.0
    rounds: int = 3
    settle: float = 15.0
    jobs: int = 20
    watchers: int = 200
    connections: int = 20
    calls_per_second: float = 50.0


@dataclass(kw_only=True, slots=True)
class Steps:
    """The training steps of a job, as its progress tells them."""

    done: int = 0
    news: asyncio.Event = field(default_factory=asyncio.Event)

    async def follow(self, job: AsyncJob) -> None:
        """Learn from every progress.  Fails when the job ends, which it should not of itself."""
        async for event in job.watch():
            if isinstance(event, Progressed):
                self.done = event.progress.step
                self.news.set()
        raise AssertionError(f"{job.name} ended {job.state.value}: {job.snapshot.error}")

    async def next(self) -> tuple[float, int]:
        """Time and steps at the next progress."""
        self.news.clear()
        await self.news.wait()
        return time.monotonic(), self.done


class Bench:
    """One server under measurement.  `stubs` are the load's connections, `client` is its user."""

    def __init__(
        self, plan: Plan, server: ServerProcess, stubs: Sequence[CompressionServiceStub], client: AsyncClient
    ) -> None:
        self.plan, self.server, self.stubs, self.client = plan, server, stubs, client

    async def run(self, digits: Path, mnist: Path, threads: Sequence[int | None]) -> Results:
        """Everything, in about 1 + 3.5 * len(threads) + 2 minutes."""
        idle = await self.idle(digits)
        # a higher priority: the small jobs wait until the last training was cancelled
        trainings = [await self.train(mnist, number) for number in threads]
        small = [await self.compress_digits(digits) for _ in range(self.plan.jobs)]
        names = [job.name for job in small]
        speeds, under_training = [], []
        for training in trainings:
            speed, latencies = await self.training(training, names)
            speeds.append(speed)
            under_training.append(latencies)
            if training is not trainings[-1]:
                await (await training.cancel()).wait(timeout=30)
        under_queue, faults = await self.queue(trainings[-1], names)
        return Results(
            watchers=self.plan.watchers,
            connections=self.plan.connections,
            jobs=self.plan.jobs,
            calls_per_second=self.plan.calls_per_second,
            idle=idle,
            under_training=tuple(under_training),
            under_queue=under_queue,
            training=tuple(speeds),
            faults=tuple(faults),
        )

    async def train(self, mnist: Path, threads: int | None) -> AsyncJob:
        """Queue the training; None leaves the number of threads to the server."""
        return await self.client.compress(
            "lenet5-caffe",
            dataset=mnist,
            budget=Budget(max_params=10_000),
            training=replace(LENET, threads=threads),
            priority=1,
        )

    async def compress_digits(self, digits: Path) -> AsyncJob:
        """Queue a job of a few seconds."""
        mlp = Architecture("mlp", {"hidden": "32"})
        return await self.client.compress(
            mlp, dataset=digits, budget=Budget(max_params=1000), training=DIGITS
        )

    async def idle(self, digits: Path) -> Latencies:
        """GetJob on a server that does nothing else, once a first job went through it."""
        job = await (await self.compress_digits(digits)).wait(timeout=120)
        assert job.snapshot.result is not None, f"the first job ended {job.state.value}: {job.snapshot.error}"
        await asyncio.sleep(self.plan.settle)
        async with asking(self.stubs, [job.name], self.plan.calls_per_second) as latencies:
            await asyncio.sleep(self.plan.seconds)
        return Latencies.of("idle", latencies)

    async def training(self, job: AsyncJob, queued: Sequence[str]) -> tuple[TrainingSpeed, Latencies]:
        """A training's speed, alone and under load in turn, and GetJob under that load."""
        alone, loaded, latencies = [], [], []
        both = [name for waiting in queued for name in (waiting, job.name)]
        async with following(job) as steps:
            await steps.next()
            await asyncio.sleep(self.plan.settle)
            threads = job.snapshot.training.threads or 0
            for _ in range(self.plan.rounds):
                alone.append(await self.window(steps))
                async with (
                    watching(self.stubs, both, self.plan.watchers),
                    asking(self.stubs, [job.name, *queued], self.plan.calls_per_second) as seconds,
                ):
                    loaded.append(await self.window(steps))
                latencies += seconds
        speed = TrainingSpeed(threads=threads, alone=tuple(alone), loaded=tuple(loaded))
        return speed, Latencies.of(f"LeNet-5 trains, threads={threads}", latencies)

    async def window(self, steps: Steps) -> Window:
        """Speed and cost of some seconds."""
        begin, before = await steps.next()
        cpu = self.cpu_seconds()
        await asyncio.sleep(self.plan.seconds)
        end, after = await steps.next()
        used = {side: (seconds - cpu[side]) / (end - begin) for side, seconds in self.cpu_seconds().items()}
        return Window(samples_per_second=(after - before) * BATCH_SIZE / (end - begin), cores=used)

    def cpu_seconds(self) -> dict[str, float]:
        """Processor time so far of the server, of the processes that it started, and of this one."""
        pid = self.server.process.pid
        worker = sum(cpu_seconds(child) for child in descendants(pid))
        return {"server": cpu_seconds(pid), "worker": worker, "client": time.process_time()}

    async def queue(self, training: AsyncJob, jobs: Sequence[str]) -> tuple[Latencies, list[str]]:
        """Let the queued jobs run under every watcher's eyes; what the watchers missed."""
        async with (
            watching(self.stubs, jobs, self.plan.watchers) as watchers,
            asking(self.stubs, jobs, self.plan.calls_per_second) as latencies,
            asyncio.timeout(60 * len(jobs)),
        ):
            await training.cancel()
            await asyncio.gather(*(watcher.ended.wait() for watcher in watchers))
        final = {name: await self.stubs[0].GetJob(pb.GetJobRequest(name=name)) for name in jobs}
        failed = [f"{name}: {job.error.message}" for name, job in final.items() if job.HasField("error")]
        assert not failed, f"these jobs failed: {failed}"
        faults = [fault for watcher in watchers if (fault := watcher.fault(final[watcher.job]))]
        return Latencies.of(f"{len(jobs)} small jobs run", latencies), faults


@asynccontextmanager
async def following(job: AsyncJob) -> AsyncIterator[Steps]:
    """The steps of a job, as long as the block lasts."""
    steps = Steps()
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(steps.follow(job))
        yield steps
        task.cancel()


def cpu_seconds(pid: int) -> float:
    """User and system time of a process and all its threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def write_digits(path: Path) -> None:
    """scikit-learn's digits as a dataset."""
    x, y = load_digits(return_X_y=True)
    x, y = x.astype(np.float32) / 16, y.astype(np.int64)
    np.savez(path, x_train=x[:1500], y_train=y[:1500], x_test=x[1500:], y_test=y[1500:])


async def measure(plan: Plan, server: ServerProcess, mnist: Path, threads: Sequence[int | None]) -> Results:
    """Connect, and run the bench."""
    digits = server.data_dir.parent / "digits.npz"
    write_digits(digits)
    async with (
        connections(server.address, plan.connections) as stubs,
        AsyncClient(server.address) as client,
    ):
        return await Bench(plan, server, stubs, client).run(digits, mnist, threads)


def main() -> int:
    """Measure, print, save; 1 when a limit is missed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dataset", type=Path, default=ROOT.parent / "shared/data/mnist.npz")
    parser.add_argument(
        "--threads", type=int, nargs="+", help="limits count for the first; default: the server's"
    )
    parser.add_argument(
        "--quick", action="store_true", help="windows of seconds: too short to judge the limits"
    )
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # through every `finally`: the server ends with us
    plan = Plan(seconds=4.0, rounds=1, settle=4.0, jobs=4) if arguments.quick else Plan()
    with tempfile.TemporaryDirectory(prefix="npn-rpc-load-") as folder:
        server = launch_server(Path(folder) / "data", Path(folder), workers="1")
        try:
            results = asyncio.run(measure(plan, server, arguments.dataset, arguments.threads or [None]))
        finally:
            server.stop()
    where = machine()
    print("\n".join(tell(results, where)))
    missed = results.missed()
    if arguments.out:
        document = {"machine": where, "plan": asdict(plan), "results": asdict(results), "missed": missed}
        arguments.out.write_text(json.dumps(document, indent=2))
    for limit in missed:
        print(f"MISSED: {limit}", file=sys.stderr)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
