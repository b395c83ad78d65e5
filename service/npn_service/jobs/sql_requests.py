"""Request ids: what makes a repeated call harmless, for 30 days and per owner."""

from dataclasses import dataclass
from datetime import datetime, timedelta

import sqlalchemy as sa

from npn_service.errors import AlreadyExists

from .schema import requests

_LIFETIME = timedelta(days=30)


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """A call that makes a resource of `kind` ("job", "upload"); an empty `id` is no id."""

    owner: str
    kind: str
    id: str
    hash: str


def made_by(connection: sa.Connection, request: Request, now: datetime) -> str | None:
    """The id of the resource that this request made before; AlreadyExists when another request has its id."""
    query = sa.select(requests).where(
        requests.c.owner == request.owner,
        requests.c.kind == request.kind,
        requests.c.request_id == request.id,
        requests.c.expire_time > now,
    )
    row = connection.execute(query).one_or_none()
    if row is None:
        return None
    if row.request_hash != request.hash:
        raise AlreadyExists(f"request_id {request.id!r} was used for another request; make a new one")
    resource_id: str = row.resource_id
    return resource_id


def remember(connection: sa.Connection, request: Request, resource_id: str, now: datetime) -> None:
    """Note what the request made, and forget the requests whose time is over."""
    connection.execute(sa.delete(requests).where(requests.c.expire_time <= now))
    if request.id:
        connection.execute(
            sa.insert(requests).values(
                owner=request.owner,
                kind=request.kind,
                request_id=request.id,
                request_hash=request.hash,
                resource_id=resource_id,
                expire_time=now + _LIFETIME,
            )
        )
