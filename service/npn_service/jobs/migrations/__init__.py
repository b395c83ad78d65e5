"""The schema's revisions, and whether a database has the newest."""

from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from npn_service.errors import StartupError
from npn_service.jobs.database import Database


def migrate(url: str) -> None:
    """Bring the database to the newest revision, in one transaction; an empty one gets all tables.

    Any number of processes may do so at once.  Raises StartupError when its revision is unknown here: a newer
    version of the server made it.
    """
    database = Database(url, answer_seconds=None)
    try:
        with database.write() as connection:
            database.lock(connection, "schema")
            _refuse_unknown(_revision(connection))
            config = _config()
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
    finally:
        database.close()


def check_schema(url: str) -> None:
    """Raises StartupError unless the database has the newest revision."""
    database = Database(url)
    try:
        with database.read() as connection:
            revision = _revision(connection)
    finally:
        database.close()
    _refuse_unknown(revision)
    head = ScriptDirectory.from_config(_config()).get_current_head()
    if revision != head:
        raise StartupError(
            f"the database has schema revision {revision}, this server needs {head}; run `npn-server migrate`"
        )


def _revision(connection: sa.Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()


def _refuse_unknown(revision: str | None) -> None:
    known = {script.revision for script in ScriptDirectory.from_config(_config()).walk_revisions()}
    if revision is not None and revision not in known:
        raise StartupError(
            f"the database has schema revision {revision}, which this server does not know: "
            "a newer version made it; install that version"
        )


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config
