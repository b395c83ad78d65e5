"""A job points at the checkpoint that its next attempt goes on from."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Jobs that run or wait have none."""
    op.add_column("jobs", sa.Column("checkpoint", sa.Text))
