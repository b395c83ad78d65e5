"""The SQL store's housekeeping: what is over, what nobody uses any more, and the bytes that may go with it.

One transaction takes a hundred rows of a kind, so that others may write meanwhile and the database answers in
time.  A dry run takes none, and tells all.
"""

from collections.abc import Collection, Mapping, Sequence
from datetime import timedelta
from typing import Any

import sqlalchemy as sa

from .model import Job, Removal, State, UploadState, object_prefix
from .schema import garbage, job_objects, jobs, objects, uploads
from .sql_base import job_of
from .sql_requests import forget_old
from .sql_uploads import ALL_UPLOADS, SqlUploads, upload_of

_DONE = [state.value for state in State if state.done]
_UNFINISHED = [state.value for state in State if not state.done]
_AT_ONCE = 100


class SqlExpiry(SqlUploads):
    """Retention and garbage."""

    def expire_uploads(self, *, dry_run: bool = False) -> Sequence[Removal]:
        """Drop open uploads past their time."""
        with self._database.write() as connection:
            now = self._database.now(connection)
            forget_old(connection, now)
            late = ALL_UPLOADS.where(uploads.c.state == UploadState.OPEN.value, uploads.c.expire_time <= now)
            rows = connection.execute(late if dry_run else _some(late, uploads)).all()
            found = [upload_of(row) for row in rows]
            for upload in [] if dry_run else found:
                self._drop_open(connection, upload)
        return [
            _removal(upload.prefix, f"upload that was not completed by {upload.expire_time}")
            for upload in found
        ]

    def expire_objects(self, *, dry_run: bool = False) -> Sequence[Removal]:
        """Drop objects past their time that no unfinished job needs."""
        needed = sa.exists().where(
            job_objects.c.object_id == objects.c.id,
            job_objects.c.job_id == jobs.c.id,
            jobs.c.state.in_(_UNFINISHED),
        )
        with self._database.write() as connection:
            now = self._database.now(connection)
            unused = sa.select(objects).where(objects.c.expire_time <= now, ~needed)
            rows = connection.execute(unused if dry_run else _some(unused, objects)).all()
            removals = [
                _removal(
                    object_prefix(row.owner, row.id),
                    f"object that was not used since it expired at {row.expire_time}",
                )
                for row in rows
            ]
            if not dry_run:
                connection.execute(sa.delete(objects).where(objects.c.id.in_([row.id for row in rows])))
                self._discard(connection, *(removal.prefix for removal in removals))
        return removals

    def expire_jobs(self, *, retention_seconds: float, dry_run: bool = False) -> Sequence[Removal]:
        """Drop jobs that ended longer ago than that."""
        with self._database.write() as connection:
            before = self._database.now(connection) - timedelta(seconds=retention_seconds)
            over = sa.select(jobs).where(jobs.c.state.in_(_DONE), jobs.c.end_time <= before)
            oldest = over.order_by(jobs.c.end_time)
            rows = connection.execute(oldest if dry_run else _some(oldest, jobs)).all()
            found = [job_of(row) for row in rows]
            if not dry_run:
                connection.execute(sa.delete(jobs).where(jobs.c.id.in_([job.id for job in found])))
                self._discard(connection, *(job.prefix for job in found))
        return [_removal(job.prefix, f"job that ended {job.state.name} at {job.end_time}") for job in found]

    def find_jobs(self, job_ids: Collection[str]) -> Mapping[str, Job]:
        """Those of the jobs that exist, of any owner, by id."""
        query = sa.select(jobs).where(jobs.c.id.in_(job_ids))
        with self._database.read() as connection:
            return {row.id: job_of(row) for row in connection.execute(query)}

    def find_uploads(self, ids: Collection[str]) -> Collection[str]:
        """Those of the ids that are an upload's or an object's, of any owner."""
        known = sa.union(
            sa.select(uploads.c.id).where(uploads.c.id.in_(ids)),
            sa.select(objects.c.id).where(objects.c.id.in_(ids)),
        )
        with self._database.read() as connection:
            return set(connection.execute(known).scalars())

    def list_garbage(self) -> Sequence[str]:
        """Keys, and prefixes (they end in "/"), of bytes that no row speaks of any more."""
        with self._database.read() as connection:
            return connection.execute(sa.select(garbage.c.prefix)).scalars().all()

    def forget_garbage(self, prefix: str) -> None:
        """The bytes under `prefix` are gone."""
        with self._database.write() as connection:
            connection.execute(sa.delete(garbage).where(garbage.c.prefix == prefix))


def _some(query: sa.Select[Any], table: sa.Table) -> sa.Select[Any]:
    """The first rows, locked; one that another transaction has is passed over."""
    return query.limit(_AT_ONCE).with_for_update(of=table, skip_locked=True)


def _removal(prefix: str, reason: str) -> Removal:
    return Removal(prefix=prefix, reason=reason)
