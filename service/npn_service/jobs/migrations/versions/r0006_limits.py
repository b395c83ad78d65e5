"""Sizes beside what they count for, the logs and curves of attempts, and indexes for limits and retention."""

import json
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"

_TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Add them, and fill in the sizes of what is stored already."""
    for table, column in (("objects", "bytes"), ("uploads", "bytes"), ("jobs", "artifact_bytes")):
        op.add_column(table, sa.Column(column, sa.BigInteger, nullable=False, server_default="0"))
    op.add_column("attempts", sa.Column("log", sa.Text))
    op.create_table(
        "curve_points",
        sa.Column("job_id", sa.Text, nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("time", _TIME, nullable=False),
        sa.Column("progress", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("job_id", "attempt", "time", name="pk_curve_points"),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name="fk_curve_points_job_id", ondelete="CASCADE"),
    )
    op.create_index("ix_jobs_owner_state", "jobs", ["owner", "state"])
    op.create_index("ix_jobs_end_time", "jobs", ["end_time"])
    _fill_in("objects", "files", "bytes", lambda files: files)
    _fill_in("uploads", "files", "bytes", lambda files: files)
    _fill_in("jobs", "result", "artifact_bytes", lambda result: result["files"])


def _fill_in(table: str, source: str, target: str, files_of: Any) -> None:
    connection = op.get_bind()
    rows = connection.execute(
        sa.text(f"SELECT id, {source} FROM {table} WHERE {source} IS NOT NULL")  # noqa: S608 - constants
    ).all()
    update = sa.text(f"UPDATE {table} SET {target} = :bytes WHERE id = :id")  # noqa: S608 - constants
    for key, document in rows:
        files = files_of(json.loads(document))
        connection.execute(update, {"id": key, "bytes": sum(file["size"] for file in files)})
