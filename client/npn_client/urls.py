"""Bytes to and from the server's object store, by URLs that the server signed.

A URL is all that goes along: no token of the server is ever sent there, and no redirection is followed.  What a
message says of a URL is its host alone, since whoever has the rest may use it.
"""

from __future__ import annotations

import http.client
import ipaddress
import re
import ssl
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from urllib.parse import urlsplit

from .errors import Cancelled, ClientError, FailedPrecondition, TransferFailed, Unavailable

TIMEOUT = 60.0  # seconds without a byte
PARALLEL = 4  # parts sent at a time
_PIECE_BYTES = 256 << 10
_PASSING = frozenset({403, 408, 425, 429})  # 403: the URL expired; a new one may do
_CODE = re.compile(rb"<Code>(\w{1,64})</Code>")


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """Bytes of a local file, from `offset` on, and the URL that takes them."""

    source: Path
    offset: int
    size: int
    url: str = field(repr=False)


class UrlTransfers:
    """Sends and fetches by URL.  Thread-safe; every call blocks.

    With `https_only` a URL in plain text is refused unless it stays on this machine.  `ca_file` is a PEM file of
    authorities that are trusted beside the system's.
    """

    def __init__(self, *, https_only: bool, ca_file: str | Path | None = None) -> None:
        self._https_only = https_only
        self._ca_file = ca_file

    @cached_property
    def _https(self) -> urllib.request.HTTPSHandler:
        """Made at the first transfer: reading the system's authorities takes a while."""
        context = ssl.create_default_context()
        if self._ca_file is not None:
            context.load_verify_locations(self._ca_file)
        return urllib.request.HTTPSHandler(context=context)

    def send(self, parts: Sequence[Part], stop: threading.Event) -> ClientError | None:
        """Send parts, a few at a time, until one fails or `stop` is set; returns why it ended early."""

        def send_one(part: Part) -> ClientError | None:
            if stop.is_set():
                return Cancelled("the transfer was given up")
            try:
                self._send(part, stop)
            except ClientError as error:
                stop.set()
                return error
            return None

        with ThreadPoolExecutor(PARALLEL, thread_name_prefix="npn-send") as pool:
            try:
                failures = [failure for failure in pool.map(send_one, parts) if failure is not None]
            except BaseException:  # interrupted: the pool waits for its parts
                stop.set()
                raise
        # those that were given up say less than the one that failed
        return min(failures, key=lambda failure: isinstance(failure, Cancelled), default=None)

    def fetch(self, url: str, offset: int, size: int, stop: threading.Event) -> Iterator[bytes]:
        """The bytes from `offset` up to `size`.  Raises ClientError; Unavailable for what may pass."""
        request = self._request(url, "GET", {"Range": f"bytes={offset}-{size - 1}"})
        with self._open(request) as response:
            if response.status != http.HTTPStatus.PARTIAL_CONTENT:
                raise TransferFailed(
                    f"{request.host} does not send part of a file; it answers {response.status}"
                )
            while data := _read(response):
                yield data
                if stop.is_set():
                    raise Cancelled("the transfer was given up")

    def _send(self, part: Part, stop: threading.Event) -> None:
        headers = {"Content-Length": str(part.size), "Content-Type": "application/octet-stream"}
        request = self._request(part.url, "PUT", headers, _pieces(part, stop))
        with self._open(request):
            pass

    def _request(
        self, url: str, method: str, headers: dict[str, str], data: Iterator[bytes] | None = None
    ) -> urllib.request.Request:
        parts = urlsplit(url)
        local = _is_local(parts.hostname or "")
        if parts.scheme != "https" and not (parts.scheme == "http" and (local or not self._https_only)):
            raise FailedPrecondition(
                f"the server sends files to {parts.scheme}://{parts.netloc}; over an encrypted connection to it "
                "only https is used: its NPN_S3_PUBLIC_ENDPOINT must be an https URL"
            )
        return urllib.request.Request(url, data, headers, method=method)  # noqa: S310 - the scheme was checked

    def _open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        # a proxy of the environment knows nothing of this machine
        local = _is_local(urlsplit(request.full_url).hostname or "")
        proxies = [urllib.request.ProxyHandler({})] if local else []
        opener = urllib.request.build_opener(self._https, _NoRedirection, *proxies)
        try:
            response: http.client.HTTPResponse = opener.open(request, timeout=TIMEOUT)
        except urllib.error.HTTPError as error:
            raise _refusal(request.host, error) from None
        except (OSError, http.client.HTTPException) as error:
            raise Unavailable(f"{request.host}: {_cause(error)}") from None
        return response


class _NoRedirection(urllib.request.HTTPRedirectHandler):
    """A redirection is an answer like others, and no URL that the server signed."""

    def redirect_request(self, *_: object) -> None:
        """None: it is not followed."""


def _pieces(part: Part, stop: threading.Event) -> Iterator[bytes]:
    """The part, without holding all of it.  Raises TransferFailed where the file changed, Cancelled after `stop`."""
    try:
        stream = part.source.open("rb")
    except OSError:
        raise TransferFailed(f"{part.source} changed while it was sent") from None
    with stream:
        stream.seek(part.offset)
        left = part.size
        while left:
            data = stream.read(min(_PIECE_BYTES, left))
            if not data:
                raise TransferFailed(f"{part.source} changed while it was sent")
            if stop.is_set():
                raise Cancelled("the transfer was given up")
            left -= len(data)
            yield data


def _read(response: http.client.HTTPResponse) -> bytes:
    try:
        return response.read1(_PIECE_BYTES)
    except (OSError, http.client.HTTPException) as error:
        raise Unavailable(f"the download broke off: {_cause(error)}") from None


def _refusal(host: str, error: urllib.error.HTTPError) -> ClientError:
    with error:
        try:
            found = _CODE.search(error.read(8192))
        except (OSError, http.client.HTTPException):
            found = None
    message = f"{host} answers {error.code} {found[1].decode() if found else error.reason}"
    passes = error.code in _PASSING or error.code >= http.HTTPStatus.INTERNAL_SERVER_ERROR
    return Unavailable(message) if passes else TransferFailed(message)


def _cause(error: Exception) -> str:
    reason = error.reason if isinstance(error, urllib.error.URLError) else error
    return str(reason) or type(reason).__name__


def _is_local(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
