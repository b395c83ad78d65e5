"""A blocking channel: every call has a deadline and fails with an exception of errors.py."""

import threading
from collections.abc import Iterator
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

import grpc

from . import channel
from ._pb import CompressionServiceStub, Message
from .credentials import Tls, check_token, headers, tls_of
from .errors import Unavailable
from .status import exception_of
from .urls import UrlTransfers


class Connection:
    """One channel to one server.  Thread-safe; connects at the first call."""

    def __init__(
        self, target: str, *, token: str | Path | None, tls: bool | str | Path | Tls, timeout: float
    ) -> None:
        encryption = tls_of(tls)
        check_token(target, token, encryption)
        options = channel.options(target)
        self._channel = (
            grpc.insecure_channel(target, options=options)
            if encryption is None
            else grpc.secure_channel(target, encryption.credentials(), options=options)
        )
        self._stub = CompressionServiceStub(self._channel)
        self._token = token
        self._timeout = timeout
        self.urls = UrlTransfers(
            https_only=encryption is not None, ca_file=encryption.ca_file if encryption else None
        )

    def call(self, method: str, request: Message | Iterator[Message], *, timeout: float | None = None) -> Any:
        """The one answer to a request, or to a stream of them.  Raises ClientError."""
        invoke = getattr(self._stub, method)
        try:
            return invoke(request, timeout=timeout or self._timeout, metadata=headers(self._token))
        except grpc.RpcError as error:
            raise exception_of(error) from None

    def stream(
        self, method: str, request: Message, *, timeout: float, silence: float | None = None
    ) -> Iterator[Any]:
        """The answers to a request.

        Raises ClientError; Unavailable also after `silence` seconds without a message.
        """
        call = getattr(self._stub, method)(request, timeout=timeout, metadata=headers(self._token))
        try:
            yield from call if silence is None else _audible(call, silence)
        except grpc.RpcError as error:
            raise exception_of(error) from None
        finally:
            call.cancel()

    def close(self) -> None:
        """End every call and release the channel."""
        self._channel.close()


def _audible(call: Any, silence: float) -> Iterator[Any]:
    """The messages of a call; Unavailable when none comes for so many seconds."""
    # a blocking read cannot be given a time limit of its own, a queue can
    inbox: SimpleQueue[Message | grpc.RpcError | None] = SimpleQueue()
    threading.Thread(target=_pump, args=(call, inbox), daemon=True, name="npn-watch").start()
    while True:
        try:
            item = inbox.get(timeout=silence)
        except Empty:
            raise Unavailable(f"the server was silent for {silence:g} s") from None
        if item is None:
            return
        if isinstance(item, grpc.RpcError):
            raise item
        yield item


def _pump(call: Any, inbox: "SimpleQueue[Message | grpc.RpcError | None]") -> None:
    try:
        for message in call:
            inbox.put(message)
        inbox.put(None)
    except grpc.RpcError as error:
        inbox.put(error)
