"""Removing bytes that no row speaks of any more.

Whatever removes a row notes the prefix or the key of its bytes as garbage in the same transaction; the bytes go
after the commit, and the note after the bytes.  So a crash leaves nothing behind for longer than until the next
sweep, and no row ever points at bytes that are gone.

Rows come before bytes: an upload, an attempt exists before anything is stored for it.  So keys that were listed
and have no row afterwards are of no use to anybody, whatever left them: an attempt that lost its lease, a
checkpoint, a database that was restored from an older backup.  They go when they are a day old.
"""

import threading
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial

import structlog

from npn_service.errors import Unavailable
from npn_service.storage.store import ObjectStore, StoredObject

from .model import Job, Removal, State
from .store import JobStore

ORPHAN_AGE = timedelta(days=1)
_BATCH = 500  # keys whose rows one query looks for
_ORPHAN = "no row of the database speaks of it"

_log = structlog.get_logger(__name__)


def sweep(
    store: JobStore, objects: ObjectStore, *, below: str = "", stopping: threading.Event | None = None
) -> None:
    """Delete the bytes that are noted as garbage, until `stopping` is set.

    Whoever waits for an answer deletes what lies `below` the key or the prefix of its own.  While the object store is
    away all stays noted.
    """
    for noted in store.list_garbage():
        if stopping is not None and stopping.is_set():
            return
        if not noted.startswith(below):
            continue
        try:
            _delete(objects, noted)
        except Unavailable as error:
            _log.warning("sweep.postponed", error=error.message)
            return
        store.forget_garbage(noted)


def collect(
    store: JobStore,
    objects: ObjectStore,
    *,
    job_retention: float,
    orphan_age: timedelta = ORPHAN_AGE,
    dry_run: bool = False,
    stopping: threading.Event | None = None,
) -> Sequence[Removal]:
    """Remove what is over and what nobody needs; returns it.  With `dry_run` nothing is changed.

    Once `stopping` is set no more bytes are removed; they stay noted.

    That is: jobs that ended `job_retention` seconds ago (0: none) with their artifacts, expired uploads, objects
    that no unfinished job needs and nobody used for their lifetime, and orphaned keys.  Safe beside servers.
    """
    over = [store.expire_uploads, store.expire_objects]
    if job_retention:
        over.append(partial(store.expire_jobs, retention_seconds=job_retention))
    removals = [Removal(prefix=prefix, reason="noted as garbage") for prefix in store.list_garbage()]
    for expire in over:
        removals += expire(dry_run=dry_run)
        while not dry_run and (more := expire()):
            removals += more
    known = tuple(removal.prefix for removal in removals)
    orphans = [
        found for found in find_orphans(store, objects, orphan_age) if not found.prefix.startswith(known)
    ]
    if not dry_run:
        sweep(store, objects, stopping=stopping)
        for orphan in orphans:
            if stopping is not None and stopping.is_set():
                break
            _delete(objects, orphan.prefix)
    return [*removals, *orphans]


def find_orphans(store: JobStore, objects: ObjectStore, age: timedelta = ORPHAN_AGE) -> list[Removal]:
    """Keys and prefixes that no row speaks of and where nothing was written for `age`."""
    before = datetime.now(UTC) - age
    doomed: dict[str, bool] = {}
    for stored, prefix in _without_row(store, objects):
        is_old = stored.modified is not None and stored.modified < before
        doomed[prefix] = doomed.get(prefix, True) and is_old
    return [Removal(prefix=prefix, reason=_ORPHAN) for prefix, is_old in doomed.items() if is_old]


def _without_row(store: JobStore, objects: ObjectStore) -> Iterator[tuple[StoredObject, str]]:
    """Every key that no row speaks of, and what may go with it: itself, or the prefix of all like it."""
    for batch in _batches(objects.list("jobs/")):
        jobs = store.find_jobs({_part(stored.key, 1) for stored in batch})
        for stored in batch:
            if prefix := _useless(stored.key, jobs):
                yield stored, prefix
    for batch in _batches(objects.list("objects/")):
        known = store.find_uploads({_part(stored.key, 2) for stored in batch})
        for stored in batch:
            if _part(stored.key, 2) not in known:
                yield stored, _first(stored.key, 3)


def _batches(keys: Sequence[StoredObject]) -> Iterator[Sequence[StoredObject]]:
    for start in range(0, len(keys), _BATCH):
        yield keys[start : start + _BATCH]


def _useless(key: str, jobs: Mapping[str, Job]) -> str:
    """What may go with a key under `jobs/`; empty where it is in use.  A job that goes on may need all it has."""
    job = jobs.get(_part(key, 1))
    if job is None:
        return _first(key, 2)
    if not job.state.done or key in job.artifact_keys:
        return ""
    if job.state is not State.SUCCEEDED:
        return job.prefix
    return key if key.startswith(job.attempt_prefix) else _first(key, 4)


def _delete(objects: ObjectStore, key_or_prefix: str) -> None:
    if key_or_prefix.endswith("/"):
        objects.delete_prefix(key_or_prefix)
    else:
        objects.delete(key_or_prefix)


def _part(key: str, number: int) -> str:
    parts = key.split("/")
    return parts[number] if number < len(parts) else ""


def _first(key: str, parts: int) -> str:
    """The beginning of a key, up to so many slashes."""
    split = key.split("/")
    return key if len(split) <= parts else "/".join(split[:parts]) + "/"
