"""The SQL store's logs and curves: what is kept of an attempt beside how it ended."""

from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from npn_core.progress import Progress
from npn_service.errors import NotFound

from .codec import decode
from .model import AttemptLog, CurvePoint
from .schema import attempts, curve_points
from .sql_base import SqlBase, owned_job

# Points of a curve lie apart by this share of the time that the attempt has run, and by a second at least: one
# a second at first, two thousand after a week.
_SPACING = 1 / 200
_CLOSEST = timedelta(seconds=1)

_CURVE_SO_FAR = sa.select(
    attempts.c.start_time,
    sa.select(sa.func.max(curve_points.c.time, type_=curve_points.c.time.type))
    .where(curve_points.c.job_id == sa.bindparam("job"), curve_points.c.attempt == sa.bindparam("attempt"))
    .scalar_subquery(),
).where(attempts.c.job_id == sa.bindparam("job"), attempts.c.number == sa.bindparam("attempt"))


class SqlLogs(SqlBase):
    """Logs and curves of attempts."""

    def record_log(self, *, job_id: str, attempt: int, log: str) -> None:
        """Keep the last log lines of an attempt that ended badly."""
        with self._database.write() as connection:
            connection.execute(sa.update(attempts).where(_is(job_id, attempt)).values(log=log))

    def get_log(self, *, owner: str | None, job_id: str, attempt: int | None) -> AttemptLog:
        """What is kept of an attempt; of the newest where none is named."""
        with self._database.read() as connection:
            last = owned_job(connection, owner, job_id).attempt
            number = last if attempt is None else attempt
            row = connection.execute(sa.select(attempts).where(_is(job_id, number))).one_or_none()
            if row is None and attempt is not None:
                raise NotFound(f"jobs/{job_id} has no attempt {attempt}; it has had {last}")
            return AttemptLog(attempt=0) if row is None else _log_of(connection, row)

    def _extend_curve(
        self, connection: sa.Connection, row: sa.Row[Any], progress: str, now: datetime
    ) -> None:
        """Add a point, encoded, to the current attempt's curve, unless the last one is too near."""
        begun, last = connection.execute(_CURVE_SO_FAR, {"job": row.id, "attempt": row.attempt}).one()
        if last is not None and now - last < max(_CLOSEST, (now - begun) * _SPACING):
            return
        connection.execute(
            sa.insert(curve_points).values(job_id=row.id, attempt=row.attempt, time=now, progress=progress)
        )


def _is(job_id: str, number: int) -> sa.ColumnElement[bool]:
    return sa.and_(attempts.c.job_id == job_id, attempts.c.number == number)


def _log_of(connection: sa.Connection, row: sa.Row[Any]) -> AttemptLog:
    query = (
        sa.select(curve_points)
        .where(curve_points.c.job_id == row.job_id, curve_points.c.attempt == row.number)
        .order_by(curve_points.c.time)
    )
    return AttemptLog(
        attempt=row.number,
        start_time=row.start_time,
        end_time=row.end_time,
        cause=row.cause or "",
        lines=tuple((row.log or "").splitlines()),
        curve=tuple(
            CurvePoint(time=point.time, progress=decode(Progress, point.progress))
            for point in connection.execute(query)
        ),
    )
