"""gRPC status -> exception: the inverse of the server's table."""

from collections.abc import Mapping
from types import MappingProxyType

import grpc
import grpc.aio
from grpc_status import rpc_status

from . import errors
from ._pb import BadRequest, ErrorInfo, Status

EXCEPTIONS: Mapping[grpc.StatusCode, type[errors.ClientError]] = MappingProxyType(
    {
        grpc.StatusCode.INVALID_ARGUMENT: errors.InvalidArgument,
        grpc.StatusCode.OUT_OF_RANGE: errors.OutOfRange,
        grpc.StatusCode.NOT_FOUND: errors.NotFound,
        grpc.StatusCode.ALREADY_EXISTS: errors.AlreadyExists,
        grpc.StatusCode.FAILED_PRECONDITION: errors.FailedPrecondition,
        grpc.StatusCode.ABORTED: errors.FailedPrecondition,
        grpc.StatusCode.RESOURCE_EXHAUSTED: errors.ResourceExhausted,
        grpc.StatusCode.UNAUTHENTICATED: errors.Unauthenticated,
        grpc.StatusCode.PERMISSION_DENIED: errors.PermissionDenied,
        grpc.StatusCode.UNIMPLEMENTED: errors.Unimplemented,
        grpc.StatusCode.UNAVAILABLE: errors.Unavailable,
        grpc.StatusCode.DEADLINE_EXCEEDED: errors.DeadlineExceeded,
        grpc.StatusCode.CANCELLED: errors.Cancelled,
        grpc.StatusCode.INTERNAL: errors.InternalError,
        grpc.StatusCode.UNKNOWN: errors.InternalError,
        grpc.StatusCode.DATA_LOSS: errors.InternalError,
    }
)


def details_of(status: Status) -> tuple[str, tuple[errors.Violation, ...]]:
    """The reason and the field violations that a google.rpc.Status carries."""
    reason = ""
    violations: list[errors.Violation] = []
    for detail in status.details:
        info, bad_request = ErrorInfo(), BadRequest()
        if detail.Unpack(info):
            reason = info.reason
        elif detail.Unpack(bad_request):
            violations += [
                errors.Violation(field=violation.field, description=violation.description)
                for violation in bad_request.field_violations
            ]
    return reason, tuple(violations)


def exception_of(error: grpc.RpcError) -> errors.ClientError:
    """The exception of a call that ended with a status other than OK."""
    if not isinstance(error, grpc.Call | grpc.aio.AioRpcError):
        return errors.InternalError(str(error))
    kind = EXCEPTIONS.get(error.code(), errors.InternalError)
    try:
        status = rpc_status.from_call(error)
    except ValueError:  # the status details contradict the status: trust the plain one
        status = None
    reason, violations = details_of(status) if status is not None else ("", ())
    return kind(error.details() or error.code().name.lower(), reason=reason, violations=violations)
