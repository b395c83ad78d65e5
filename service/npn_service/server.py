"""One server, put together: storage, workers, inspector, interface, and how they start and stop.

Started in this order, so that nothing is offered before it works; stopped in the reverse order.
"""

import asyncio
import socket
import threading
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import structlog

from .access.files import Refreshed
from .access.opening import Access, open_access
from .blocking import BlockingPool
from .errors import StartupError, Unavailable
from .jobs.garbage import collect
from .jobs.inputs import JobInputs
from .jobs.manager import JobManager
from .jobs.store import JobStore
from .jobs.uploads import UploadLimits, UploadManager
from .metrics import Metrics
from .opening import await_schema, open_objects, open_store
from .probes import ProbeServer
from .rpc.admission import Admission
from .rpc.calls import Behaviour
from .rpc.gate import Gate
from .rpc.jobs import JobCalls
from .rpc.server import InfoCalls, Listening, behaviours, listen
from .rpc.uploads import UploadCalls
from .rpc.watch import WatchHub
from .settings import Settings
from .storage.cache import Cache
from .storage.datafolder import DataFolder
from .storage.sources import S3Sources
from .storage.store import ObjectStore
from .worker.dispatcher import Dispatcher
from .worker.inspector import Inspector
from .worker.messages import DatasetRoom
from .worker.vigil import WorkerLimits

