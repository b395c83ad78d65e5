"""Around every RPC: decoding, the answer to what is raised, log context and measuring.

Handlers are built from the service's descriptor instead of the generated servicer, because stock `grpc.aio`
answers undecodable bytes with UNKNOWN and a traceback before any handler is asked.
"""

import asyncio
import inspect
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc
import structlog
from google.protobuf import message_factory
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import DecodeError, Message
from grpc import aio
from grpc_status import rpc_status

from npn_service.blocking import BlockingPool
from npn_service.errors import InvalidRequest

from .status import status_of

# Everything belongs to one owner as long as there are no tokens.
LOCAL = "local"

Behaviour = Callable[[Any, str], Any]
ObserveRpc = Callable[[str, str, float], None]

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Undecodable:
    """Takes the place of a request whose bytes are no message."""

    expected: str


def bind_service(
    service: ServiceDescriptor,
    behaviours: Mapping[str, Behaviour],
    blocking: BlockingPool,
    observe: ObserveRpc,
) -> grpc.GenericRpcHandler:
    """The handler of every method of `service`.

    A behaviour takes the request (or an async iterator of requests) and the owner who asks; it returns the
    reply, or yields replies, and raises what `rpc/status.py` knows.  Coroutines and async generators run on
    the event loop, plain functions in `blocking`.  `observe` gets the method's name, the status code's name
    and the seconds that the call took.
    """
    handlers = {
        method.name: _bind_method(method, behaviours[method.name], blocking, observe)
        for method in service.methods
    }
    return grpc.method_handlers_generic_handler(service.full_name, handlers)


def _bind_method(
    method: MethodDescriptor, behaviour: Behaviour, blocking: BlockingPool, observe: ObserveRpc
) -> "grpc.RpcMethodHandler[Any, Any]":
    may_block = not (inspect.iscoroutinefunction(behaviour) or inspect.isasyncgenfunction(behaviour))

    def ask(request: Any) -> Any:
        asked = _decoded(request)
        return blocking.run(behaviour, asked, LOCAL) if may_block else behaviour(asked, LOCAL)

    async def answer_one(request: Any, context: aio.ServicerContext[Any, Any]) -> Message:
        async with _answering(method.name, request, context, observe):
            reply: Message = await ask(request)
        return reply

    async def answer_many(request: Any, context: aio.ServicerContext[Any, Any]) -> AsyncIterator[Message]:
        async with (
            _answering(method.name, request, context, observe),
            aclosing(ask(request)) as replies,
        ):
            async for reply in replies:
                yield reply

    make, answer = {
        (False, False): (grpc.unary_unary_rpc_method_handler, answer_one),
        (False, True): (grpc.unary_stream_rpc_method_handler, answer_many),
        (True, False): (grpc.stream_unary_rpc_method_handler, answer_one),
        (True, True): (grpc.stream_stream_rpc_method_handler, answer_many),
    }[method.client_streaming, method.server_streaming]
    return make(
        answer,
        request_deserializer=_decoder(method),
        response_serializer=lambda reply: reply.SerializeToString(),
    )


def _decoder(method: MethodDescriptor) -> Callable[[bytes], Message | _Undecodable]:
    request_type = message_factory.GetMessageClass(method.input_type)

    def decode(data: bytes) -> Message | _Undecodable:
        try:
            return request_type.FromString(data)
        except DecodeError:
            return _Undecodable(method.input_type.name)

    return decode


def _decoded(request: Any) -> Any:
    """The request, or the stream of requests, with undecodable ones raised."""
    if isinstance(request, _Undecodable):
        raise InvalidRequest("request", f"the bytes are no {request.expected}", reason="UNDECODABLE")
    return request if isinstance(request, Message) else _decoded_stream(request)


async def _decoded_stream(requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
    async for request in requests:
        yield _decoded(request)


@asynccontextmanager
async def _answering(
    method: str, request: Any, context: aio.ServicerContext[Any, Any], observe: ObserveRpc
) -> AsyncIterator[None]:
    """Bind the log context, turn what is raised into the call's status, measure."""
    structlog.contextvars.bind_contextvars(method=method)
    name = getattr(request, "name", "")
    if name.startswith("jobs/"):
        structlog.contextvars.bind_contextvars(job=name[:80])
    started = time.monotonic()
    code = grpc.StatusCode.OK.name
    try:
        yield
    except (asyncio.CancelledError, GeneratorExit):
        # the caller is gone, or its deadline has passed
        code = grpc.StatusCode.CANCELLED.name
        raise
    except Exception as error:
        status = rpc_status.to_status(status_of(error))
        code = status.code.name
        _log.info("rpc.refused", code=code, message=status.details)
        await context.abort(*status)
    finally:
        observe(method, code, time.monotonic() - started)
