"""The SQL store's uploads and the objects they become."""

import hashlib
import secrets
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from npn_service.errors import NotFound, WrongState

from .codec import decode, encode
from .model import FileSpec, Upload, UploadState
from .pages import binding_of, read_page
from .schema import UtcDateTime, objects, uploads
from .sql_limits import SqlLimits
from .sql_requests import Request, claim

# A complete upload lives as long as its object.
ALL_UPLOADS: sa.Select[Any] = sa.select(
    *(column for column in uploads.c if column.name != "expire_time"),
    sa.func.coalesce(objects.c.expire_time, uploads.c.expire_time, type_=UtcDateTime()).label("expire_time"),
).select_from(uploads.outerjoin(objects, objects.c.id == uploads.c.object_id))


class SqlUploads(SqlLimits):
    """Uploads and objects."""

    def create_upload(
        self, *, owner: str, files: Sequence[FileSpec], request_id: str, lifetime_seconds: float
    ) -> Upload:
        """A new open upload, the one of the same request, or one that is complete at once."""
        fingerprint = _fingerprint(files)
        request = Request(owner=owner, kind="upload", id=request_id, hash=fingerprint)
        upload_id = secrets.token_hex(8)
        with self._database.write() as connection:
            self._one_create_at_a_time(connection, owner)
            now = self._database.now(connection)
            earlier = claim(self._database, connection, request, upload_id, now)
            if earlier is not None:
                return _made_before(connection, owner, earlier)
            object_id = self._find_object(connection, owner, fingerprint, now)
            size = sum(file.size for file in files)
            state = UploadState.OPEN if object_id is None else UploadState.COMPLETE
            if state is UploadState.OPEN:
                self._require_bytes(connection, owner, size)
            connection.execute(
                sa.insert(uploads).values(
                    id=upload_id,
                    owner=owner,
                    state=state.value,
                    files=encode(tuple(files)),
                    fingerprint=fingerprint,
                    bytes=size,
                    create_time=now,
                    expire_time=now + timedelta(seconds=lifetime_seconds),
                    object_id=object_id,
                )
            )
            return upload_of(_owned(connection, owner, upload_id))

    def get_upload(self, *, owner: str, upload_id: str) -> Upload:
        """The upload as it is now."""
        with self._database.read() as connection:
            return upload_of(_owned(connection, owner, upload_id))

    def list_uploads(self, *, owner: str, page_size: int, page_token: str) -> tuple[Sequence[Upload], str]:
        """Newest first, keyset pages."""
        query = ALL_UPLOADS.where(uploads.c.owner == owner)
        with self._database.read() as connection:
            rows, token = read_page(
                connection, query, uploads, page_size, page_token, binding_of("uploads", owner)
            )
        return [upload_of(row) for row in rows], token

    def complete_upload(self, *, owner: str, upload_id: str, object_id: str) -> Upload:
        """OPEN -> COMPLETE, with its object."""
        with self._database.write() as connection:
            row = _owned(connection, owner, upload_id, lock=True)
            if UploadState(row.state) is UploadState.COMPLETE:
                return upload_of(row)
            now = self._database.now(connection)
            connection.execute(
                sa.insert(objects).values(
                    id=object_id,
                    owner=owner,
                    files=row.files,
                    fingerprint=row.fingerprint,
                    bytes=row.bytes,
                    create_time=now,
                    expire_time=now + self._object_lifetime,
                )
            )
            completed = {"state": UploadState.COMPLETE.value, "object_id": object_id}
            connection.execute(sa.update(uploads).where(uploads.c.id == upload_id).values(completed))
            return upload_of(_owned(connection, owner, upload_id))

    def delete_upload(self, *, owner: str, upload_id: str) -> Upload:
        """Remove an open upload."""
        with self._database.write() as connection:
            upload = upload_of(_owned(connection, owner, upload_id, lock=True))
            if upload.state is not UploadState.OPEN:
                raise WrongState(
                    f"{upload.name} is complete; its object expires when it is not used any more"
                )
            self._drop_open(connection, upload)
            return upload

    def get_object(self, *, owner: str, object_id: str) -> Sequence[FileSpec]:
        """The files of an object."""
        query = sa.select(objects.c.files).where(objects.c.id == object_id, objects.c.owner == owner)
        with self._database.read() as connection:
            files = connection.execute(query).scalar_one_or_none()
        if files is None:
            raise NotFound(f"objects/{object_id} does not exist")
        return decode(tuple[FileSpec, ...], files)

    def _drop_open(self, connection: sa.Connection, upload: Upload) -> None:
        connection.execute(sa.delete(uploads).where(uploads.c.id == upload.id))
        # By key, since parts that wait to be joined are found by the whole key alone; see storage/s3_multipart.py.
        self._discard(connection, *(upload.prefix + file.path for file in upload.files))

    def _find_object(
        self, connection: sa.Connection, owner: str, fingerprint: str, now: datetime
    ) -> str | None:
        """The owner's object with the same files, its lifetime begun anew."""
        query = sa.select(objects.c.id).where(objects.c.owner == owner, objects.c.fingerprint == fingerprint)
        object_id: str | None = connection.execute(query.limit(1)).scalar_one_or_none()
        if object_id is None or not self._use_object(connection, owner, object_id, now):
            return None  # there is none, or it expires at this moment
        return object_id


def _made_before(connection: sa.Connection, owner: str, upload_id: str) -> Upload:
    try:
        return upload_of(_owned(connection, owner, upload_id))
    except NotFound as error:
        raise WrongState(
            f"this request made uploads/{upload_id}, which is gone; use a new request_id for a new upload",
            reason="UPLOAD_DELETED",
        ) from error


def _owned(connection: sa.Connection, owner: str, upload_id: str, *, lock: bool = False) -> sa.Row[Any]:
    mine = sa.and_(uploads.c.id == upload_id, uploads.c.owner == owner)
    if lock:
        connection.execute(sa.select(uploads.c.id).where(mine).with_for_update())
    row = connection.execute(ALL_UPLOADS.where(mine)).one_or_none()
    if row is None:
        raise NotFound(f"uploads/{upload_id} does not exist")
    return row


def upload_of(row: sa.Row[Any]) -> Upload:
    """The upload that a row of ALL_UPLOADS holds."""
    return Upload(
        id=row.id,
        owner=row.owner,
        state=UploadState(row.state),
        files=decode(tuple[FileSpec, ...], row.files),
        create_time=row.create_time,
        expire_time=row.expire_time,
        object_id=row.object_id,
    )


def _fingerprint(files: Sequence[FileSpec]) -> str:
    """Equal for the same paths with the same bytes, in any order."""
    return hashlib.sha256(encode(sorted(files, key=lambda file: file.path)).encode()).hexdigest()
