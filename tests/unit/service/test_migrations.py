"""The schema's revisions."""

from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext

from npn_service.errors import StartupError
from npn_service.jobs.database import Database
from npn_service.jobs.migrations import check_schema, migrate
from npn_service.jobs.schema import metadata


@pytest.fixture
def url(tmp_path: Path) -> str:
    """A database that does not exist yet."""
    return f"sqlite:///{tmp_path / 'npn.sqlite'}"


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
        names = {index["name"] for index in sa.inspect(connection).get_indexes("jobs")}
    database.close()
    assert names == {index.name for index in metadata.tables["jobs"].indexes}


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


def test_sqlite_is_set_up_for_durability(url: str) -> None:
    """WAL, every commit synced, foreign keys enforced, on each connection."""
    database = Database(url)
    with database.read() as connection:
        values = [
            connection.execute(sa.text(f"PRAGMA {name}")).scalar_one()
            for name in ("journal_mode", "synchronous", "foreign_keys")
        ]
    database.close()
    assert values == ["wal", 2, 1]
