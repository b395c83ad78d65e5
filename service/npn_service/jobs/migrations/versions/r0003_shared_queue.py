"""Several servers share the queue: hosts, whose turn it is, what jobs ask for, how attempts ended."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

_TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Add them, and say of each attempt that is over how it ended."""
    op.create_table(
        "hosts",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("cpus", sa.Integer, nullable=False),
        sa.Column("gpus", sa.Integer, nullable=False),
        sa.Column("memory_bytes", sa.BigInteger, nullable=False),
        sa.Column("seen_time", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_hosts"),
    )
    op.create_table(
        "turns",
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("lease_time", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("owner", name="pk_turns"),
    )
    for name, kind in (("cpus", sa.Integer), ("gpus", sa.Integer), ("memory_bytes", sa.BigInteger)):
        op.add_column("jobs", sa.Column(name, kind, nullable=False, server_default="0"))
    op.add_column("attempts", sa.Column("outcome", sa.Text))
    _fill_in_outcomes()
    op.create_index(
        "ux_attempts_succeeded",
        "attempts",
        ["job_id"],
        unique=True,
        sqlite_where=sa.text("outcome = 'succeeded'"),
        postgresql_where=sa.text("outcome = 'succeeded'"),
    )


def _fill_in_outcomes() -> None:
    """The last attempt of a job that is over ended as the job did; every other one was released."""
    ended = (
        "EXISTS (SELECT 1 FROM jobs WHERE jobs.id = attempts.job_id AND jobs.attempt = attempts.number"
        " AND jobs.state IN ('succeeded', 'failed', 'cancelled'))"
    )
    state = "(SELECT jobs.state FROM jobs WHERE jobs.id = attempts.job_id)"
    op.execute(
        f"UPDATE attempts SET outcome = CASE WHEN {ended} THEN {state} ELSE 'released' END"  # noqa: S608
        " WHERE end_time IS NOT NULL"
    )
