"""Removing bytes that no row speaks of any more.

Whatever removes a row notes the prefix of its bytes as garbage in the same transaction; the bytes go after
the commit, and the note after the bytes.  So a crash leaves nothing behind for longer than until the next
sweep, and no row ever points at bytes that are gone.
"""

from npn_service.storage.store import ObjectStore

from .store import JobStore


def sweep(store: JobStore, objects: ObjectStore) -> None:
    """Delete the bytes that are noted as garbage."""
    for prefix in store.list_garbage():
        objects.delete_prefix(prefix)
        store.forget_garbage(prefix)


def collect(store: JobStore, objects: ObjectStore) -> None:
    """Remove expired uploads, and objects that no unfinished job needs and nobody used for their lifetime."""
    store.expire_objects()
    sweep(store, objects)
