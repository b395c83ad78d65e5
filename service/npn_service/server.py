"""One server, put together: storage, workers, inspector, interface, and how they start and stop.

Started in this order, so that nothing is offered before it works; stopped in the reverse order.
"""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import structlog

from .blocking import BlockingPool
from .errors import StartupError
from .jobs.garbage import collect
from .jobs.manager import JobManager
from .jobs.migrations import check_schema, migrate
from .jobs.sql_store import SqlJobStore
from .jobs.store import JobStore
from .jobs.uploads import UploadLimits, UploadManager
from .metrics import Metrics
from .rpc.calls import Behaviour
from .rpc.jobs import JobCalls
from .rpc.server import InfoCalls, behaviours, listen
from .rpc.uploads import UploadCalls
from .rpc.watch import WatchHub
from .settings import Settings
from .storage.datafolder import DataFolder
from .storage.local import LocalObjectStore
from .storage.store import ObjectStore
from .worker.dispatcher import Dispatcher
from .worker.inspector import Inspector

# Calls that may block at the same time; SQLite writes one at a time anyway.
_BLOCKING_THREADS = 8
_COLLECT_SECONDS = 3600.0

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Server:
    """A server that runs.  Addresses are "host:port"; `metrics_address` is empty when metrics are off."""

    address: str
    metrics_address: str


@asynccontextmanager
async def serve(settings: Settings) -> AsyncIterator[Server]:
    """Run a server until the block ends; then it drains: running jobs go back to the queue.

    Raises StartupError when it cannot run as it is configured.
    """
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(DataFolder(settings.data_dir))
        store = _open_database(settings, folder)
        stack.callback(store.close)
        objects = LocalObjectStore(folder.objects)
        manager = JobManager(store, objects)
        blocking = BlockingPool(_BLOCKING_THREADS)
        stack.callback(blocking.close)
        metrics = Metrics(store.count_by_state)
        metrics_address = _serve_metrics(metrics, settings.metrics_listen, stack)
        dispatcher = Dispatcher(
            store=store,
            objects=objects,
            manager=manager,
            observer=metrics,
            workers=settings.workers,
            folder=folder.scratch,
            host=f"{socket.gethostname()}:{folder.path}",
            lease_seconds=settings.lease_seconds,
        )
        await blocking.run(dispatcher.start)
        stack.push_async_callback(blocking.run, dispatcher.drain)
        inspector = Inspector()
        await blocking.run(inspector.start)
        stack.push_async_callback(blocking.run, inspector.stop)
        hub = WatchHub(store, blocking)
        for task in (hub.poll(), _collect(blocking, store, objects)):
            stack.callback(asyncio.create_task(task).cancel)
        calls = _bind_calls(settings, store, objects, manager, blocking, inspector, hub, dispatcher.wake)
        address = await stack.enter_async_context(listen(settings, calls, blocking, metrics.rpc_ended))
        stack.callback(hub.drain)
        yield Server(address=address, metrics_address=metrics_address)


def _bind_calls(
    settings: Settings,
    store: JobStore,
    objects: ObjectStore,
    manager: JobManager,
    blocking: BlockingPool,
    inspector: Inspector,
    hub: WatchHub,
    wake: Callable[[], None],
) -> Mapping[str, Behaviour]:
    limits = UploadLimits(max_bytes=settings.max_upload_bytes, max_files=settings.max_files_per_upload)
    return behaviours(
        jobs=JobCalls(
            store=store,
            manager=manager,
            inspector=inspector,
            hub=hub,
            blocking=blocking,
            wake=wake,
            max_epochs=settings.max_epochs,
            default_threads=settings.threads,
        ),
        uploads=UploadCalls(
            store=store,
            objects=objects,
            jobs=manager,
            uploads=UploadManager(store, objects, limits),
            blocking=blocking,
            max_message_bytes=settings.max_message_bytes,
        ),
        info=InfoCalls(settings=settings),
    )


def _open_database(settings: Settings, folder: DataFolder) -> JobStore:
    """The embedded database follows the server's version; another is migrated when its operator says so."""
    url = settings.database_url or folder.database_url
    if settings.database_url:
        check_schema(url)
    else:
        migrate(url)
    return SqlJobStore(url)


def _serve_metrics(metrics: Metrics, address: str, stack: AsyncExitStack) -> str:
    if not address:
        return ""
    host, _, port = address.rpartition(":")
    try:
        endpoint = metrics.serve(host, int(port))
    except OSError as error:
        raise StartupError(
            f"cannot serve metrics on {address}: {error.strerror}; "
            "set NPN_METRICS_LISTEN to another address, or to nothing"
        ) from error
    stack.callback(endpoint.close)
    return endpoint.address


async def _collect(blocking: BlockingPool, store: JobStore, objects: ObjectStore) -> None:
    """Remove what is kept no longer, now and every hour."""
    while True:
        try:
            await blocking.run(collect, store, objects)
        except Exception:
            _log.exception("collect.failed")
        await asyncio.sleep(_COLLECT_SECONDS)
