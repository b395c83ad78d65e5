"""How a client proves who it is, and that it talks to the right server.  Shared by Client and AsyncClient.

A token goes over TLS, or to this machine; it is never sent in plain text over a network.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from pathlib import Path

import grpc

from .errors import InvalidArgument

_LOCAL_SCHEMES = ("unix:", "unix-abstract:")
_ADDRESS_SCHEMES = ("dns", "ipv4", "ipv6")


@dataclass(frozen=True, kw_only=True, slots=True)
class Tls:
    """An encrypted connection; all are paths of PEM files.

    `ca_file` has the authorities to trust, the system's when absent.  `cert_file` and `key_file` are this
    client's own certificate, for servers that ask for one.
    """

    ca_file: str | Path | None = None
    cert_file: str | Path | None = None
    key_file: str | Path | None = None

    def __post_init__(self) -> None:
        if (self.cert_file is None) != (self.key_file is None):
            raise InvalidArgument.of("tls", "cert_file and key_file go together; one of them is missing")

    def credentials(self) -> grpc.ChannelCredentials:
        """What gRPC connects with.  Raises OSError where a file cannot be read."""
        credentials: grpc.ChannelCredentials = grpc.ssl_channel_credentials(
            root_certificates=_read(self.ca_file),
            private_key=_read(self.key_file),
            certificate_chain=_read(self.cert_file),
        )
        return credentials


def tls_of(tls: bool | str | Path | Tls) -> Tls | None:
    """None for plain text; True means the system's authorities, a path those of a PEM file."""
    if isinstance(tls, Tls):
        return tls
    if isinstance(tls, bool):
        return Tls() if tls else None
    return Tls(ca_file=tls)


def check_token(target: str, token: str | Path | None, tls: Tls | None) -> None:
    """Raises InvalidArgument where a token would travel in plain text, or is none."""
    if token is None:
        return
    if tls is None and not is_local(target):
        raise InvalidArgument.of(
            "token",
            f"a token is not sent to {target} in plain text; set tls=True (--tls), or tls=PATH (--tls-ca PATH) "
            "for an authority of your own",
        )
    if isinstance(token, str):
        headers(token)


def headers(token: str | Path | None) -> tuple[tuple[str, str], ...]:
    """The headers of a call.  A path is read for each, so that a token that is rotated there is taken up.

    Raises InvalidArgument, which never shows the token.
    """
    if token is None:
        return ()
    try:
        text = token.read_text().strip() if isinstance(token, Path) else token
    except (OSError, ValueError) as error:
        raise InvalidArgument.of("token", f"the token file {token} cannot be read: {error}") from error
    if not text or not text.isascii() or not text.isprintable() or " " in text:
        raise InvalidArgument.of("token", "the token is empty, or holds characters that no token has")
    return (("authorization", f"Bearer {text}"),)


def is_local(target: str) -> bool:
    """Whether a gRPC target is a socket of this machine: loopback addresses alone, or a Unix socket."""
    if target.startswith(_LOCAL_SCHEMES):
        return True
    scheme, _, rest = target.partition(":")
    addresses = rest.rpartition("/")[2] if scheme in _ADDRESS_SCHEMES else target
    return all(_is_loopback(address) for address in addresses.split(","))


def _is_loopback(address: str) -> bool:
    if address.startswith("["):
        host = address[1:].partition("]")[0]
    else:  # more than one colon is an IPv6 address without a port
        host = address.partition(":")[0] if address.count(":") == 1 else address
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _read(path: str | Path | None) -> bytes | None:
    return None if path is None else Path(path).read_bytes()
