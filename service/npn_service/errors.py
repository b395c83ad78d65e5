"""What the service refuses, and why.

    ServiceError
    ├── InvalidRequest        a field of the request is wrong
    ├── NotFound              no such resource, or not the caller's
    ├── AlreadyExists         the request_id belongs to another request
    ├── WrongState            the resource's state does not allow the call
    ├── EventsExpired         the watch resumes after an event that is no longer kept
    ├── LimitExceeded         a size, count or quota is exceeded
    ├── Unavailable           try again: draining, overloaded, no room, or a dependency does not answer
    ├── Unauthenticated       the token is missing, not valid or expired
    ├── PermissionDenied      the token lacks a scope
    ├── TooSlow               what was asked takes longer than an answer may
    └── LostLease             this attempt is not the job's current one any more

`rpc/status.py` maps each leaf to a gRPC status; a test fails when one is missing.

StartupError, beside the tree, is what keeps the server from starting, or from going on; no client ever sees it.
"""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class FieldViolation:
    """One wrong field: its path in the request and what would be right."""

    field: str
    description: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Quota:
    """A limit of one owner: what it counts, how much is allowed, how much there is, how much more was asked."""

    owner: str
    what: str
    limit: int
    used: int
    asked: int


class ServiceError(Exception):
    """Root of the tree.  `reason` is a stable UPPER_SNAKE_CASE code for ErrorInfo."""

    reason = "INTERNAL"

    def __init__(self, message: str, *, reason: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        if reason is not None:
            self.reason = reason


class InvalidRequest(ServiceError):
    """A field of the request is wrong."""

    reason = "INVALID_FIELD"

    def __init__(self, field: str, message: str, *, reason: str | None = None) -> None:
        super().__init__(message, reason=reason)
        self.violations = (FieldViolation(field=field, description=message),)


class NotFound(ServiceError):
    """No such resource, or not the caller's."""

    reason = "NOT_FOUND"


class AlreadyExists(ServiceError):
    """The request_id belongs to another request."""

    reason = "REQUEST_ID_REUSED"


class WrongState(ServiceError):
    """The resource's state does not allow the call."""

    reason = "WRONG_STATE"


class EventsExpired(ServiceError):
    """The watch resumes after an event that is no longer kept."""

    reason = "EVENTS_EXPIRED"


class LimitExceeded(ServiceError):
    """A size, count or quota is exceeded."""

    reason = "LIMIT_EXCEEDED"

    def __init__(self, message: str, *, reason: str | None = None, quota: Quota | None = None) -> None:
        super().__init__(message, reason=reason)
        self.quota = quota


class Unavailable(ServiceError):
    """Try again in `retry_seconds`: draining, overloaded, no room, or a dependency does not answer."""

    reason = "UNAVAILABLE"

    def __init__(self, message: str, *, reason: str | None = None, retry_seconds: float = 1.0) -> None:
        super().__init__(message, reason=reason)
        self.retry_seconds = retry_seconds


class Unauthenticated(ServiceError):
    """The token is missing, not valid or expired."""

    reason = "TOKEN_INVALID"


class PermissionDenied(ServiceError):
    """The token lacks a scope."""

    reason = "SCOPE_MISSING"


class TooSlow(ServiceError):
    """What was asked takes longer than an answer may; asking again would not help."""

    reason = "INSPECTION_TIMEOUT"


class LostLease(ServiceError):
    """This attempt is not the job's current one any more."""

    reason = "LOST_LEASE"


class StartupError(Exception):
    """The server cannot start as it is configured, or cannot go on; the message says why and what to do."""
