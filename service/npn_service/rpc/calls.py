"""From the service's descriptor to its handlers: decoding requests, running behaviours, encoding replies.

Handlers are built here instead of by the generated servicer, because stock `grpc.aio` answers undecodable
bytes with UNKNOWN and a traceback before any handler is asked.
"""

import inspect
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf import message_factory
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import DecodeError, Message
from grpc import aio

from npn_service.access.identity import Identity
from npn_service.blocking import BlockingPool
from npn_service.errors import InvalidRequest

from .gate import Call, Gate, name_resource

Behaviour = Callable[[Any, Identity], Any]


@dataclass(frozen=True, slots=True)
class _Undecodable:
    """Takes the place of a request whose bytes are no message."""

    expected: str


def bind_service(
    service: ServiceDescriptor, behaviours: Mapping[str, Behaviour], blocking: BlockingPool, gate: Gate
) -> grpc.GenericRpcHandler:
    """The handler of every method of `service`.

    A behaviour takes the request (or an async iterator of requests) and who asks; it returns the reply, or
    yields replies, and raises what `rpc/status.py` knows.  Coroutines and async generators run on the event
    loop, plain functions in `blocking`.
    """
    handlers = {
        method.name: _bind_method(method, behaviours[method.name], blocking, gate)
        for method in service.methods
    }
    return grpc.method_handlers_generic_handler(service.full_name, handlers)


def _bind_method(
    method: MethodDescriptor, behaviour: Behaviour, blocking: BlockingPool, gate: Gate
) -> "grpc.RpcMethodHandler[Any, Any]":
    may_block = not (inspect.iscoroutinefunction(behaviour) or inspect.isasyncgenfunction(behaviour))

    def ask(request: Any, call: Call, caller: Identity) -> Any:
        if method.client_streaming:
            return behaviour(_decoded_stream(request, call, caller, gate), caller)
        asked = _decoded(request, call)
        return blocking.run(behaviour, asked, caller) if may_block else behaviour(asked, caller)

    async def answer_one(request: Any, context: aio.ServicerContext[Any, Any]) -> Message:
        async with gate.admit(method.name, context) as (call, caller):
            reply: Message = await ask(request, call, caller)
            name_resource(call, reply)
        return reply

    async def answer_many(request: Any, context: aio.ServicerContext[Any, Any]) -> AsyncIterator[Message]:
        async with (
            gate.admit(method.name, context) as (call, caller),
            aclosing(ask(request, call, caller)) as replies,
        ):
            async for reply in replies:
                gate.check(caller)
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


def _decoded(request: Message | _Undecodable, call: Call) -> Message:
    if isinstance(request, _Undecodable):
        raise InvalidRequest("request", f"the bytes are no {request.expected}", reason="UNDECODABLE")
    name_resource(call, request)
    return request


async def _decoded_stream(
    requests: AsyncIterator[Message | _Undecodable], call: Call, caller: Identity, gate: Gate
) -> AsyncIterator[Message]:
    async for request in requests:
        gate.check(caller)
        yield _decoded(request, call)
