"""Request ids: what makes a repeated call harmless, for 30 days and per owner.

A call claims its id before it makes anything.  Of two at once the second waits for the first to commit, and
then finds what it made: the primary key decides.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

import sqlalchemy as sa

from npn_service.errors import AlreadyExists

from .database import Database
from .schema import requests

_LIFETIME = timedelta(days=30)


_MADE = sa.select(requests).where(
    requests.c.owner == sa.bindparam("of"),
    requests.c.kind == sa.bindparam("what"),
    requests.c.request_id == sa.bindparam("number"),
    requests.c.expire_time > sa.bindparam("now"),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """A call that makes a resource of `kind` ("job", "upload"); an empty `id` is no id."""

    owner: str
    kind: str
    id: str
    hash: str


def made_by(connection: sa.Connection, request: Request, now: datetime) -> str | None:
    """The id of the resource that this request made before; AlreadyExists when another request has its id."""
    asked = {"of": request.owner, "what": request.kind, "number": request.id, "now": now}
    row = connection.execute(_MADE, asked).one_or_none()
    if row is None:
        return None
    if row.request_hash != request.hash:
        raise AlreadyExists(f"request_id {request.id!r} was used for another request; make a new one")
    resource_id: str = row.resource_id
    return resource_id


def claim(
    database: Database, connection: sa.Connection, request: Request, resource_id: str, now: datetime
) -> str | None:
    """Note that the request makes `resource_id`; returns what it made before instead, if it did.

    Raises as `made_by` does.
    """
    if not request.id:
        return None
    row = {
        "owner": request.owner,
        "kind": request.kind,
        "request_id": request.id,
        "request_hash": request.hash,
        "resource_id": resource_id,
        "expire_time": now + _LIFETIME,
    }
    claimed = connection.execute(_claim(database), {**row, "now": now})
    return made_by(connection, request, now) if claimed.first() is None else None


def forget_old(connection: sa.Connection, now: datetime) -> None:
    """Remove the requests whose time is over."""
    connection.execute(sa.delete(requests).where(requests.c.expire_time <= now))


def _claim(database: Database) -> sa.Executable:
    """Take the id, if nobody has it or its time is over; returns a row if so."""
    new = database.insert(requests)
    taken = {name: new.excluded[name] for name in ("request_hash", "resource_id", "expire_time")}
    is_over = requests.c.expire_time <= sa.bindparam("now")
    claiming = new.on_conflict_do_update(index_elements=requests.primary_key, set_=taken, where=is_over)
    return claiming.returning(requests.c.resource_id)
