"""How a client's bytes become an object.  Synchronous; knows no transport.

An upload grows where its object will be, under `objects/{owner}/{id}/`, one key per file, and any bytes stored
count as committed: a client resumes from there.  Completing verifies every file and then commits the row, which
is what makes the object: before that nobody reads it.  A completion that was cut off is simply done again.
"""

import hashlib
import re
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from npn_service.errors import InvalidRequest, LimitExceeded, NotFound, Unavailable, WrongState
from npn_service.storage.store import Incoming, ObjectStore, invalid_path

from .garbage import sweep
from .model import FileSpec, Upload, UploadState, object_prefix
from .store import JobStore

_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, kw_only=True, slots=True)
class UploadLimits:
    """What one upload may hold, and how long it may take (seconds)."""

    max_bytes: int = 16 << 30
    max_files: int = 1000
    lifetime: float = 7 * 86400


class UploadManager:
    """The use cases on uploads.  Thread-safe; every method may block on the database or the disk."""

    def __init__(
        self,
        store: JobStore,
        objects: ObjectStore,
        limits: UploadLimits,
        stopping: threading.Event | None = None,
    ) -> None:
        """`stopping` is set when the server stops: then no more is hashed."""
        self._store = store
        self._objects = objects
        self._limits = limits
        self._stopping = stopping or threading.Event()

    def create(self, *, owner: str, files: Sequence[FileSpec], request_id: str) -> Upload:
        """Open an upload, or return the one that this `request_id` made already.

        It comes back COMPLETE with its object where the owner already stores the same files.  Raises
        InvalidRequest naming the file's field, LimitExceeded, AlreadyExists, WrongState (UPLOAD_DELETED),
        Unavailable (DISK_FULL).
        """
        self._check_files(files)
        self._objects.require_room(sum(file.size for file in files))
        return self._store.create_upload(
            owner=owner, files=files, request_id=request_id, lifetime_seconds=self._limits.lifetime
        )

    def incoming(self, upload: Upload) -> Mapping[str, Incoming]:
        """What has arrived of each file, by path, and how the rest is sent.  Nothing is left to send of a complete
        upload.
        """
        if upload.state is UploadState.COMPLETE:
            return {file.path: Incoming(committed=file.size) for file in upload.files}
        found = self._objects.incoming({upload.prefix + file.path: file.size for file in upload.files})
        return {file.path: found[upload.prefix + file.path] for file in upload.files}

    def append(self, *, owner: str, upload_id: str, path: str, offset: int, data: bytes) -> int:
        """Store bytes of one file durably; returns the committed size.

        Raises NotFound, WrongState on a complete upload and in a store that takes parts (reason USE_PART_URLS),
        InvalidRequest on an unknown path, on an `offset` that is not the committed size (reason OFFSET_MISMATCH),
        and on more bytes than were announced, Unavailable (DISK_FULL) where nothing of `data` was stored.
        """
        upload = self._store.get_upload(owner=owner, upload_id=upload_id)
        if upload.state is not UploadState.OPEN:
            raise WrongState(f"{upload.name} is complete and takes no more bytes")
        size = next((file.size for file in upload.files if file.path == path), None)
        if size is None:
            raise InvalidRequest("path", f"{upload.name} has no file {path!r}")
        if offset + len(data) > size:
            raise InvalidRequest("data", f"{path} was announced with {size} bytes; this would be more")
        return self._objects.append(upload.prefix + path, offset, data)

    def complete(self, *, owner: str, upload_id: str) -> Upload:
        """Verify every size and SHA-256 and turn the upload into an object; safe to repeat.

        Raises NotFound, and InvalidRequest naming the first file that is short (reason UPLOAD_INCOMPLETE) or
        whose hash differs (reason HASH_MISMATCH); the bytes of the latter are dropped, so that it can be sent
        again.
        """
        upload = self._store.get_upload(owner=owner, upload_id=upload_id)
        if upload.state is UploadState.COMPLETE:
            return upload
        self._require_all(upload)
        for index, file in enumerate(upload.files):
            self._verify(upload, index, file)
        try:
            return self._store.complete_upload(owner=owner, upload_id=upload_id, object_id=upload_id)
        except NotFound:  # it was deleted, or expired, meanwhile
            self._objects.delete_prefix(upload.prefix)
            raise

    def delete(self, *, owner: str, upload_id: str) -> None:
        """Drop an open upload with its bytes.  Raises NotFound, WrongState on a complete one."""
        self._store.delete_upload(owner=owner, upload_id=upload_id)
        sweep(self._store, self._objects, below=object_prefix(owner, upload_id))

    def _require_all(self, upload: Upload) -> None:
        incoming = self.incoming(upload)
        for index, file in enumerate(upload.files):
            committed = incoming[file.path].committed
            if committed != file.size:
                raise InvalidRequest(
                    f"files[{index}]",
                    f"{file.path} has {committed} of {file.size} bytes; send the rest",
                    reason="UPLOAD_INCOMPLETE",
                )

    def _verify(self, upload: Upload, index: int, file: FileSpec) -> None:
        key = upload.prefix + file.path
        self._objects.finish(key, file.size)
        digest = hashlib.sha256()
        for chunk in self._objects.read(key):
            if self._stopping.is_set():
                raise Unavailable("the server stops; complete the upload again")
            digest.update(chunk)
        if digest.hexdigest() != file.sha256:
            self._objects.delete(key)
            raise InvalidRequest(
                f"files[{index}].sha256",
                f"the bytes of {file.path} have SHA-256 {digest.hexdigest()}, announced was {file.sha256}; "
                "they were dropped, send the file again",
                reason="HASH_MISMATCH",
            )

    def _check_files(self, files: Sequence[FileSpec]) -> None:
        if not files:
            raise InvalidRequest("files", "an upload has at least one file")
        if len(files) > self._limits.max_files:
            raise LimitExceeded(f"{len(files)} files; an upload has at most {self._limits.max_files}")
        total = sum(file.size for file in files)
        if total > self._limits.max_bytes:
            raise LimitExceeded(f"{total} bytes; an upload has at most {self._limits.max_bytes}")
        for index, file in enumerate(files):
            at = f"files[{index}]"
            if wrong := invalid_path(file.path):
                raise InvalidRequest(f"{at}.path", wrong)
            if file.size < 0:
                raise InvalidRequest(f"{at}.size", f"size is {file.size}; it must not be negative")
            if not _SHA256.fullmatch(file.sha256):
                raise InvalidRequest(f"{at}.sha256", "sha256 must be 64 lower-case hexadecimal digits")
        _check_distinct([file.path for file in files])


def _check_distinct(paths: Sequence[str]) -> None:
    """No path twice, and none that is the folder of another."""
    taken = set(paths)
    if len(taken) < len(paths):
        raise InvalidRequest("files", "two files have the same path")
    for path in paths:
        parts = path.split("/")
        for depth in range(1, len(parts)):
            folder = "/".join(parts[:depth])
            if folder in taken:
                raise InvalidRequest("files", f"{folder} is a file and the folder of {path}")
