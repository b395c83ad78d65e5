"""rpc/watch.py: what watchers see, over a real store."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
from job_samples import RESULT, create, lease, progress_at

from npn_service.blocking import BlockingPool
from npn_service.errors import EventsExpired, NotFound, Unavailable
from npn_service.jobs.migrations import migrate
from npn_service.jobs.model import Event, Job, State
from npn_service.jobs.sql_store import SqlJobStore
from npn_service.rpc.watch import WatchHub

Seen = list[Event | None]


class CountingStore(SqlJobStore):
    """Counts the reads of events."""

    reads = 0

    def events_after(self, **question: Any) -> Sequence[Event]:
        """As the store does."""
        self.reads += 1
        return super().events_after(**question)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[CountingStore]:
    """A store that keeps ten events a job and thins no progress."""
    url = f"sqlite:///{tmp_path / 'npn.sqlite'}"
    migrate(url)
    opened = CountingStore(url, kept_events=10, progress_interval=0.0)
    yield opened
    opened.close()


def with_hub(store: SqlJobStore, scenario: Callable[[WatchHub], Awaitable[None]], **settings: float) -> None:
    """Run a scenario on an event loop with a hub that polls fast."""

    async def run() -> None:
        blocking = BlockingPool(4)
        hub = WatchHub(store, blocking, **{"poll_seconds": 0.01, "heartbeat_seconds": 5.0, **settings})
        poller = asyncio.create_task(hub.poll())
        try:
            async with asyncio.timeout(20):
                await scenario(hub)
        finally:
            poller.cancel()
            blocking.close()

    asyncio.run(run())


async def watch(hub: WatchHub, job: Job, after: int | None = None) -> Seen:
    """Everything that one watcher sees."""
    async with aclosing(hub.watch(owner="local", job_id=job.id, after=after)) as events:
        return [event async for event in events]


def states(seen: Seen) -> list[State]:
    """The state changes among events."""
    return [event.job.state for event in seen if event is not None and event.job is not None]


async def until_watched(hub: WatchHub, watchers: int) -> None:
    """Wait until so many watchers have joined their feeds."""
    while sum(feed.watchers for feed in hub._feeds.values()) < watchers:
        await asyncio.sleep(0.005)


def test_a_watch_tells_the_whole_story(store: SqlJobStore) -> None:
    """The current state, each change in order with its number, and an end after the terminal state."""
    job = create(store)

    async def scenario(hub: WatchHub) -> None:
        watcher = asyncio.create_task(watch(hub, job))
        await until_watched(hub, 1)
        running = lease(store)
        store.record_progress(job_id=job.id, attempt=running.attempt, progress=progress_at(1))
        await asyncio.sleep(0.05)
        store.finish_job(job_id=job.id, attempt=running.attempt, result=RESULT)
        seen = await watcher
        assert states(seen) == [State.QUEUED, State.RUNNING, State.SUCCEEDED]
        numbers = [event.sequence for event in seen if event is not None]
        assert numbers == [1, 2, 3, 4]
        assert not hub._feeds

    with_hub(store, scenario)


def test_every_watcher_sees_every_change_from_shared_reads(store: CountingStore) -> None:
    """Two hundred watchers of ten jobs cost as many reads as there are changes, not as watchers."""
    jobs = [create(store) for _ in range(10)]

    async def scenario(hub: WatchHub) -> None:
        watchers = [asyncio.create_task(watch(hub, job)) for job in jobs for _ in range(20)]
        await until_watched(hub, 200)
        for _ in jobs:
            running = lease(store)
            store.finish_job(job_id=running.id, attempt=running.attempt, result=RESULT)
        for seen in await asyncio.gather(*watchers):
            assert states(seen) == [State.QUEUED, State.RUNNING, State.SUCCEEDED]
        assert store.reads <= 2 * len(jobs)

    with_hub(store, scenario)


def test_a_watch_resumes(store: SqlJobStore) -> None:
    """After a number come the events that follow it, none twice."""
    job = create(store)
    running = lease(store)

    async def scenario(hub: WatchHub) -> None:
        watcher = asyncio.create_task(watch(hub, job, after=1))
        await until_watched(hub, 1)
        store.finish_job(job_id=job.id, attempt=running.attempt, result=RESULT)
        assert states(await watcher) == [State.RUNNING, State.SUCCEEDED]

    with_hub(store, scenario)


@pytest.mark.parametrize("after", [None, 2])
def test_a_finished_job_is_shown_once(store: SqlJobStore, after: int | None) -> None:
    """A watch that begins, or resumes, after the end still sends the terminal state before OK."""
    job = create(store)
    store.cancel_job(owner="local", job_id=job.id)

    async def scenario(hub: WatchHub) -> None:
        assert states(await watch(hub, job, after=after)) == [State.CANCELLED]

    with_hub(store, scenario)


def test_a_slow_reader_loses_progress_but_no_change(store: SqlJobStore) -> None:
    """What piled up while the reader slept comes as the changes and the newest progress of each run."""
    job = create(store)

    async def scenario(hub: WatchHub) -> None:
        async with aclosing(hub.watch(owner="local", job_id=job.id, after=None)) as events:
            assert await anext(events) is not None
            pending = asyncio.ensure_future(anext(events))
            await until_watched(hub, 1)
            running = lease(store)
            await pending
            for step in range(1, 6):
                store.record_progress(job_id=job.id, attempt=running.attempt, progress=progress_at(step))
            await asyncio.sleep(0.1)
            newest = await anext(events)
            assert newest is not None
            assert newest.progress is not None
            assert newest.progress.step == 5
            store.release_job(job_id=job.id, attempt=running.attempt, cause="crash", counts=True)
            store.record_progress(job_id=job.id, attempt=lease(store).attempt, progress=progress_at(6))
            store.cancel_job(owner="local", job_id=job.id)
            store.confirm_cancel(job_id=job.id, attempt=2)
            rest = [event async for event in events]
        assert states(rest) == [State.QUEUED, State.RUNNING, State.CANCELLING, State.CANCELLED]

    with_hub(store, scenario)


@pytest.mark.parametrize("after", [1, 99])
def test_a_number_that_is_not_kept_is_refused(store: SqlJobStore, after: int) -> None:
    """Too old, or from another database: the watcher is told to begin with the current state."""
    job = create(store)
    running = lease(store)
    for step in range(1, 20):
        store.record_progress(job_id=job.id, attempt=running.attempt, progress=progress_at(step))

    async def scenario(hub: WatchHub) -> None:
        with pytest.raises(EventsExpired):
            await watch(hub, job, after=after)

    with_hub(store, scenario)


def test_silence_is_broken_by_heartbeats(store: SqlJobStore) -> None:
    """A watcher of a job that waits hears that the server lives."""
    job = create(store)

    async def scenario(hub: WatchHub) -> None:
        async with aclosing(hub.watch(owner="local", job_id=job.id, after=None)) as events:
            await anext(events)
            assert await anext(events) is None
            assert await anext(events) is None

    with_hub(store, scenario, heartbeat_seconds=0.02)


def test_draining_ends_watches_as_unavailable(store: SqlJobStore) -> None:
    """A watch that did not reach the end never ends well."""
    job = create(store)

    async def scenario(hub: WatchHub) -> None:
        watcher = asyncio.create_task(watch(hub, job))
        await until_watched(hub, 1)
        hub.drain()
        with pytest.raises(Unavailable):
            await watcher

    with_hub(store, scenario)


def test_a_job_deleted_meanwhile_is_not_found(store: SqlJobStore) -> None:
    """A watcher of a job that ended and went between two looks is not left waiting."""
    job = create(store)

    async def scenario(hub: WatchHub) -> None:
        watcher = asyncio.create_task(watch(hub, job))
        await until_watched(hub, 1)
        store.cancel_job(owner="local", job_id=job.id)
        store.delete_job(owner="local", job_id=job.id)
        with pytest.raises(NotFound):
            await watcher

    with_hub(store, scenario, poll_seconds=0.3)


def test_an_unknown_job_is_not_found(store: SqlJobStore) -> None:
    """There is nothing to watch, and nothing is left in the hub."""

    async def scenario(hub: WatchHub) -> None:
        with pytest.raises(NotFound):
            async with aclosing(hub.watch(owner="local", job_id="none", after=None)) as events:
                await anext(events)
        assert not hub._feeds

    with_hub(store, scenario)
