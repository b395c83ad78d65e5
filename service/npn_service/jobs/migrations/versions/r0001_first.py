"""The first tables: jobs with their attempts and events, requests, uploads, objects, garbage."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

_TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Create the tables."""
    _create_jobs()
    _create_attempts_and_events()
    _create_requests()
    _create_uploads()
    op.create_table(
        "garbage",
        sa.Column("prefix", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("prefix", name="pk_garbage"),
    )


def _create_jobs() -> None:
    op.create_table(
        "jobs",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("creator", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("priority", sa.Integer, nullable=False),
        sa.Column("create_time", _TIME, nullable=False),
        sa.Column("start_time", _TIME),
        sa.Column("end_time", _TIME),
        sa.Column("sequence", sa.Integer, nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("lost_attempts", sa.Integer, nullable=False),
        sa.Column("wait_reason", sa.Text, nullable=False),
        sa.Column("object_id", sa.Text),
        sa.Column("spec", sa.Text, nullable=False),
        sa.Column("plan", sa.Text, nullable=False),
        sa.Column("progress", sa.Text),
        sa.Column("progress_time", _TIME),
        sa.Column("error", sa.Text),
        sa.Column("result", sa.Text),
        sa.PrimaryKeyConstraint("id", name="pk_jobs"),
    )
    op.create_index("ix_jobs_owner_create_time_id", "jobs", ["owner", "create_time", "id"])
    op.create_index("ix_jobs_state_priority_create_time", "jobs", ["state", "priority", "create_time"])
    op.create_index("ix_jobs_object_id", "jobs", ["object_id"])
    op.create_table(
        "job_labels",
        sa.Column("job_id", sa.Text, nullable=False),
        sa.Column("key", sa.Text, nullable=False),
        sa.Column("value", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("job_id", "key", name="pk_job_labels"),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name="fk_job_labels_job_id", ondelete="CASCADE"),
    )
    op.create_index("ix_job_labels_key_value", "job_labels", ["key", "value"])


def _create_attempts_and_events() -> None:
    op.create_table(
        "attempts",
        sa.Column("job_id", sa.Text, nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("host", sa.Text, nullable=False),
        sa.Column("lease_expire_time", _TIME, nullable=False),
        sa.Column("start_time", _TIME, nullable=False),
        sa.Column("end_time", _TIME),
        sa.Column("cause", sa.Text),
        sa.PrimaryKeyConstraint("job_id", "number", name="pk_attempts"),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name="fk_attempts_job_id", ondelete="CASCADE"),
    )
    op.create_table(
        "events",
        sa.Column("job_id", sa.Text, nullable=False),
        sa.Column("sequence", sa.Integer, nullable=False),
        sa.Column("time", _TIME, nullable=False),
        sa.Column("job", sa.Text),
        sa.Column("progress", sa.Text),
        sa.PrimaryKeyConstraint("job_id", "sequence", name="pk_events"),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name="fk_events_job_id", ondelete="CASCADE"),
    )


def _create_requests() -> None:
    op.create_table(
        "requests",
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("request_id", sa.Text, nullable=False),
        sa.Column("request_hash", sa.Text, nullable=False),
        sa.Column("resource_id", sa.Text, nullable=False),
        sa.Column("expire_time", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("owner", "kind", "request_id", name="pk_requests"),
    )
    op.create_index("ix_requests_expire_time", "requests", ["expire_time"])


def _create_uploads() -> None:
    op.create_table(
        "objects",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("files", sa.Text, nullable=False),
        sa.Column("fingerprint", sa.Text, nullable=False),
        sa.Column("create_time", _TIME, nullable=False),
        sa.Column("expire_time", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_objects"),
    )
    op.create_index("ix_objects_owner_fingerprint", "objects", ["owner", "fingerprint"])
    op.create_index("ix_objects_expire_time", "objects", ["expire_time"])
    op.create_table(
        "uploads",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("files", sa.Text, nullable=False),
        sa.Column("fingerprint", sa.Text, nullable=False),
        sa.Column("create_time", _TIME, nullable=False),
        sa.Column("expire_time", _TIME, nullable=False),
        sa.Column("object_id", sa.Text),
        sa.PrimaryKeyConstraint("id", name="pk_uploads"),
        sa.ForeignKeyConstraint(
            ["object_id"], ["objects.id"], name="fk_uploads_object_id", ondelete="CASCADE"
        ),
    )
    op.create_index("ix_uploads_owner_create_time_id", "uploads", ["owner", "create_time", "id"])
    op.create_index("ix_uploads_expire_time", "uploads", ["expire_time"])
