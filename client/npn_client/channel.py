"""How a client reaches its server.  Shared by Client and AsyncClient."""

from . import retry
from .credentials import is_local

MAX_MESSAGE_BYTES = 16 << 20
# A server that does not answer a ping in time is gone, whatever TCP thinks.
KEEPALIVE_SECONDS = 30.0
KEEPALIVE_TIMEOUT_SECONDS = 20.0


def options(target: str) -> list[tuple[str, str | int]]:
    """Channel options: retries, quick reconnection after a server's restart, and pings while a call waits.

    The server allows a ping every ten seconds.  A proxy of the environment is not asked for this machine: it would
    see the calls, tokens included.
    """
    return [
        ("grpc.service_config", retry.service_config()),
        ("grpc.initial_reconnect_backoff_ms", 200),
        ("grpc.max_reconnect_backoff_ms", 3000),
        ("grpc.keepalive_time_ms", round(1e3 * KEEPALIVE_SECONDS)),
        ("grpc.keepalive_timeout_ms", round(1e3 * KEEPALIVE_TIMEOUT_SECONDS)),
        ("grpc.http2.max_pings_without_data", 0),  # a watch sends nothing for hours
        ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
        ("grpc.enable_http_proxy", 0 if is_local(target) else 1),
    ]
