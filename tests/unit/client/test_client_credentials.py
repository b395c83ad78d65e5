"""credentials.py: where a token may travel, and what a header holds."""

import asyncio
from pathlib import Path

import pytest

from npn_client import AsyncClient, Client, InvalidArgument, Tls
from npn_client.credentials import headers, is_local

LOCAL = (
    "localhost:50051",
    "localhost",
    "127.0.0.1:50051",
    "127.8.8.8:1",
    "[::1]:50051",
    "::1",
    "dns:///localhost:50051",
    "dns:localhost:50051",
    "ipv4:127.0.0.1:1,127.0.0.2:1",
    "ipv6:[::1]:50051",
    "unix:/run/npn.sock",
    "unix:///run/npn.sock",
    "unix-abstract:npn",
)
REMOTE = (
    "example.org:50051",
    "example.org",
    "10.0.0.1:50051",
    "0.0.0.0:50051",
    "[2001:db8::1]:50051",
    "localhost.example.org:1",
    "127.0.0.1.example.org:1",
    "dns:///example.org:50051",
    "dns://127.0.0.1/example.org:50051",
    "ipv4:127.0.0.1:1,10.0.0.1:1",
    "xds:///npn",
)


@pytest.mark.parametrize("target", LOCAL)
def test_sockets_of_this_machine_are_local(target: str) -> None:
    """Loopback and Unix sockets, in every form that gRPC takes."""
    assert is_local(target)


@pytest.mark.parametrize("target", REMOTE)
def test_a_token_is_not_sent_in_plain_text(target: str) -> None:
    """Both clients refuse before there is a connection, name the fix, and do not show the token."""

    async def open_async() -> None:
        AsyncClient(target, token="npn_secret")

    for attempt in (lambda: Client(target, token="npn_secret"), lambda: asyncio.run(open_async())):
        with pytest.raises(InvalidArgument) as caught:
            attempt()
        assert "tls=True" in caught.value.message
        assert "npn_secret" not in str(caught.value)


def test_tls_or_no_token_goes_anywhere() -> None:
    """Encryption makes the token safe; without one there is nothing to keep."""
    Client("example.org:50051", token="npn_secret", tls=True).close()
    Client("example.org:50051", token="npn_secret", tls=Tls()).close()
    Client("example.org:50051").close()


def test_a_token_file_is_read_for_each_call(tmp_path: Path) -> None:
    """What rotates the file is taken up without a new client."""
    file = tmp_path / "token"
    file.write_text("first\n")
    assert headers(file) == (("authorization", "Bearer first"),)
    file.write_text("second")
    assert headers(file) == (("authorization", "Bearer second"),)
    file.unlink()
    with pytest.raises(InvalidArgument, match="cannot be read"):
        headers(file)


@pytest.mark.parametrize("token", ["", "a b", "a\nb", "ä"])
def test_what_is_no_token_is_refused_unseen(token: str) -> None:
    """A header that gRPC would choke on is explained, and not shown."""
    with pytest.raises(InvalidArgument) as caught:
        Client(token=token)
    assert token not in caught.value.message or not token


def test_half_a_client_certificate_is_refused() -> None:
    """A certificate without its key proves nothing."""
    with pytest.raises(InvalidArgument, match="go together"):
        Tls(cert_file="client.crt")
