"""Connections, transactions and the clock.  All that differs between SQLite and PostgreSQL is here and in
`postgresql.py`.
"""

import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa
import structlog
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import InterfaceError, InternalError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolIsEmpty
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement

from npn_service.errors import Unavailable
from npn_service.storage.space import disk_full

from .postgresql import TimeIsUp, connect_args, open_connection, parse_url, time_limit
from .schema import UtcDateTime

# A call that needs the database answers within two seconds, whatever became of the database.
ANSWER_SECONDS = 1.8
_PAUSE_SECONDS = 1.0
_POOL_SIZE = 16
_BUSY_SECONDS = 30.0
_RETRY_MILLISECONDS = 5

# WAL: readers and the one writer do not wait for each other.  synchronous=FULL: with NORMAL, a power failure
# may undo the last commits, and an accepted job must not be lost; one fsync per write is cheap here.
_SQLITE_PRAGMAS = ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON")

# In SQLite's words; what found no room is rolled back.
_SQLITE_FULL = "database or disk is full"
# What SQLAlchemy makes of a database that is away, restarts, cannot take more or gives up on a statement.
_NO_ANSWER = (OperationalError, InterfaceError, InternalError, PoolIsEmpty)

_log = structlog.get_logger(__name__)


class clock(FunctionElement[datetime]):  # noqa: N801 - reads as the SQL function that it is
    """The time by the database's clock, `seconds` from now: leases are written and judged by it alone."""

    inherit_cache = True
    type = UtcDateTime()

    def __init__(self, seconds: float = 0.0) -> None:
        super().__init__(sa.literal(seconds, sa.Float))


@compiles(clock, "postgresql")
def _clock_of_postgresql(element: clock, compiler: SQLCompiler, **options: Any) -> str:
    # clock_timestamp moves on within a transaction, which may have waited for a lock.
    return f"(clock_timestamp() + make_interval(secs => {compiler.process(element.clauses, **options)}))"


@compiles(clock, "sqlite")
def _clock_of_sqlite(element: clock, compiler: SQLCompiler, **options: Any) -> str:
    return f"npn_clock({compiler.process(element.clauses, **options)})"


_NOW = sa.select(clock())


class Database:
    """The engine of one database URL, shared by threads; it connects when it is first used.

    `read` and `write` are one transaction each, committed at the end of the block and rolled back by an
    exception.  On PostgreSQL both raise Unavailable within `answer_seconds`, the wait for a connection
    included, where the database is away, hangs, or takes longer than that; None is no limit.
    """

    def __init__(self, url: str, *, answer_seconds: float | None = ANSWER_SECONDS) -> None:
        parsed = parse_url(url)
        self.is_sqlite = parsed.get_backend_name() == "sqlite"
        self._answer_seconds = answer_seconds
        self._outage = _Outage()
        if self.is_sqlite:
            self._reading, self._writing = _sqlite_engines(parsed)
        else:
            self._writing = _postgresql_engine(parsed, answer_seconds)
            self._reading = self._writing.execution_options(
                isolation_level="REPEATABLE READ", postgresql_readonly=True
            )

    def read(self) -> AbstractContextManager[sa.Connection]:
        """A transaction that sees one moment of the database and changes nothing."""
        return self._transaction(self._reading)

    def write(self) -> AbstractContextManager[sa.Connection]:
        """A transaction that may change rows."""
        return self._transaction(self._writing)

    def now(self, connection: sa.Connection) -> datetime:
        """The time by the database's clock, UTC."""
        moment: datetime = connection.execute(_NOW).scalar_one()
        return moment

    def insert(self, table: sa.Table) -> postgresql.Insert | sqlite.Insert:
        """An INSERT that knows ON CONFLICT, which both databases spell alike."""
        return sqlite.insert(table) if self.is_sqlite else postgresql.insert(table)

    def lock(self, connection: sa.Connection, name: str) -> None:
        """Wait for, and hold until the transaction ends, the lock of this name.  SQLite has one writer anyway."""
        if not self.is_sqlite:
            # Of a room of names of our own: others may use the database's locks, too.
            key = sa.func.hashtextextended(f"npn:{name}", 0)
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(key)))

    def close(self) -> None:
        """Close every connection."""
        self._reading.dispose()
        self._writing.dispose()

    @contextmanager
    def _transaction(self, engine: sa.Engine) -> Iterator[sa.Connection]:
        self._outage.admit()
        limit = nullcontext() if self._answer_seconds is None else time_limit(self._answer_seconds)
        try:
            with limit, engine.begin() as connection:
                self._outage.end()  # a connection out of the pool has answered just now
                yield connection
        except _NO_ANSWER as error:
            if _SQLITE_FULL in str(error):
                raise disk_full("nothing was changed") from error
            self._outage.begin(error)
            raise Unavailable("the database does not answer; try again") from error


