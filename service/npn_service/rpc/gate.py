"""Where every call comes in and ends: admission, identity, scope, status, log context, audit, measuring."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc
import structlog
from grpc import aio
from grpc_status import rpc_status

from npn_service.access.authenticator import Authenticator
from npn_service.access.identity import Identity, Scope
from npn_service.errors import ServiceError

from .access import DOWNLOADS, SCOPES, require
from .admission import Admission
from .status import status_of

ObserveRpc = Callable[[str, str, float], None]

_MAX_RESOURCE = 120
# Refusals that are audited whatever was asked: NOT_FOUND is what another owner's resource answers.
_REFUSALS = frozenset({"UNAUTHENTICATED", "PERMISSION_DENIED", "NOT_FOUND"})

_log = structlog.get_logger(__name__)
_audit = structlog.get_logger("npn.audit")


@dataclass(kw_only=True, slots=True)
class Call:
    """One call, with what is known of it so far.  `resource` is the name of what it is about."""

    method: str
    peer: str
    caller: Identity | None = None
    resource: str = ""
    code: str = grpc.StatusCode.OK.name
    reason: str = ""

    @property
    def audited(self) -> bool:
        """Whether the audit wants it: what changes something, downloads, refusals."""
        changes = SCOPES.get(self.method) is Scope.WRITE
        return changes or self.method in DOWNLOADS or self.code in _REFUSALS


class Gate:
    """Lets calls in, as many at a time as `admission` has room for.

    `observe` gets the method's name, the status code's name and the seconds it took.
    """

    def __init__(self, authenticator: Authenticator, admission: Admission, observe: ObserveRpc) -> None:
        self._authenticator = authenticator
        self._admission = admission
        self._observe = observe

    @asynccontextmanager
    async def admit(
        self, method: str, context: aio.ServicerContext[Any, Any]
    ) -> AsyncIterator[tuple[Call, Identity]]:
        """Answer one call in the block; what is refused before, or raised in it, becomes the call's status."""
        structlog.contextvars.bind_contextvars(method=method)
        call = Call(method=method, peer=context.peer())
        started = time.monotonic()
        status = None
        try:
            with self._admission.admit(method):
                caller = await self._authenticator.authenticate(context.invocation_metadata() or ())
                call.caller = caller
                if method in SCOPES:  # reflection needs no more than a token
                    require(caller, SCOPES[method], method)
                yield call, caller
        except (asyncio.CancelledError, GeneratorExit):
            # the caller is gone, or its deadline has passed
            call.code = grpc.StatusCode.CANCELLED.name
            raise
        except Exception as error:
            status = rpc_status.to_status(status_of(error))
            call.code = status.code.name
            call.reason = getattr(error, "reason", ServiceError.reason)
            _log.info("rpc.refused", code=call.code, message=status.details)
        finally:
            self._observe(method, call.code, time.monotonic() - started)
            if call.audited:
                _write_audit(call)
        if status is not None:  # told last: what the caller knows is in the audit
            await context.abort(*status)

    def check(self, caller: Identity) -> None:
        """Whether a caller may go on with a stream.  Raises Unauthenticated once its token is none any more."""
        self._authenticator.check(caller)


def name_resource(call: Call, message: Any) -> None:
    """Take the resource from the first message, request or reply, that has its name."""
    name = call.resource or getattr(message, "name", "") or getattr(message, "upload", "")
    call.resource = name[:_MAX_RESOURCE]
    if name.startswith("jobs/"):
        structlog.contextvars.bind_contextvars(job=name[:80])


def _write_audit(call: Call) -> None:
    _audit.info(
        "call",
        method=call.method,
        resource=call.resource,
        code=call.code,
        reason=call.reason,
        owner=call.caller.owner if call.caller else "",
        subject=call.caller.subject if call.caller else "",
        token=call.caller.token_id if call.caller else "",
        peer=call.peer,
    )
