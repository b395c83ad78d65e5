"""The tables.  `migrations/` builds them; a test compares the two."""

from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy import BigInteger, Column, ForeignKey, Index, Integer, Table, Text
from sqlalchemy.types import TypeDecorator

metadata = sa.MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    }
)


class UtcDateTime(TypeDecorator[datetime]):
    """An aware datetime; SQLite keeps it as text without a zone, which is UTC."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:
        """To UTC."""
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value: Any | None, dialect: sa.Dialect) -> datetime | None:
        """From UTC."""
        if value is None:
            return None
        moment: datetime = value
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


# Columns named after a dataclass of the model hold it as JSON text.  `sequence` is the number of the newest
# event, `lost_attempts` are those in a row that died without a newer checkpoint, `progress_time` is that of the
# newest event with progress.
jobs = Table(
    "jobs",
    metadata,
    Column("id", Text, primary_key=True),
    Column("owner", Text, nullable=False),
    Column("creator", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("priority", Integer, nullable=False),
    Column("cpus", Integer, nullable=False, server_default="0"),
    Column("gpus", Integer, nullable=False, server_default="0"),
    Column("memory_bytes", BigInteger, nullable=False, server_default="0"),
    Column("create_time", UtcDateTime, nullable=False),
    Column("start_time", UtcDateTime),
    Column("end_time", UtcDateTime),
    Column("sequence", Integer, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("lost_attempts", Integer, nullable=False),
    Column("wait_reason", Text, nullable=False),
    Column("spec", Text, nullable=False),
    Column("plan", Text, nullable=False),
    Column("progress", Text),
    Column("progress_time", UtcDateTime),
    Column("error", Text),
    Column("result", Text),
    Column("checkpoint", Text),
    Column("artifact_bytes", BigInteger, nullable=False, server_default="0"),
    Index(None, "owner", "create_time", "id"),
    Index(None, "owner", "state"),
    Index(None, "end_time"),
    Index(None, "state", "priority", "create_time"),
)

# The uploaded objects that a job reads: its dataset, its model.  Without a foreign key to the objects: those
# go when they were not used for their lifetime, finished jobs stay.
job_objects = Table(
    "job_objects",
    metadata,
    Column("job_id", ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
    Column("object_id", Text, primary_key=True),
    Index(None, "object_id"),
)

# The objects outside of this service that a job reads, as they were when it was created; `field` is the field that
# names them.  `sha256` is empty until an attempt has read them.
job_sources = Table(
    "job_sources",
    metadata,
    Column("job_id", ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
    Column("field", Text, primary_key=True),
    Column("uri", Text, primary_key=True),
    Column("size", BigInteger, nullable=False),
    Column("etag", Text, nullable=False),
    Column("version_id", Text, nullable=False),
    Column("sha256", Text, nullable=False),
)

job_labels = Table(
    "job_labels",
    metadata,
    Column("job_id", ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
    Column("key", Text, primary_key=True),
    Column("value", Text, nullable=False),
    Index(None, "key", "value"),
)

# One row per lease, the book of what was tried: a row begins with the lease, ends once, and goes with its job.
# `outcome` says how it ended, `cause` why it did not succeed, `log` holds its last lines then.  The index lets a job
# succeed once, whatever we do.
attempts = Table(
    "attempts",
    metadata,
    Column("job_id", ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("host", Text, nullable=False),
    Column("lease_expire_time", UtcDateTime, nullable=False),
    Column("start_time", UtcDateTime, nullable=False),
    Column("end_time", UtcDateTime),
    Column("outcome", Text),
    Column("cause", Text),
    Column("log", Text),
    Index(
        "ux_attempts_succeeded",
        "job_id",
        unique=True,
        sqlite_where=sa.text("outcome = 'succeeded'"),
        postgresql_where=sa.text("outcome = 'succeeded'"),
    ),
)

# Servers that lease jobs.  One that was not seen for a while is gone.
hosts = Table(
    "hosts",
    metadata,
    Column("id", Text, primary_key=True),
    Column("cpus", Integer, nullable=False),
    Column("gpus", Integer, nullable=False),
    Column("memory_bytes", BigInteger, nullable=False),
    Column("seen_time", UtcDateTime, nullable=False),
)

# Whose turn it is: the owner whose newest lease is the oldest.
turns = Table(
    "turns",
    metadata,
    Column("owner", Text, primary_key=True),
    Column("lease_time", UtcDateTime, nullable=False),
)

# The training of attempts, thinned; it goes when the job succeeds, as the artifact has it whole.
curve_points = Table(
    "curve_points",
    metadata,
    Column("job_id", ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
    Column("attempt", Integer, primary_key=True),
    Column("time", UtcDateTime, primary_key=True),
    Column("progress", Text, nullable=False),
)

# Exactly one of `job` and `progress` is set.
events = Table(
    "events",
    metadata,
    Column("job_id", ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
    Column("sequence", Integer, primary_key=True),
    Column("time", UtcDateTime, nullable=False),
    Column("job", Text),
    Column("progress", Text),
)

# Without a foreign key: a request outlives the job or the upload that it made.
requests = Table(
    "requests",
    metadata,
    Column("owner", Text, primary_key=True),
    Column("kind", Text, primary_key=True),
    Column("request_id", Text, primary_key=True),
    Column("request_hash", Text, nullable=False),
    Column("resource_id", Text, nullable=False),
    Column("expire_time", UtcDateTime, nullable=False),
    Index(None, "expire_time"),
)

# `fingerprint` is the SHA-256 of `files`: equal for the same paths with the same bytes.  `bytes` is their size.
objects = Table(
    "objects",
    metadata,
    Column("id", Text, primary_key=True),
    Column("owner", Text, nullable=False),
    Column("files", Text, nullable=False),
    Column("fingerprint", Text, nullable=False),
    Column("bytes", BigInteger, nullable=False, server_default="0"),
    Column("create_time", UtcDateTime, nullable=False),
    Column("expire_time", UtcDateTime, nullable=False),
    Index(None, "owner", "fingerprint"),
    Index(None, "expire_time"),
)

uploads = Table(
    "uploads",
    metadata,
    Column("id", Text, primary_key=True),
    Column("owner", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("files", Text, nullable=False),
    Column("fingerprint", Text, nullable=False),
    Column("bytes", BigInteger, nullable=False, server_default="0"),
    Column("create_time", UtcDateTime, nullable=False),
    Column("expire_time", UtcDateTime, nullable=False),
    Column("object_id", ForeignKey("objects.id", ondelete="CASCADE")),
    Index(None, "owner", "create_time", "id"),
    Index(None, "expire_time"),
)

# Prefixes of bytes that no row speaks of any more.
garbage = Table("garbage", metadata, Column("prefix", Text, primary_key=True))
