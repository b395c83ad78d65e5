"""Connections and transactions.  All that differs between SQLite and PostgreSQL is in this file."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import OperationalError

from npn_service.errors import Unavailable

_BUSY_SECONDS = 30.0

# WAL: readers and the one writer do not wait for each other.  synchronous=FULL: with NORMAL, a power failure
# may undo the last commits, and an accepted job must not be lost; one fsync per write is cheap here.
_SQLITE_PRAGMAS = ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON")


class Database:
    """The engine of one database URL, shared by threads.

    `read` and `write` are one transaction each, committed at the end of the block and rolled back by an
    exception; both raise Unavailable when the database does not answer.
    """

    def __init__(self, url: str) -> None:
        self._is_sqlite = sa.make_url(url).get_backend_name() == "sqlite"
        arguments: dict[str, Any] = {"timeout": _BUSY_SECONDS} if self._is_sqlite else {}
        self.engine = sa.create_engine(url, connect_args=arguments, pool_size=16, max_overflow=16)
        if self._is_sqlite:
            sa.event.listen(self.engine, "connect", _open_sqlite)
            sa.event.listen(self.engine, "begin", _begin_sqlite)

    @contextmanager
    def read(self) -> Iterator[sa.Connection]:
        """A transaction that sees one moment of the database and changes nothing."""
        with _answering(), self.engine.begin() as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[sa.Connection]:
        """A transaction that may change rows."""
        with _answering(), self.engine.execution_options(writes=True).begin() as connection:
            yield connection

    def now(self, connection: sa.Connection) -> datetime:
        """The time by the database's clock, UTC; SQLite lives in this process and has its clock."""
        if self._is_sqlite:
            return datetime.now(UTC)
        moment: datetime = connection.execute(sa.select(sa.func.clock_timestamp())).scalar_one()
        return moment.astimezone(UTC)

    def close(self) -> None:
        """Close every connection."""
        self.engine.dispose()


@contextmanager
def _answering() -> Iterator[None]:
    try:
        yield
    except OperationalError as error:
        raise Unavailable("the database does not answer; try again") from error


def _open_sqlite(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # the driver begins no transaction: `_begin_sqlite` does
    for pragma in _SQLITE_PRAGMAS:
        connection.execute(f"PRAGMA {pragma}").close()


def _begin_sqlite(connection: sa.Connection) -> None:
    # A writer takes the lock at once: one that began by reading could not wait for another writer, only fail.
    writes = connection.get_execution_options().get("writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
