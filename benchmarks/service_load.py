"""A thousand watchers, a hundred GetJob and ten CreateJob a second; then 500 clients as fast as they can.

    python benchmarks/service_load.py --out service_load.json
    python benchmarks/service_load.py --quick            # half a minute: too short to judge the limits

Starts `npn-server` with one worker and trains a small network for most of a minute, whose events are recorded.  Then,
on a server without workers that has 200 jobs queued and some that run, the events are replayed 60 times faster for the
running ones, while `_load_client.py`, a process of its own, calls and watches over 50 connections.  Half of the
watchers are slow.  The load is open loop: a call's time counts from when it was due.  Exit code 1 when a limit is
missed.
"""

import argparse
import json
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from _load_client import Load
from _machine import ROOT, machine
from _rpc_results import Latencies

from npn_client import Architecture, Budget, Client, Training
from npn_core.progress import Progress
from npn_service.jobs.model import Job
from npn_service.jobs.sql_store import SqlJobStore

sys.path.append(str(ROOT / "tests"))

from job_samples import create, lease
from server_process import ServerProcess, launch_server
from wire import connect, job_on, npz, upload
from wire import create as submit

FASTER = 60.0
QUEUED = 200
RUNNING = 4
P99 = {"GetJob": 0.050, "CreateJob": 0.150}  # seconds
CALLS = 5000
GROWTH = 0.10
SETTLED = 120.0  # seconds after the load began: what is held then is what a server holds
ALLOWED = {"OK", "RESOURCE_EXHAUSTED", "UNAVAILABLE"}
RECORDED = Training(epochs=40, batch_size=32, seed=0)
SAMPLES = 30_000
NO_LIMITS = {"max_queued_jobs_per_owner": "0", "max_running_jobs_per_owner": "0"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Results:
    """`rss` is the server's memory by the second, in bytes; `settled` the second that the end is compared with."""

    latencies: tuple[Latencies, ...]
    codes: Mapping[str, int]
    events: int
    replayed: int
    flat_out: Mapping[str, int]
    calls_per_second: float
    rss: tuple[int, ...]
    settled: int

    @property
    def growth(self) -> float:
        """Memory at the end beyond that of the settled server, as a share of it."""
        return self.rss[-1] / self.rss[self.settled] - 1

    def missed(self) -> list[str]:
        """The limits that do not hold."""
        slow = [
            f"{latencies.condition} p99 {1e3 * latencies.p99:.0f} ms; limit {1e3 * P99[latencies.condition]:.0f} ms"
            for latencies in self.latencies
            if latencies.p99 > P99[latencies.condition]
        ]
        calls = sum(latencies.calls for latencies in self.latencies)
        few = [f"{calls} calls; at least {CALLS}"] if calls < CALLS else []
        codes = {*self.codes, *self.flat_out} - ALLOWED
        grown = [f"memory grew by {self.growth:.1%}; limit {GROWTH:.0%}"] if self.growth > GROWTH else []
        return [*slow, *few, *grown, *([f"codes {sorted(codes)}"] if codes else [])]


def record(folder: Path) -> list[tuple[float, Progress]]:
    """Seconds since the first, and progress, of every event of a real training."""
    server = launch_server(folder / "data", folder)
    data = folder / "digits.npz"
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (SAMPLES, 8, 8), dtype=np.uint8)
    data.write_bytes(npz(x_train=images, y_train=np.arange(SAMPLES) % 4))
    try:
        with Client(server.address, timeout=300) as client:
            job = client.compress(
                Architecture("mlp", {"hidden": "32,16"}),
                dataset=data,
                budget=Budget(max_params=1000),
                training=RECORDED,
            ).wait(timeout=600)
    finally:
        server.stop()
    store = SqlJobStore(f"sqlite:///{folder / 'data/npn.sqlite'}")
    events = store.events_after(owner="local", job_id=job.id, sequence=1, limit=1000)
    store.close()
    told = [(event.time, event.progress) for event in events if event.progress is not None]
    return [((moment - told[0][0]).total_seconds(), progress) for moment, progress in told]


