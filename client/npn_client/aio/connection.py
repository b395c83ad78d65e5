"""An asyncio channel: every call has a deadline and fails with an exception of errors.py."""

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

from npn_client import channel
from npn_client._pb import CompressionServiceStub, Message
from npn_client.credentials import Tls, check_token, headers, tls_of
from npn_client.errors import Cancelled, Unavailable
from npn_client.status import exception_of
from npn_client.urls import UrlTransfers


class AsyncConnection:
    """One channel to one server; belongs to the event loop that it is made in."""

    def __init__(
        self, target: str, *, token: str | Path | None, tls: bool | str | Path | Tls, timeout: float
    ) -> None:
        encryption = tls_of(tls)
        check_token(target, token, encryption)
        options = channel.options(target)
        self._channel = (
            grpc.aio.insecure_channel(target, options=options)
            if encryption is None
            else grpc.aio.secure_channel(target, encryption.credentials(), options=options)
        )
        self._stub: Any = CompressionServiceStub(self._channel)
        self._token = token
        self._timeout = timeout
        self.urls = UrlTransfers(
            https_only=encryption is not None, ca_file=encryption.ca_file if encryption else None
        )

    async def call(self, method: str, request: Any, *, timeout: float | None = None) -> Any:
        """The one answer to a request, or to a stream of them.  Raises ClientError."""
        invoke = getattr(self._stub, method)
        try:
            return await invoke(request, timeout=timeout or self._timeout, metadata=headers(self._token))
        except grpc.RpcError as error:
            raise exception_of(error) from None
        except asyncio.CancelledError:
            raise _cancellation() from None

    async def stream(
        self, method: str, request: Message, *, timeout: float, silence: float | None = None
    ) -> AsyncGenerator[Any, None]:
        """The answers to a request.

        Raises ClientError; Unavailable also after `silence` seconds without a message.
        """
        call = getattr(self._stub, method)(request, timeout=timeout, metadata=headers(self._token))
        try:
            messages = aiter(call)
            while True:
                yield await asyncio.wait_for(anext(messages), silence)
        except StopAsyncIteration:
            return
        except TimeoutError:
            raise Unavailable(f"the server was silent for {silence:g} s") from None
        except grpc.RpcError as error:
            raise exception_of(error) from None
        except asyncio.CancelledError:
            raise _cancellation() from None
        finally:
            call.cancel()

    async def close(self) -> None:
        """End every call and release the channel."""
        await self._channel.close()


def _cancellation() -> BaseException:
    """What a CancelledError means: grpc.aio raises it for calls that the server cancelled, too."""
    task = asyncio.current_task()
    if task is None or task.cancelling():
        return asyncio.CancelledError()
    return Cancelled("the server cancelled the call")
