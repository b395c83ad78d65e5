"""A job reads any number of uploaded objects, its dataset and its model; a dataset has several inputs."""

import json
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Move the one object of each job to a table of their own, and bring stored plans to the new form."""
    op.create_table(
        "job_objects",
        sa.Column("job_id", sa.Text, nullable=False),
        sa.Column("object_id", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("job_id", "object_id", name="pk_job_objects"),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name="fk_job_objects_job_id", ondelete="CASCADE"),
    )
    op.create_index("ix_job_objects_object_id", "job_objects", ["object_id"])
    op.execute(
        "INSERT INTO job_objects (job_id, object_id) SELECT id, object_id FROM jobs WHERE object_id IS NOT NULL"
    )
    op.drop_index("ix_jobs_object_id", "jobs")
    op.drop_column("jobs", "object_id")
    _rewrite_plans()


def _rewrite_plans() -> None:
    """Plans told one input of a dataset, which had class numbers; events hold whole jobs with their plans."""
    connection = op.get_bind()
    for key, plan in connection.execute(sa.text("SELECT id, plan FROM jobs")).all():
        document = json.loads(plan)
        _rewrite(document["dataset"])
        changed = {"id": key, "plan": json.dumps(document, separators=(",", ":"))}
        connection.execute(sa.text("UPDATE jobs SET plan = :plan WHERE id = :id"), changed)
    events = sa.text("SELECT job_id, sequence FROM events WHERE job IS NOT NULL")
    one = sa.text("SELECT job FROM events WHERE job_id = :job_id AND sequence = :sequence")
    write = sa.text("UPDATE events SET job = :job WHERE job_id = :job_id AND sequence = :sequence")
    for job_id, sequence in connection.execute(events).all():
        at = {"job_id": job_id, "sequence": sequence}
        document = json.loads(connection.execute(one, at).scalar_one())
        _rewrite(document["plan"]["dataset"])
        connection.execute(write, at | {"job": json.dumps(document, separators=(",", ":"))})


def _rewrite(dataset: dict[str, Any]) -> None:
    shape, dtype = dataset.pop("input_shape"), dataset.pop("dtype")
    dataset["inputs"] = [{"name": "x", "shape": shape, "dtype": dtype}]
    dataset |= {"target": "classes", "target_shape": []}
