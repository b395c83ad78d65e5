"""Transfers by URL: what is refused before a byte is sent, and what may pass."""

import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from npn_client import ClientError, FailedPrecondition, TransferFailed, Unavailable
from npn_client.urls import Part, UrlTransfers


def part(folder: Path, url: str, size: int = 3) -> Part:
    """The first bytes of a file of three."""
    source = folder / "source"
    source.write_bytes(b"abc")
    return Part(source=source, offset=0, size=size, url=url)


def failure(transfers: UrlTransfers, sent: Part) -> ClientError:
    """Why one part was not sent."""
    found = transfers.send([sent], threading.Event())
    assert found is not None
    return found


@pytest.mark.parametrize(
    "url", ["http://s3.example.com/k?X-Amz-Signature=secret", "file:///etc/passwd", "ftp://x/k"]
)
def test_plain_urls_on_an_encrypted_connection(tmp_path: Path, url: str) -> None:
    """http is for this machine alone where the server is spoken to in secret; other schemes are for nobody."""
    refused = failure(UrlTransfers(https_only=True), part(tmp_path, url))
    assert isinstance(refused, FailedPrecondition)
    assert "https" in refused.message
    assert "secret" not in refused.message


def test_a_host_that_does_not_answer_may_pass(tmp_path: Path) -> None:
    """The message has the host and no part of the signature."""
    refused = failure(
        UrlTransfers(https_only=True), part(tmp_path, "http://127.0.0.1:1/k?X-Amz-Signature=secret")
    )
    assert isinstance(refused, Unavailable)
    assert "127.0.0.1:1" in refused.message
    assert "secret" not in refused.message


class Answering(BaseHTTPRequestHandler):
    """Answers a PUT with the status that its path names, and a redirection to itself."""

    def do_PUT(self) -> None:
        """Reads the part and answers."""
        self.rfile.read(int(self.headers["Content-Length"]))
        self.server.seen.append(dict(self.headers))  # type: ignore[attr-defined]
        body = b"<Error><Code>ExpiredToken</Code></Error>"
        self.send_response(int(self.path[1:]))
        self.send_header("Location", "/200")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Silent."""


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (403, Unavailable),
        (429, Unavailable),
        (500, Unavailable),
        (503, Unavailable),
        (400, TransferFailed),
        (307, TransferFailed),
    ],
)
def test_answers_that_are_no_success(tmp_path: Path, status: int, kind: type[ClientError]) -> None:
    """An expired URL and a busy service may pass; a redirection is not followed, a refusal is final."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Answering) as server:
        server.seen = []  # type: ignore[attr-defined]
        threading.Thread(target=server.serve_forever, daemon=True).start()
        refused = failure(
            UrlTransfers(https_only=True), part(tmp_path, f"http://127.0.0.1:{server.server_port}/{status}")
        )
        server.shutdown()
    assert type(refused) is kind
    assert "ExpiredToken" in refused.message
    (headers,) = server.seen  # type: ignore[attr-defined]
    assert "authorization" not in {name.lower() for name in headers}


def test_a_file_that_became_shorter(tmp_path: Path) -> None:
    """It is said, and the part is not sent half."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Answering) as server:
        url = f"http://127.0.0.1:{server.server_port}/200"
        refused = failure(UrlTransfers(https_only=True), part(tmp_path, url, size=9))
    assert isinstance(refused, TransferFailed)
    assert "changed while it was sent" in refused.message


def test_an_interrupt_does_not_wait_for_its_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts that are under way are given up between two pieces."""
    begun, given_up = threading.Event(), threading.Event()

    def slowly(_: UrlTransfers, sent: Part, stop: threading.Event) -> None:
        if sent.offset:
            begun.wait(20)
            raise KeyboardInterrupt
        begun.set()
        if stop.wait(20):
            given_up.set()

    monkeypatch.setattr(UrlTransfers, "_send", slowly)
    first = part(tmp_path, "http://127.0.0.1:1/k")
    with pytest.raises(KeyboardInterrupt):
        UrlTransfers(https_only=True).send([replace(first, offset=1), first], threading.Event())
    assert given_up.is_set()
