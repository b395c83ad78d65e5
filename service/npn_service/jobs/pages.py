"""Keyset pages, newest first: a page begins after the last row of the one before, whatever came since.

A token names that row.  It is bound to the query that gave it, so that it cannot be used with another.
"""

import base64
import hashlib
import json
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

from npn_service.errors import InvalidRequest


def binding_of(*query: object) -> str:
    """A short digest of what a query asks for."""
    return hashlib.sha256(repr(query).encode()).hexdigest()[:16]


def read_page(
    connection: sa.Connection, query: sa.Select[Any], table: sa.Table, size: int, token: str, binding: str
) -> tuple[list[sa.Row[Any]], str]:
    """At most `size` rows of `query` after `token`, and the token of the next page, empty on the last.

    `table` has the columns create_time and id.  Raises InvalidRequest on a token of another query.
    """
    key = sa.tuple_(table.c.create_time, table.c.id)
    if token:
        query = query.where(key < sa.tuple_(*_read_token(token, binding, table)))
    newest_first = query.order_by(table.c.create_time.desc(), table.c.id.desc())
    rows = list(connection.execute(newest_first.limit(size + 1)))
    if len(rows) <= size:
        return rows, ""
    last = rows[size - 1]
    return rows[:size], _write_token(binding, last.create_time, last.id)


def _write_token(binding: str, create_time: datetime, row_id: str) -> str:
    text = json.dumps([binding, create_time.isoformat(), row_id])
    return base64.urlsafe_b64encode(text.encode()).decode()


def _read_token(
    token: str, binding: str, table: sa.Table
) -> tuple[sa.ColumnElement[Any], sa.ColumnElement[Any]]:
    try:
        found, create_time, row_id = json.loads(base64.urlsafe_b64decode(token.encode()))
        moment = datetime.fromisoformat(create_time).astimezone(UTC)
    except (ValueError, TypeError, OverflowError, RecursionError):
        found = row_id = None
    if found != binding or not isinstance(row_id, str) or not row_id.isprintable():
        raise InvalidRequest(
            "page_token",
            "this page_token belongs to another query; repeat the query that gave it, or begin anew",
        )
    return sa.literal(moment, table.c.create_time.type), sa.literal(row_id)
