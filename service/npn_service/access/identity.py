"""Who calls, and what the caller may do.

`owner` is the team or project that jobs and objects belong to, `subject` the person or pipeline that calls.
"""

import re
from dataclasses import dataclass
from datetime import datetime
from enum import Enum

# An owner is a part of object keys, so it is one path segment that is neither "." nor "..".
_OWNER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@|+-]{0,127}")
_MAX_SUBJECT = 256


class Scope(Enum):
    """What a caller may do.  ADMIN includes the others, and reaches the jobs of every owner."""

    READ = "read"
    WRITE = "write"
    PRIORITY = "priority"
    ADMIN = "admin"


@dataclass(frozen=True, kw_only=True, slots=True)
class Identity:
    """One caller, as its token says.  Raises ValueError where owner or subject are none.

    `read_prefixes` are beginnings of the s3:// URIs that the caller's jobs may read.  `token_id` is set where
    the identity stands in the token file, `expire_time` where it ends at all.
    """

    owner: str
    subject: str
    scopes: frozenset[Scope]
    read_prefixes: tuple[str, ...] = ()
    expire_time: datetime | None = None
    token_id: str = ""

    def __post_init__(self) -> None:
        if not _OWNER.fullmatch(self.owner):
            raise ValueError(f"owner {self.owner!r} does not match {_OWNER.pattern}")
        if not 0 < len(self.subject) <= _MAX_SUBJECT or not self.subject.isprintable():
            raise ValueError(f"subject {self.subject!r} is not 1 to {_MAX_SUBJECT} printable characters")

    def may(self, scope: Scope) -> bool:
        """Whether the caller has the scope."""
        return scope in self.scopes or Scope.ADMIN in self.scopes

    @property
    def reach(self) -> str | None:
        """The owner whose jobs the caller sees and touches; None for those of every owner."""
        return None if self.may(Scope.ADMIN) else self.owner


# Whoever calls a server without tokens: one owner for all, who may read what the server can.
ANONYMOUS = Identity(
    owner="local",
    subject="local",
    scopes=frozenset({Scope.READ, Scope.WRITE, Scope.PRIORITY}),
    read_prefixes=("s3://",),
)