# Calls that may block at the same time; SQLite writes one at a time anyway.
_BLOCKING_THREADS = 8
# Calls that wait for S3, or hash what was uploaded, leave the others their threads.
_CARRYING_THREADS = 16
_COLLECT_SECONDS = 3600.0
_REFRESH_SECONDS = 1.0

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Server:
    """A server that runs.  Addresses are "host:port"; empty where that is not served.

    `ended` is done when calls are not answered any more although nobody asked for that.
    """

    address: str
    metrics_address: str
    ended: asyncio.Future[Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Base:
    """What every role stands on.  `objects` is for whoever waits for an answer, `carried`, the same objects, for
    whoever carries bytes and waits an outage out.
    """

    settings: Settings
    folder: DataFolder
    store: JobStore
    objects: ObjectStore
    carried: ObjectStore
    manager: JobManager
    inputs: JobInputs
    blocking: BlockingPool
    carrying: BlockingPool
    stopping: threading.Event
    metrics: Metrics


@asynccontextmanager
async def serve(settings: Settings) -> AsyncIterator[Server]:
    """Run a server until the block ends; then it drains: running jobs go back to the queue.

    Every role has the base, its probes and metrics; `all` and `worker` run jobs, `all` and `api` answer calls.  Waits
    for a database that is away; only then is it ready.  Raises StartupError when it cannot run as it is configured.
    """
    async with AsyncExitStack() as stack:
        probes = _serve_probes(settings.metrics_listen, stack)
        access = await asyncio.to_thread(open_access, settings) if settings.role != "worker" else None
        folder = stack.enter_context(DataFolder(settings.data_dir))
        store = open_store(settings, folder)
        stack.callback(store.close)
        objects, carried = open_objects(settings, folder)
        blocking = BlockingPool(_BLOCKING_THREADS)
        stack.callback(blocking.close)
        carrying = BlockingPool(_CARRYING_THREADS)
        stack.callback(carrying.close)
        stopping = threading.Event()
        stack.callback(stopping.set)  # before the pools wait for their threads
        metrics = Metrics(store.count_by_state)
        if probes is not None:
            probes.expose(metrics.registry)
        base = Base(
            settings=settings,
            folder=folder,
            store=store,
            objects=objects,
            carried=carried,
            manager=JobManager(store, objects),
            inputs=JobInputs(
                store,
                carried,
                Cache(folder.cache, max_bytes=settings.cache_bytes),
                None if settings.s3 is None else S3Sources(settings.s3),
            ),
            blocking=blocking,
            carrying=carrying,
            stopping=stopping,
            metrics=metrics,
        )
        await await_schema(settings, folder, blocking)
        wake = await _run_jobs(base, stack) if settings.role != "api" else _nobody
        listening = await _answer_calls(base, access, wake, stack) if access else _no_calls()
        if probes is not None:
            probes.ready()
            stack.callback(probes.drain)
        yield Server(
            address=listening.address,
            metrics_address="" if probes is None else probes.address,
            ended=listening.ended,
        )


async def _run_jobs(base: Base, stack: AsyncExitStack) -> Callable[[], None]:
    """Lease jobs and run them; returns what wakes the dispatcher."""
    dispatcher = Dispatcher(
        store=base.store,
        objects=base.carried,
        inputs=base.inputs,
        observer=base.metrics,
        workers=base.settings.workers,
        folder=base.folder.scratch,
        # One server at a time holds the folder, so what this name holds at the start, a dead one held.
        host=f"{socket.gethostname()}:{base.folder.identity}",
        room=DatasetRoom(memory=base.settings.dataset_memory_bytes, disk=base.settings.dataset_disk_bytes),
        lease_seconds=base.settings.lease_seconds,
        min_free_bytes=base.settings.min_free_bytes,
        limits=WorkerLimits(
            checkpoint_seconds=base.settings.checkpoint_seconds,
            stall_seconds=base.settings.stall_timeout,
            grace_seconds=base.settings.grace_seconds,
            memory_bytes=base.settings.worker_memory_bytes,
        ),
    )
    stack.push_async_callback(base.blocking.run, dispatcher.drain)
    await base.blocking.run(dispatcher.start)
    return dispatcher.wake


async def _answer_calls(
    base: Base, access: Access, wake: Callable[[], None], stack: AsyncExitStack
) -> Listening:
    """Serve gRPC, and keep house.  `wake` tells a dispatcher here that jobs changed."""
    inspector = Inspector()
    stack.push_async_callback(base.blocking.run, inspector.stop)
    await base.blocking.run(inspector.start)
    hub = WatchHub(base.store, base.blocking)
    chores = (
        hub.poll(),
        _repeat(base.carrying, _COLLECT_SECONDS, _collect, base),
        # where every host that runs jobs is gone
        _repeat(base.blocking, base.settings.lease_seconds, base.store.expire_leases),
        *(_follow(each) for each in access.refreshed),
    )
    for chore in chores:
        stack.callback(asyncio.create_task(chore).cancel)
    calls = _bind_calls(base, inspector, hub, wake)
    admission = Admission(calls=base.settings.max_concurrent_calls, watches=base.settings.max_watches)
    gate = Gate(access.authenticator, admission, base.metrics.rpc_ended)
    listening = await stack.enter_async_context(
        listen(base.settings, calls, base.blocking, gate, access.certificates)
    )
    stack.callback(hub.drain)
    return listening


def _bind_calls(
    base: Base, inspector: Inspector, hub: WatchHub, wake: Callable[[], None]
) -> Mapping[str, Behaviour]:
    settings = base.settings
    limits = UploadLimits(max_bytes=settings.max_upload_bytes, max_files=settings.max_files_per_upload)
    return behaviours(
        jobs=JobCalls(
            store=base.store,
            manager=base.manager,
            inputs=base.inputs,
            inspector=inspector,
            hub=hub,
            blocking=base.blocking,
            carrying=base.carrying,
            wake=wake,
            max_epochs=settings.max_epochs,
            default_threads=settings.threads,
            longest=settings.max_job_duration or None,
        ),
        uploads=UploadCalls(
            store=base.store,
            objects=base.objects,
            jobs=base.manager,
            uploads=UploadManager(base.store, base.objects, limits, base.stopping),
            blocking=base.carrying,
            max_message_bytes=settings.max_message_bytes,
        ),
        info=InfoCalls(settings=settings),
    )


def _nobody() -> None:
    """No dispatcher runs here; those elsewhere look by themselves."""


def _no_calls() -> Listening:
    return Listening(address="", ended=asyncio.get_running_loop().create_future())


def _serve_probes(address: str, stack: AsyncExitStack) -> ProbeServer | None:
    if not address:
        return None
    host, _, port = address.rpartition(":")
    try:
        probes = ProbeServer(host, int(port))
    except OSError as error:
        raise StartupError(
            f"cannot serve metrics on {address}: {error.strerror}; "
            "set NPN_METRICS_LISTEN to another address, or to nothing"
        ) from error
    stack.callback(probes.close)
    return probes


def _collect(base: Base) -> None:
    """Remove what is kept no longer."""
    retention, stopping = base.settings.job_retention, base.stopping
    for removal in collect(base.store, base.carried, job_retention=retention, stopping=stopping):
        _log.info("collect.removed", prefix=removal.prefix, reason=removal.reason)


async def _follow(changing: Refreshed) -> None:
    """Take over tokens, keys and certificates as they change."""
    while True:
        await asyncio.sleep(_REFRESH_SECONDS)
        # Not among the blocking calls: a full queue delays no revocation.
        await asyncio.to_thread(changing.refresh)


async def _repeat(
    pool: BlockingPool, seconds: float, chore: Callable[..., object], *arguments: object
) -> None:
    """Do a chore now and every so many seconds, whatever becomes of it."""
    while True:
        try:
            await pool.run(chore, *arguments)
        except Unavailable as error:
            _log.warning("chore.put_off", chore=chore.__name__, error=error.message)
        except Exception:
            _log.exception("chore.failed", chore=chore.__name__)
        await asyncio.sleep(seconds)
