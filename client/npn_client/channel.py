"""How a client reaches its server.  Shared by Client and AsyncClient."""

from . import retry
from .credentials import is_local

MAX_MESSAGE_BYTES = 16 << 20


def options(target: str) -> list[tuple[str, str | int]]:
    """Channel options: retries, and quick reconnection after a server's restart.

    A proxy of the environment is not asked for this machine: it would see the calls, tokens included.
    """
    return [
        ("grpc.service_config", retry.service_config()),
        ("grpc.initial_reconnect_backoff_ms", 200),
        ("grpc.max_reconnect_backoff_ms", 3000),
        ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
        ("grpc.enable_http_proxy", 0 if is_local(target) else 1),
    ]
