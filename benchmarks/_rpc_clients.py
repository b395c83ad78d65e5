"""Load on a server: many watchers over many connections, and GetJob at times that the clock fixes."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import grpc

from npn.v1 import compression_pb2 as pb
from npn.v1.compression_pb2_grpc import CompressionServiceStub

CALL_SECONDS = 30.0
WATCH_SECONDS = 3600.0


@asynccontextmanager
async def connections(address: str, count: int) -> AsyncIterator[list[CompressionServiceStub]]:
    """`count` channels, each with a TCP connection of its own, without the SDK's retries and resumptions."""
    port = int(address.rpartition(":")[2])
    before = established(port)
    async with AsyncExitStack() as stack:
        stubs = []
        for _ in range(count):
            # channels to one address share a connection unless their pool of subchannels is their own
            options = [("grpc.use_local_subchannel_pool", 1)]
            channel = await stack.enter_async_context(grpc.aio.insecure_channel(address, options=options))
            await asyncio.wait_for(channel.channel_ready(), CALL_SECONDS)
            stubs.append(CompressionServiceStub(channel))
        opened = established(port) - before
        assert opened == count, f"{count} channels opened {opened} connections"
        yield stubs


def established(port: int) -> int:
    """TCP connections of this machine to `port`, as the kernel counts them."""
    # gRPC reaches IPv4 addresses through IPv6 sockets
    tables = (Path("/proc/net", name).read_text() for name in ("tcp", "tcp6"))
    rows = [line.split() for table in tables for line in table.splitlines()]
    return sum(row[2].endswith(f":{port:04X}") and row[3] == "01" for row in rows)


@asynccontextmanager
async def asking(
    stubs: Sequence[CompressionServiceStub], jobs: Sequence[str], per_second: float
) -> AsyncIterator[list[float]]:
    """GetJob `per_second` times a second, over connections and jobs in turn; gives the latencies in seconds.

    Open loop: every call has its time, whatever became of those before it, and its latency counts from that
    time on.  So a stall is charged to each call that falls into it.
    """
    loop = asyncio.get_running_loop()
    latencies: list[float] = []

    async def ask(number: int, due: float) -> None:
        request = pb.GetJobRequest(name=jobs[number % len(jobs)])
        await stubs[number % len(stubs)].GetJob(request, timeout=CALL_SECONDS)
        latencies.append(loop.time() - due)

    async def send(calls: asyncio.TaskGroup) -> None:
        start = loop.time()
        for number in itertools.count():
            due = start + number / per_second
            await asyncio.sleep(due - loop.time())
            calls.create_task(ask(number, due))

    async with asyncio.TaskGroup() as calls:
        sender = calls.create_task(send(calls))
        yield latencies
        sender.cancel()


@dataclass(kw_only=True, slots=True)
class Watcher:
    """One watch of one job, and what it saw: `states` by name, and the number of each event."""

    job: str
    states: list[str] = field(default_factory=list)
    sequences: list[int] = field(default_factory=list)
    began: asyncio.Event = field(default_factory=asyncio.Event)
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    async def follow(self, stub: CompressionServiceStub) -> None:
        """Watch to the stream's end.  Any failure of the stream is raised: nothing is resumed here."""
        async for message in stub.WatchJob(pb.WatchJobRequest(name=self.job), timeout=WATCH_SECONDS):
            if message.HasField("job"):
                self.states.append(pb.JobState.Name(message.job.state).removeprefix("JOB_STATE_"))
            if not message.HasField("heartbeat"):
                self.sequences.append(message.sequence)
            self.began.set()
        self.ended.set()

    def fault(self, final: pb.Job) -> str:
        """What this watcher missed, doubled or saw out of order of a job that waited when the watch began.

        Each attempt takes the job from QUEUED to RUNNING; there is no other way to `final`.
        """
        last = pb.JobState.Name(final.state).removeprefix("JOB_STATE_")
        expected = ["QUEUED", "RUNNING"] * final.attempt + [last]
        if self.states != expected:
            return f"{self.job}: saw {self.states} instead of {expected}"
        if self.sequences != sorted(set(self.sequences)):
            return f"{self.job}: event numbers do not rise: {self.sequences}"
        return ""


@asynccontextmanager
async def watching(
    stubs: Sequence[CompressionServiceStub], jobs: Sequence[str], count: int
) -> AsyncIterator[list[Watcher]]:
    """`count` watchers, over connections and jobs in turn; the block begins when each had its first message."""
    watchers = [Watcher(job=job) for job in itertools.islice(itertools.cycle(jobs), count)]
    async with asyncio.TaskGroup() as streams:
        # shifted with each turn of the jobs: a job's watchers come over as many connections as there are
        tasks = [
            streams.create_task(watcher.follow(stubs[(number + number // len(jobs)) % len(stubs)]))
            for number, watcher in enumerate(watchers)
        ]
        await asyncio.gather(*(watcher.began.wait() for watcher in watchers))
        yield watchers
        for task in tasks:
            task.cancel()
