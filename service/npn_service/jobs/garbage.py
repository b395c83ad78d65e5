"""Removing bytes that no row speaks of any more.

Whatever removes a row notes the prefix or the key of its bytes as garbage in the same transaction; the bytes go
after the commit, and the note after the bytes.  So a crash leaves nothing behind for longer than until the next
sweep, and no row ever points at bytes that are gone.
"""

import structlog

from npn_service.errors import Unavailable
from npn_service.storage.store import ObjectStore

from .store import JobStore

_log = structlog.get_logger(__name__)


def sweep(store: JobStore, objects: ObjectStore) -> None:
    """Delete the bytes that are noted as garbage.  While the object store is away they stay noted."""
    for noted in store.list_garbage():
        try:
            if noted.endswith("/"):
                objects.delete_prefix(noted)
            else:
                objects.delete(noted)
        except Unavailable as error:
            _log.warning("sweep.postponed", error=error.message)
            return
        store.forget_garbage(noted)


def collect(store: JobStore, objects: ObjectStore) -> None:
    """Remove expired uploads, and objects that no unfinished job needs and nobody used for their lifetime."""
    store.expire_objects()
    sweep(store, objects)