class _Outage:
    """Whether the database is away, told in the log once when it begins and once when it ends.

    While the database hangs, one call a second finds out at the cost of its time; all others are refused at
    once.  Otherwise the callers behind the first ones would wait for a thread longer than they may.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._since: float | None = None
        self._not_before = 0.0

    def admit(self) -> None:
        """Raises Unavailable unless this call may ask the database."""
        now = time.monotonic()
        with self._lock:
            if now < self._not_before:
                raise Unavailable("the database does not answer; try again")
            if self._not_before:
                self._not_before = now + ANSWER_SECONDS + _PAUSE_SECONDS

    def begin(self, error: Exception) -> None:
        """A call failed with `error`."""
        cause = getattr(error, "orig", None) or error
        now = time.monotonic()
        with self._lock:
            self._not_before = now + _PAUSE_SECONDS if isinstance(cause, TimeIsUp) else 0.0
            is_news, self._since = self._since is None, self._since or now
        if is_news:
            _log.warning("database.away", cause=str(cause).strip())

    def end(self) -> None:
        """A call was answered."""
        if self._since is None:
            return
        with self._lock:
            since, self._since, self._not_before = self._since, None, 0.0
        if since is not None:
            _log.warning("database.back", seconds=round(time.monotonic() - since, 3))


def _postgresql_engine(url: sa.URL, answer_seconds: float | None) -> sa.Engine:
    engine = sa.create_engine(
        url,
        connect_args=connect_args(answer_seconds),
        pool_size=_POOL_SIZE,
        max_overflow=_POOL_SIZE,
        pool_timeout=answer_seconds or _BUSY_SECONDS,
        pool_pre_ping=True,  # a restart of the database costs no call
        pool_use_lifo=True,  # what a peak opened can go idle
        isolation_level="READ COMMITTED",
        use_native_hstore=False,
        hide_parameters=True,
    )
    sa.event.listen(engine, "do_connect", open_connection)
    return engine


def _sqlite_engines(url: sa.URL) -> tuple[sa.Engine, sa.Engine]:
    """One to read with, and one to write with, whose single connection is the writers' turn."""
    usual: dict[str, Any] = {
        "connect_args": {"timeout": _BUSY_SECONDS},
        "pool_timeout": _BUSY_SECONDS,
        "hide_parameters": True,
    }
    reading = sa.create_engine(url, pool_size=_POOL_SIZE, max_overflow=_POOL_SIZE, **usual)
    writing = sa.create_engine(url, pool_size=1, max_overflow=0, **usual)
    for engine, begin in ((reading, _begin_reading), (writing, _begin_writing)):
        sa.event.listen(engine, "connect", _open_sqlite)
        sa.event.listen(engine, "begin", begin)
    sa.event.listen(writing, "connect", _wait_briefly)
    return reading, writing


def _open_sqlite(connection: sqlite3.Connection, _record: object) -> None:
    connection.isolation_level = None  # the driver begins no transaction: `_begin_reading`, `_begin_writing`
    connection.create_function("npn_clock", 1, _sqlite_clock)
    for pragma in _SQLITE_PRAGMAS:
        connection.execute(f"PRAGMA {pragma}").close()


def _wait_briefly(connection: sqlite3.Connection, _record: object) -> None:
    """`_begin_writing` tries again itself: SQLite would soon sleep for a tenth of a second between two tries."""
    connection.execute(f"PRAGMA busy_timeout = {_RETRY_MILLISECONDS}").close()


def _sqlite_clock(seconds: float) -> str:
    """SQLite lives in this process and has its clock; this is how SQLAlchemy writes times there."""
    return (datetime.now(UTC) + timedelta(seconds=seconds)).strftime("%Y-%m-%d %H:%M:%S.%f")


def _begin_reading(connection: sa.Connection) -> None:
    connection.exec_driver_sql("BEGIN")


def _begin_writing(connection: sa.Connection) -> None:
    """Take the lock at once: a writer that began by reading could not wait for another one, only fail.

    That other one is of another process.
    """
    give_up = time.monotonic() + _BUSY_SECONDS
    with closing(connection.connection.cursor()) as cursor:
        while time.monotonic() < give_up:
            try:
                cursor.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode != sqlite3.SQLITE_BUSY:
                    break
            else:
                return
    connection.exec_driver_sql("BEGIN IMMEDIATE")  # raises, in SQLAlchemy's words
