"""Watching jobs: one poller for all watchers of this server.

Every tick asks the database in one query for the newest event of each watched job, reads what is new into a
feed per job, and wakes the feed's watchers.  A watcher holds no queue: it knows the number of the last event
it sent and takes what follows from the feed, or, when it resumes, from the database.  What it takes at once is
coalesced: every state change, and progress only where nothing newer follows.
"""

import asyncio
import random
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

import structlog

from npn_service.blocking import BlockingPool
from npn_service.errors import EventsExpired, NotFound, ServiceError, Unavailable
from npn_service.jobs.model import Event, Job
from npn_service.jobs.store import JobStore

POLL_SECONDS = 0.2
HEARTBEAT_SECONDS = 10.0
_KEPT_EVENTS = 64

_log = structlog.get_logger(__name__)


@dataclass(kw_only=True, slots=True)
class _Feed:
    """The news of one job: of the events numbered above `floor`, up to `newest`, those that are no old progress."""

    owner: str
    job_id: str
    floor: int
    newest: int
    events: deque[Event] = field(default_factory=deque)
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    error: ServiceError | None = None
    watchers: int = 0

    def extend(self, events: Sequence[Event]) -> None:
        if self.events and self.events[-1].job is None:
            self.events.pop()
        self.events.extend(events)
        self.newest = events[-1].sequence
        while len(self.events) > _KEPT_EVENTS:
            self.floor = self.events.popleft().sequence
        self.wake()

    def skip_to(self, sequence: int) -> None:
        """Keep nothing up to `sequence`: watchers that are behind read the database."""
        self.events.clear()
        self.floor = self.newest = sequence
        self.wake()

    def fail(self, error: ServiceError) -> None:
        self.error = error
        self.wake()

    def wake(self) -> None:
        self.changed.set()
        self.changed = asyncio.Event()

    def after(self, sequence: int) -> Sequence[Event] | None:
        """What follows `sequence`; None when it lies further back than what is kept."""
        if sequence < self.floor:
            return None
        return [event for event in self.events if event.sequence > sequence]


class WatchHub:
    """Serves any number of watchers with one query per tick."""

    def __init__(
        self,
        store: JobStore,
        blocking: BlockingPool,
        *,
        poll_seconds: float = POLL_SECONDS,
        heartbeat_seconds: float = HEARTBEAT_SECONDS,
    ) -> None:
        self._store = store
        self._blocking = blocking
        self._poll_seconds = poll_seconds
        self._heartbeat_seconds = heartbeat_seconds
        self._feeds: dict[str, _Feed] = {}
        self._draining = False

    async def watch(
        self, *, owner: str | None, job_id: str, after: int | None
    ) -> AsyncGenerator[Event | None, None]:
        """Events until a terminal state; None is a heartbeat.

        `owner` is whose job it must be, None for anybody's.  Without `after` the first event is the job as it
        is.  Raises NotFound, EventsExpired, and Unavailable when the server drains.
        """
        job = await self._blocking.run(self._store.get_job, owner=owner, job_id=job_id)
        if after is not None and after > job.sequence:
            raise EventsExpired(f"{job.name} has no event {after} yet; watch from its current state")
        if after is None or (job.state.done and after == job.sequence):
            yield Event(sequence=job.sequence, time=datetime.now(UTC), job=job)
            if job.state.done:
                return
        feed = self._join(job)
        try:
            async for event in self._follow(feed, last=job.sequence if after is None else after):
                yield event
        finally:
            self._leave(feed)

    async def poll(self) -> None:
        """Feed the watchers until cancelled."""
        while True:
            await asyncio.sleep(self._poll_seconds)
            try:
                await self._tick()
            except Unavailable as error:
                # the database is away, and says so in the log; watchers live on heartbeats meanwhile
                _log.debug("watch.poll_failed", error=error.message)
            except Exception:
                _log.exception("watch.poll_failed")

    def drain(self) -> None:
        """End every watch, and refuse new ones, with Unavailable."""
        self._draining = True
        for feed in self._feeds.values():
            feed.wake()

    async def _follow(self, feed: _Feed, *, last: int) -> AsyncGenerator[Event | None, None]:
        while True:
            if self._draining:
                raise Unavailable("the server is shutting down; resume the watch soon", reason="DRAINING")
            changed = feed.changed
            events: Sequence[Event] | None = feed.after(last)
            if events is None:
                events = await self._news(feed, last)
            for event in events:
                yield event
                last = event.sequence
                if event.job is not None and event.job.state.done:
                    return
            if events:
                continue
            if feed.error is not None:
                raise feed.error
            try:
                # each at its own time: those of watchers that began together would hold up every other call
                silence = self._heartbeat_seconds * random.uniform(0.7, 1.0)  # noqa: S311 - guards no secret
                await asyncio.wait_for(changed.wait(), silence)
            except TimeoutError:
                yield None

    async def _tick(self) -> None:
        feeds = dict(self._feeds)  # watchers come and go meanwhile
        if not feeds:
            return
        newest = await self._blocking.run(self._store.newest_sequences, feeds.keys())
        for feed in feeds.values():
            sequence = newest.get(feed.job_id)
            if sequence is None:
                feed.fail(NotFound(f"jobs/{feed.job_id} was deleted"))
            elif sequence > feed.newest:
                await self._read(feed, sequence)

    async def _read(self, feed: _Feed, newest: int) -> None:
        try:
            events = await self._news(feed, feed.newest)
        except (NotFound, EventsExpired):
            feed.skip_to(newest)
        else:
            feed.extend(events)

    async def _news(self, feed: _Feed, sequence: int) -> Sequence[Event]:
        return await self._blocking.run(
            self._store.events_after,
            owner=feed.owner,
            job_id=feed.job_id,
            sequence=sequence,
            coalesced=True,
        )

    def _join(self, job: Job) -> _Feed:
        feed = self._feeds.get(job.id)
        if feed is None:
            feed = _Feed(owner=job.owner, job_id=job.id, floor=job.sequence, newest=job.sequence)
            self._feeds[job.id] = feed
        feed.watchers += 1
        return feed

    def _leave(self, feed: _Feed) -> None:
        feed.watchers -= 1
        if feed.watchers == 0:
            del self._feeds[feed.job_id]