class Replay:
    """Writes recorded events for running jobs, faster, as their attempts would; over and over until it is stopped."""

    def __init__(
        self, store: SqlJobStore, jobs: Sequence[Job], events: Sequence[tuple[float, Progress]]
    ) -> None:
        self._store, self._jobs, self._events = store, jobs, events
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.written = 0

    def __enter__(self) -> "Replay":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.is_set():
            begin = time.monotonic()
            for second, progress in self._events:
                if self._stop.wait(max(0.0, begin + second / FASTER - time.monotonic())):
                    return
                for job in self._jobs:
                    self._store.record_progress(job_id=job.id, attempt=1, progress=progress)
                    self.written += 1


@contextmanager
def watched_memory(server: ServerProcess) -> Iterator[list[int]]:
    """The server's resident memory, once a second."""
    process, samples, stop = psutil.Process(server.process.pid), [], threading.Event()

    def sample() -> None:
        while not stop.wait(1.0):
            samples.append(process.memory_info().rss)

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield samples
    finally:
        stop.set()
        thread.join()


def under_load(folder: Path, events: Sequence[tuple[float, Progress]], sizes: Mapping[str, Any]) -> Results:
    """The load, on a fresh server."""
    server = launch_server(folder / "data", folder, workers="0", **NO_LIMITS)
    store = SqlJobStore(f"sqlite:///{server.data_dir / 'npn.sqlite'}", progress_interval=0.0)
    try:
        running = [run_next(store) for _ in range(RUNNING)]
        names = [job.name for job in (*running, *(create(store) for _ in range(QUEUED)))]
        with connect(server.address) as stub:
            new = job_on(upload(stub, npz()))
            submit(stub, new, validate_only=True)  # the inspector is warm from here on
        load = Load(jobs=tuple(names), job=new.SerializeToString().hex(), **sizes)
        with Replay(store, running, events) as replay, watched_memory(server) as rss:
            measured = call(server.address, load)
            time.sleep(3)
        return results_of(measured, rss, replay.written)
    finally:
        store.close()
        server.stop()


def run_next(store: SqlJobStore) -> Job:
    """A job in its first attempt."""
    create(store)
    return lease(store, seconds=86400)


def call(address: str, load: Load) -> dict[str, Any]:
    """Run the callers in a process of their own."""
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("_load_client.py")), address],
        input=json.dumps(asdict(load)) + "\n",
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return dict(json.loads(done.stdout.splitlines()[-1]))


def results_of(measured: Mapping[str, Any], rss: Sequence[int], replayed: int) -> Results:
    """What came of it."""
    flat_out = measured["flat_out"]
    return Results(
        latencies=tuple(Latencies.of(method, seconds) for method, seconds in measured["latencies"].items()),
        codes=measured["codes"],
        events=measured["events"],
        replayed=replayed,
        flat_out=flat_out,
        calls_per_second=sum(flat_out.values()) / measured["flat_out_seconds"],
        rss=tuple(rss),
        settled=min(round(SETTLED), len(rss) // 2),
    )


def tell(results: Results) -> Iterator[str]:
    """The report."""
    for row in results.latencies:
        times = ", ".join(
            f"{name} {1e3 * getattr(row, name):.1f} ms" for name in ("p50", "p90", "p99", "longest")
        )
        yield f"{row.condition}: {row.calls} calls, {times}"
    yield f"codes: {dict(results.codes)}; {results.events} events seen, {results.replayed} replayed"
    yield f"flat out: {results.calls_per_second:.0f} calls/s, {dict(results.flat_out)}"
    held, end = results.rss[results.settled] / 1e6, results.rss[-1] / 1e6
    yield f"memory: {held:.0f} MB after {results.settled} s, {end:.0f} MB at the end ({results.growth:+.1%})"


def main() -> int:
    """Measure, print, save; 1 when a limit is missed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # through every `finally`: the server ends with us
    sizes = {"seconds": 240.0}
    if arguments.quick:
        sizes = {"seconds": 10.0, "flat_out_seconds": 5.0, "watchers": 200, "clients": 100}
    with tempfile.TemporaryDirectory(prefix="npn-service-load-") as folder:
        events = record(Path(folder) / "recorded")
        results = under_load(Path(folder) / "loaded", events, sizes)
    where = machine()
    print(f"commit {where['commit']}, {where['cpu']}, {where['cores']} cores")
    print("\n".join(tell(results)))
    missed = results.missed()
    if arguments.out:
        document = {"machine": where, "load": sizes, "results": asdict(results), "missed": missed}
        arguments.out.write_text(json.dumps(document, indent=2))
    for limit in missed:
        print(f"MISSED: {limit}", file=sys.stderr)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
