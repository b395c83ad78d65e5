"""How a client reaches its server.  Shared by Client and AsyncClient."""

from pathlib import Path

import grpc

from . import retry

MAX_MESSAGE_BYTES = 16 << 20


def options() -> list[tuple[str, str | int]]:
    """Channel options: retries, and quick reconnection after a server's restart."""
    return [
        ("grpc.service_config", retry.service_config()),
        ("grpc.initial_reconnect_backoff_ms", 200),
        ("grpc.max_reconnect_backoff_ms", 3000),
        ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ]


def credentials(tls: bool | str | Path) -> grpc.ChannelCredentials | None:
    """None for plain text; the system's authorities for True; those of a PEM file for its path."""
    if tls is False:
        return None
    secure: grpc.ChannelCredentials = grpc.ssl_channel_credentials(
        None if tls is True else Path(tls).read_bytes()
    )
    return secure


def metadata(token: str | None) -> tuple[tuple[str, str], ...]:
    """The headers of every call."""
    return (("authorization", f"Bearer {token}"),) if token else ()
