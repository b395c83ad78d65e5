"""What a job reads from outside of this service, as it was when the job was created."""

from collections.abc import Mapping, Sequence

import sqlalchemy as sa

from npn_service.storage.sources import Source

from .schema import job_sources
from .sql_base import SqlBase


class SqlSources(SqlBase):
    """Recorded objects and their hashes."""

    def get_sources(self, *, job_id: str) -> Mapping[str, Sequence[Source]]:
        """What was recorded, by the field that names it."""
        query = sa.select(job_sources).where(job_sources.c.job_id == job_id).order_by(job_sources.c.uri)
        found: dict[str, list[Source]] = {}
        with self._database.read() as connection:
            for row in connection.execute(query):
                found.setdefault(row.field, []).append(
                    Source(
                        uri=row.uri,
                        size=row.size,
                        etag=row.etag,
                        version_id=row.version_id,
                        sha256=row.sha256,
                    )
                )
        return found

    def record_hashes(self, *, job_id: str, attempt: int, hashes: Mapping[str, str]) -> None:
        """Note SHA-256 where none is noted yet."""
        unknown = sa.and_(
            job_sources.c.job_id == job_id,
            job_sources.c.uri == sa.bindparam("read"),
            job_sources.c.sha256 == "",
        )
        noted = [{"read": uri, "hash": sha256} for uri, sha256 in hashes.items()]
        with self._database.write() as connection:
            self._held(connection, job_id, attempt)
            if noted:
                connection.execute(
                    sa.update(job_sources).where(unknown).values(sha256=sa.bindparam("hash")), noted
                )


def insert_sources(connection: sa.Connection, job_id: str, sources: Mapping[str, Sequence[Source]]) -> None:
    """Record what a new job reads."""
    rows = [
        {
            "job_id": job_id,
            "field": field,
            "uri": source.uri,
            "size": source.size,
            "etag": source.etag,
            "version_id": source.version_id,
            "sha256": source.sha256,
        }
        for field, found in sources.items()
        for source in found
    ]
    if rows:
        connection.execute(sa.insert(job_sources), rows)
