"""What PostgreSQL needs: its URL, its session settings, and connections that do not wait for ever.

A server that hangs (stopped, or behind a network that swallows packets) keeps its sockets open and answers
nothing; neither the kernel nor libpq notices for minutes, over a unix socket never.  So the limit is kept on
our side, where psycopg waits.
"""

import threading
import time
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import psycopg
import sqlalchemy as sa

_SCHEMES = ("sqlite", "postgresql", "postgresql+psycopg")
_CONNECT_SECONDS = 2  # the least that libpq takes; `time_limit` is usually shorter
# A client that stops in the middle of a transaction keeps its locks no longer than this.
_IDLE_IN_TRANSACTION_SECONDS = 10.0
_MIGRATION_LOCK_SECONDS = 30.0

_limit = threading.local()


class TimeIsUp(psycopg.OperationalError):
    """The database took longer than the calling thread may wait; the connection is closed."""


def parse_url(url: str) -> sa.URL:
    """The URL with its driver.  Raises ValueError, without repeating the URL: it may hold a password."""
    try:
        parsed = sa.make_url(url)
    except sa.exc.ArgumentError:
        raise ValueError("this is no database URL; write postgresql://USER@HOST/DATABASE") from None
    if parsed.drivername not in _SCHEMES:
        raise ValueError(
            f"{parsed.drivername}:// is no database for jobs; "
            "write postgresql://USER@HOST/DATABASE or sqlite:///PATH"
        )
    return parsed.set(drivername="postgresql+psycopg") if parsed.drivername == "postgresql" else parsed


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Within the block, everything this thread does on PostgreSQL ends after `seconds`, with TimeIsUp."""
    _limit.deadline = time.monotonic() + seconds
    try:
        yield
    finally:
        _limit.deadline = None


def connect_args(answer_seconds: float | None) -> Mapping[str, Any]:
    """How to connect, for transactions of so many seconds; None: a migration, which may take its time."""
    if answer_seconds is None:
        settings = {"lock_timeout": _MIGRATION_LOCK_SECONDS}
    else:
        settings = {
            # A little earlier than here: a server that answers with an error is not taken for one that hangs.
            "statement_timeout": 0.9 * answer_seconds,
            "idle_in_transaction_session_timeout": _IDLE_IN_TRANSACTION_SECONDS,
        }
    return {
        "application_name": "npn-server",
        "connect_timeout": _CONNECT_SECONDS,
        "options": " ".join(f"-c {name}={round(1e3 * seconds)}" for name, seconds in settings.items()),
        # For peers that vanished: the kernel closes what nobody acknowledges.
        "keepalives_idle": 10,
        "keepalives_interval": 5,
        "keepalives_count": 3,
        "tcp_user_timeout": 10_000,
    }


def open_connection(
    _dialect: sa.Dialect, _record: object, arguments: tuple[Any, ...], parameters: dict[str, Any]
) -> "BoundedConnection":
    """SQLAlchemy's `do_connect` event."""
    return BoundedConnection.connect(*arguments, **parameters)


class BoundedConnection(psycopg.Connection[Any]):
    """A connection whose every wait, also that for the connection itself, ends at the thread's `time_limit`."""

    @classmethod
    def _connect_gen(cls, *arguments: Any, **options: Any) -> Generator[Any, Any, Any]:
        return (yield from _limited(super()._connect_gen(*arguments, **options)))

    def wait(self, gen: Generator[Any, Any, Any], *arguments: Any, **options: Any) -> Any:
        """As psycopg waits, but no longer than the limit: what a late answer would mean is unknown then."""
        try:
            return super().wait(_limited(gen), *arguments, **options)
        except TimeIsUp:
            self.close()
            raise


def _limited(waiting: Generator[Any, Any, Any]) -> Generator[Any, Any, Any]:
    """What psycopg waits for, until the thread's limit; it resumes it at least every tenth of a second."""
    deadline = getattr(_limit, "deadline", None)
    return waiting if deadline is None else _until(deadline, waiting)


def _until(deadline: float, waiting: Generator[Any, Any, Any]) -> Generator[Any, Any, Any]:
    try:
        wanted = next(waiting)
        while time.monotonic() < deadline:
            wanted = waiting.send((yield wanted))
    except StopIteration as done:
        return done.value
    raise TimeIsUp("it does not answer in time")
