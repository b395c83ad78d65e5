"""The schema's revisions."""

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from job_samples import PLAN
from postgres_server import PostgresServer

from npn_service.errors import StartupError
from npn_service.jobs.codec import decode, encode
from npn_service.jobs.database import Database
from npn_service.jobs.migrations import _config, check_schema, migrate
from npn_service.jobs.model import JobPlan
from npn_service.jobs.schema import metadata


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database without a table, once per kind."""
    if request.param == "postgresql":
        postgres: PostgresServer = request.getfixturevalue("postgres")
        return postgres.url(postgres.create_database())
    return f"sqlite:///{tmp_path / 'npn.sqlite'}"


# PLAN as the first schema had it.
OLD_PLAN = json.loads(encode(PLAN.plan))
OLD_PLAN = {
    "plan": {name: OLD_PLAN[name] for name in ("dense", "smallest", "groups", "warnings")},
    "dataset": {
        "train_samples": 54_000,
        "validation_samples": 6_000,
        "test_samples": 10_000,
        "input_shape": [1, 28, 28],
        "classes": 10,
        "dtype": "uint8",
        "notes": [],
    },
}


def set_revision(url: str, revision: str) -> None:
    """Pretend that another version of the server made the database."""
    database = Database(url)
    with database.write() as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = :r"), {"r": revision})
    database.close()


def test_the_revisions_build_the_tables(url: str) -> None:
    """After all revisions the database and the schema module are the same."""
    migrate(url)
    database = Database(url)
    with database.read() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []
        inspector = sa.inspect(connection)
        names = {
            table: {index["name"] for index in inspector.get_indexes(table)} for table in metadata.tables
        }
    database.close()
    assert names == {
        table.name: {index.name for index in table.indexes} for table in metadata.tables.values()
    }


def test_jobs_of_the_first_schema_are_kept(url: str) -> None:
    """The one object of a job moves to the table of all that it needs; its plan is read as ever."""
    config = _config()
    database = Database(url)
    columns = (
        "id, owner, creator, state, priority, create_time, sequence, attempt, lost_attempts, wait_reason"
    )
    row = "'local', 'me', 'queued', 0, '2026-01-01', 1, 0, 0, ''"
    with database.write() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
        connection.execute(
            sa.text(
                f"INSERT INTO jobs ({columns}, object_id, spec, plan) "  # noqa: S608 - constants
                f"VALUES ('1', {row}, 'o1', '', :plan), ('2', {row}, NULL, '', :plan)"
            ),
            {"plan": json.dumps(OLD_PLAN)},
        )
        connection.execute(
            sa.text("INSERT INTO events (job_id, sequence, time, job) VALUES ('1', 1, '2026-01-01', :job)"),
            {"job": json.dumps({"id": "1", "plan": OLD_PLAN})},
        )
    migrate(url)
    with database.read() as connection:
        assert connection.execute(sa.text("SELECT job_id, object_id FROM job_objects")).all() == [("1", "o1")]
        plans = connection.execute(sa.text("SELECT plan FROM jobs")).scalars().all()
        event = json.loads(connection.execute(sa.text("SELECT job FROM events")).scalar_one())
    database.close()
    assert [decode(JobPlan, plan) for plan in plans] == [PLAN, PLAN]
    assert decode(JobPlan, json.dumps(event["plan"])) == PLAN


def test_migrating_twice_changes_nothing(url: str) -> None:
    """The server migrates at each start; the data stay."""
    migrate(url)
    migrate(url)
    check_schema(url)


def test_an_empty_database_is_refused(url: str) -> None:
    """The message says what to do."""
    with pytest.raises(StartupError, match="npn-server migrate"):
        check_schema(url)


def test_a_newer_database_is_refused(url: str) -> None:
    """A revision that this version does not know is left alone, by both."""
    migrate(url)
    set_revision(url, "9999")
    for refuse in (check_schema, migrate):
        with pytest.raises(StartupError, match="9999"):
            refuse(url)


def test_attempts_of_the_second_schema_say_how_they_ended(url: str) -> None:
    """The last attempt of a finished job ended as the job did, the ones before were released, others run."""
    config = _config()
    database = Database(url)
    jobs = (
        "INSERT INTO jobs (id, owner, creator, state, priority, create_time, sequence, attempt, lost_attempts,"
        " wait_reason, spec, plan) VALUES (:id, 'local', 'me', :state, 0, '2026-01-01', 1, :attempt, 0, '', '', '')"
    )
    attempts = (
        "INSERT INTO attempts (job_id, number, host, lease_expire_time, start_time, end_time)"
        " VALUES (:id, :number, 'host', '2026-01-01', '2026-01-01', :end)"
    )
    with database.write() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0002")
        ended = datetime(2026, 1, 2, tzinfo=UTC).isoformat(" ")
        for key, state, end in (("1", "succeeded", ended), ("2", "failed", ended), ("3", "running", None)):
            connection.execute(sa.text(jobs), {"id": key, "state": state, "attempt": 2})
            connection.execute(sa.text(attempts), {"id": key, "number": 1, "end": ended})
            connection.execute(sa.text(attempts), {"id": key, "number": 2, "end": end})
    migrate(url)
    with database.read() as connection:
        rows = connection.execute(sa.text("SELECT job_id, outcome FROM attempts ORDER BY job_id, number"))
        outcomes = [tuple(row) for row in rows]
    database.close()
    assert outcomes == [
        ("1", "released"),
        ("1", "succeeded"),
        ("2", "released"),
        ("2", "failed"),
        ("3", "released"),
        ("3", None),
    ]


def test_sqlite_is_set_up_for_durability(tmp_path: Path) -> None:
    """WAL, every commit synced, foreign keys enforced, on each connection."""
    database = Database(f"sqlite:///{tmp_path / 'npn.sqlite'}")
    with database.read() as connection:
        values = [
            connection.execute(sa.text(f"PRAGMA {name}")).scalar_one()
            for name in ("journal_mode", "synchronous", "foreign_keys")
        ]
    database.close()
    assert values == ["wal", 2, 1]
