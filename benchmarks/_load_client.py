"""The callers of service_load.py, in a process of their own: `python _load_client.py ADDRESS` with a Load on stdin.

Prints one JSON line when every watcher has begun, and one with what it measured.
"""

import asyncio
import itertools
import json
import sys
import time
import uuid
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import grpc
from _rpc_clients import CALL_SECONDS, WATCH_SECONDS, connections

from npn.v1 import compression_pb2 as pb
from npn.v1.compression_pb2_grpc import CompressionServiceStub

SLOW_SECONDS = 5.0  # between two reads of a slow watcher


@dataclass(frozen=True, kw_only=True, slots=True)
class Load:
    """Calls of fixed times for `seconds`, under the eyes of watchers; then clients as fast as they can.

    `jobs` are names, `job` a message that CreateJob takes, in hexadecimal.
    """

    jobs: tuple[str, ...]
    job: str
    seconds: float
    gets_per_second: float = 100.0
    creates_per_second: float = 10.0
    watchers: int = 1000
    connections: int = 50
    clients: int = 500
    flat_out_seconds: float = 30.0


@dataclass(kw_only=True, slots=True)
class Measured:
    """Seconds from when a call was due, by method; codes of both parts; calls that the clients got through."""

    latencies: dict[str, list[float]] = field(default_factory=lambda: {"GetJob": [], "CreateJob": []})
    codes: Counter[str] = field(default_factory=Counter)
    events: int = 0
    flat_out: Counter[str] = field(default_factory=Counter)
    flat_out_seconds: float = 0.0


class Callers:
    """Everybody who calls, over a few connections in turn."""

    def __init__(self, load: Load, stubs: Sequence[CompressionServiceStub]) -> None:
        self._load = load
        self._stubs = itertools.cycle(stubs)
        self._jobs = itertools.cycle(load.jobs)
        self._new = pb.Job.FromString(bytes.fromhex(load.job))
        self.measured = Measured()

    async def run(self) -> None:
        """Both parts."""
        load = self._load
        begun = [asyncio.Event() for _ in range(load.watchers)]
        async with asyncio.TaskGroup() as tasks:
            watchers = [
                tasks.create_task(self._watch(event, slow=number % 2 == 1))
                for number, event in enumerate(begun)
            ]
            await asyncio.gather(*(event.wait() for event in begun))
            print(json.dumps({"watching": load.watchers}), flush=True)
            async with asyncio.TaskGroup() as calls:
                calls.create_task(self._open_loop("GetJob", load.gets_per_second, self._get))
                calls.create_task(self._open_loop("CreateJob", load.creates_per_second, self._create))
            await self._flat_out()
            for watcher in watchers:
                watcher.cancel()

    async def _watch(self, begun: asyncio.Event, *, slow: bool) -> None:
        request = pb.WatchJobRequest(name=next(self._jobs))
        stub = next(self._stubs)
        while True:
            try:
                async for _ in stub.WatchJob(request, timeout=WATCH_SECONDS):
                    self.measured.events += 1
                    begun.set()
                    if slow:
                        await asyncio.sleep(SLOW_SECONDS)
            except grpc.aio.AioRpcError as error:  # fell too far behind, or one too many: begin again
                self.measured.codes[error.code().name] += 1
                await asyncio.sleep(1)

    def _get(self, stub: CompressionServiceStub) -> Any:
        return stub.GetJob(pb.GetJobRequest(name=next(self._jobs)), timeout=CALL_SECONDS)

    def _create(self, stub: CompressionServiceStub) -> Any:
        request = pb.CreateJobRequest(job=self._new, request_id=str(uuid.uuid4()))
        return stub.CreateJob(request, timeout=CALL_SECONDS)

    async def _open_loop(self, method: str, per_second: float, call: Callable[..., Any]) -> None:
        """Calls at times that the clock fixes, whether earlier ones were answered or not."""
        begin = time.monotonic()
        async with asyncio.TaskGroup() as calls:
            for number in range(round(self._load.seconds * per_second)):
                due = begin + number / per_second
                await asyncio.sleep(due - time.monotonic())
                calls.create_task(self._timed(method, due, call))

    async def _timed(self, method: str, due: float, call: Callable[..., Any]) -> None:
        try:
            await call(next(self._stubs))
        except grpc.aio.AioRpcError as error:
            self.measured.codes[error.code().name] += 1
        else:
            self.measured.codes["OK"] += 1
            self.measured.latencies[method].append(time.monotonic() - due)

    async def _flat_out(self) -> None:
        begin = time.monotonic()
        end = begin + self._load.flat_out_seconds
        await asyncio.gather(*(self._hurry(end) for _ in range(self._load.clients)))
        self.measured.flat_out_seconds = time.monotonic() - begin

    async def _hurry(self, end: float) -> None:
        stub = next(self._stubs)
        while time.monotonic() < end:
            try:
                await self._get(stub)
            except grpc.aio.AioRpcError as error:
                self.measured.flat_out[error.code().name] += 1
            else:
                self.measured.flat_out["OK"] += 1


async def measure(address: str, load: Load) -> Measured:
    """Connect, and call."""
    async with connections(address, load.connections) as stubs:
        callers = Callers(load, stubs)
        await callers.run()
        return callers.measured


if __name__ == "__main__":
    asked = json.loads(sys.stdin.readline())
    measured = asyncio.run(measure(sys.argv[1], Load(**asked)))
    print(json.dumps({item.name: getattr(measured, item.name) for item in fields(measured)}), flush=True)
