"""Exceptions to gRPC statuses: the one table, with `google.rpc` details.

Every status carries an ErrorInfo (a stable reason, the domain "npn"); bad requests carry field violations, an
owner's limit a QuotaFailure with its numbers in the ErrorInfo, and what passes by itself a RetryInfo.
"""

import uuid
from collections.abc import Iterable, Mapping
from types import MappingProxyType

import structlog
from google.protobuf import any_pb2, duration_pb2
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from grpc import StatusCode

from npn_core.errors import InfeasibleBudget, InvalidInput
from npn_service import errors
from npn_service.errors import FieldViolation

DOMAIN = "npn"

# Leaves of the exception trees; a test walks both trees and fails on a gap.
CODES: Mapping[type[Exception], StatusCode] = MappingProxyType(
    {
        errors.InvalidRequest: StatusCode.INVALID_ARGUMENT,
        errors.NotFound: StatusCode.NOT_FOUND,
        errors.AlreadyExists: StatusCode.ALREADY_EXISTS,
        errors.WrongState: StatusCode.FAILED_PRECONDITION,
        errors.EventsExpired: StatusCode.OUT_OF_RANGE,
        errors.LimitExceeded: StatusCode.RESOURCE_EXHAUSTED,
        errors.Unavailable: StatusCode.UNAVAILABLE,
        errors.Unauthenticated: StatusCode.UNAUTHENTICATED,
        errors.PermissionDenied: StatusCode.PERMISSION_DENIED,
        errors.TooSlow: StatusCode.DEADLINE_EXCEEDED,
        errors.LostLease: StatusCode.ABORTED,
        InvalidInput: StatusCode.INVALID_ARGUMENT,
        InfeasibleBudget: StatusCode.INVALID_ARGUMENT,
    }
)

# Statuses travel in HTTP/2 headers, whose size is limited to a few kilobytes.  In bytes of UTF-8.
_MAX_MESSAGE = 1000
_MAX_FIELD = 200

_log = structlog.get_logger(__name__)


def job_field(field: str) -> str:
    """The path in the request of a field that the method names it: training.epochs -> job.training.epochs."""
    return f"job.{field}"


def make_status(
    code: int,
    reason: str,
    message: str,
    violations: Iterable[FieldViolation] = (),
    *,
    metadata: Mapping[str, str] | None = None,
) -> status_pb2.Status:
    """A `google.rpc.Status` with its details; long texts are cut."""
    status = status_pb2.Status(code=code, message=_cut(message, _MAX_MESSAGE))
    _attach(status, error_details_pb2.ErrorInfo(reason=reason, domain=DOMAIN, metadata=metadata or {}))
    entries = [
        error_details_pb2.BadRequest.FieldViolation(
            field=_cut(violation.field, _MAX_FIELD),
            description=_cut(violation.description, _MAX_MESSAGE),
            reason=reason,
        )
        for violation in violations
    ]
    if entries:
        _attach(status, error_details_pb2.BadRequest(field_violations=entries))
    return status


def status_of(error: Exception) -> status_pb2.Status:
    """The status that answers a call which raised `error`.

    An exception outside the table is a defect: it is logged under an id, and the caller gets the id alone.
    """
    code = CODES.get(type(error))
    if code is None or not isinstance(error, errors.ServiceError | InvalidInput):
        incident = uuid.uuid4().hex
        _log.error("defect", incident=incident, exc_info=error)
        return make_status(StatusCode.INTERNAL.value[0], "INTERNAL", f"internal error; incident {incident}")
    quota = error.quota if isinstance(error, errors.LimitExceeded) else None
    metadata = {} if quota is None else _numbers(quota)
    status = make_status(code.value[0], error.reason, error.message, _violations(error), metadata=metadata)
    if quota is not None:
        violation = error_details_pb2.QuotaFailure.Violation(
            subject=f"owner:{quota.owner}", description=_cut(error.message, _MAX_MESSAGE)
        )
        _attach(status, error_details_pb2.QuotaFailure(violations=[violation]))
    if isinstance(error, errors.Unavailable):
        delay = duration_pb2.Duration()
        delay.FromMilliseconds(round(1e3 * error.retry_seconds))
        _attach(status, error_details_pb2.RetryInfo(retry_delay=delay))
    return status


def _numbers(quota: errors.Quota) -> Mapping[str, str]:
    return {
        "what": quota.what,
        "limit": str(quota.limit),
        "used": str(quota.used),
        "asked": str(quota.asked),
    }


def _violations(error: errors.ServiceError | InvalidInput) -> tuple[FieldViolation, ...]:
    if isinstance(error, InvalidInput):
        return (FieldViolation(field=job_field(error.field), description=error.message),)
    return error.violations if isinstance(error, errors.InvalidRequest) else ()


def _attach(status: status_pb2.Status, detail: Message) -> None:
    packed = any_pb2.Any()
    packed.Pack(detail)
    status.details.append(packed)


def _cut(text: str, limit: int) -> str:
    data = text.encode()
    return text if len(data) <= limit else data[: limit - 3].decode(errors="ignore") + "…"
