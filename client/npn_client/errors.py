"""What can go wrong on the client's side.

    ClientError
    ├── InvalidArgument       a field of the request is wrong; `violations` says which and what would be right
    ├── OutOfRange            a position that the server does not have (any more)
    ├── NotFound              no such resource, or not yours
    ├── AlreadyExists         the request_id was used for another request
    ├── FailedPrecondition    the resource's state does not allow the call
    ├── ResourceExhausted     a size, count or quota is exceeded
    ├── Unauthenticated       the token is missing or not valid
    ├── PermissionDenied      the token does not allow the call
    ├── Unimplemented         this server cannot do that
    ├── Unavailable           the server does not answer; retries were in vain
    ├── DeadlineExceeded      a call took longer than the client's `timeout`
    ├── Cancelled             the call was cancelled
    ├── InternalError         a defect of the server
    ├── TransferFailed        a file arrived damaged, or changed while it was sent
    ├── JobFailed             the job ended FAILED; `error` says why
    └── JobCancelled          the job ended CANCELLED

Waiting longer than asked raises the builtin TimeoutError.  `status.py` maps every gRPC status to a leaf.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .model import JobError


@dataclass(frozen=True, kw_only=True, slots=True)
class Violation:
    """One wrong field: its path in the request and what would be right."""

    field: str
    description: str


class ClientError(Exception):
    """Root of the tree.  `reason` is the server's stable UPPER_SNAKE_CASE code, or empty."""

    def __init__(self, message: str, *, reason: str = "", violations: tuple[Violation, ...] = ()) -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason
        self.violations = violations


class InvalidArgument(ClientError):
    """A field of the request is wrong; `violations` says which and what would be right."""

    @classmethod
    def of(cls, field: str, description: str) -> InvalidArgument:
        """The error of one field, found before anything was sent."""
        violation = Violation(field=field, description=description)
        return cls(description, reason="INVALID_FIELD", violations=(violation,))


class OutOfRange(ClientError):
    """A position that the server does not have (any more)."""


class NotFound(ClientError):
    """No such resource, or not yours."""


class AlreadyExists(ClientError):
    """The request_id was used for another request."""


class FailedPrecondition(ClientError):
    """The resource's state does not allow the call."""


class ResourceExhausted(ClientError):
    """A size, count or quota is exceeded."""


class Unauthenticated(ClientError):
    """The token is missing or not valid."""


class PermissionDenied(ClientError):
    """The token does not allow the call."""


class Unimplemented(ClientError):
    """This server cannot do that."""


class Unavailable(ClientError):
    """The server does not answer; retries were in vain."""


class DeadlineExceeded(ClientError):
    """A call took longer than the client's `timeout`."""


class Cancelled(ClientError):
    """The call was cancelled."""


class InternalError(ClientError):
    """A defect of the server."""


class TransferFailed(ClientError):
    """A file arrived damaged, or changed while it was sent."""


class JobFailed(ClientError):
    """The job `job` ended FAILED; `error` says why."""

    def __init__(self, job: str, error: JobError) -> None:
        super().__init__(f"{job} failed: {error.message}", reason=error.reason, violations=error.violations)
        self.job = job
        self.error = error


class JobCancelled(ClientError):
    """The job `job` ended CANCELLED."""

    def __init__(self, job: str) -> None:
        super().__init__(f"{job} was cancelled")
        self.job = job
