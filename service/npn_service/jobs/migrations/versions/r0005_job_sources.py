"""A job records the version of what it reads from outside of this service."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Create the table; jobs that exist read uploads alone."""
    op.create_table(
        "job_sources",
        sa.Column("job_id", sa.Text, nullable=False),
        sa.Column("field", sa.Text, nullable=False),
        sa.Column("uri", sa.Text, nullable=False),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("etag", sa.Text, nullable=False),
        sa.Column("version_id", sa.Text, nullable=False),
        sa.Column("sha256", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("job_id", "field", "uri", name="pk_job_sources"),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name="fk_job_sources_job_id", ondelete="CASCADE"),
    )
