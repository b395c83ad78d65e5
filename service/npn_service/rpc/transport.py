"""How the server's connections behave: what keeps them alive, what ends them, what one of them may ask."""

from npn_service.settings import Settings

# A peer that answers no ping is gone, whatever TCP thinks.
KEEPALIVE_SECONDS = 60.0
KEEPALIVE_TIMEOUT_SECONDS = 20.0
# Callers may ping this often, with and without calls; more gets GOAWAY (ENHANCE_YOUR_CALM).  The SDK pings
# every 30 seconds.
MIN_PING_SECONDS = 10.0
# TCP connections that never become HTTP/2 end after this time.
HANDSHAKE_SECONDS = 10.0
# Calls and watches at a time on one connection.  More of them wait at the client, or are reset (UNAVAILABLE) where
# it opened them before it knew; so it is well above what one client does.
STREAMS_PER_CONNECTION = 1024


def server_options(settings: Settings) -> list[tuple[str, int]]:
    """Options of the gRPC server."""
    options = {
        "grpc.max_receive_message_length": settings.max_message_bytes,
        "grpc.max_send_message_length": -1,  # the caller's own limit decides what it takes
        "grpc.so_reuseport": 0,  # a second server on the port must fail, not share its calls
        "grpc.keepalive_time_ms": _milliseconds(KEEPALIVE_SECONDS),
        "grpc.keepalive_timeout_ms": _milliseconds(KEEPALIVE_TIMEOUT_SECONDS),
        "grpc.keepalive_permit_without_calls": 1,
        "grpc.http2.min_ping_interval_without_data_ms": _milliseconds(MIN_PING_SECONDS),
        "grpc.server_handshake_timeout_ms": _milliseconds(HANDSHAKE_SECONDS),
        "grpc.max_concurrent_streams": STREAMS_PER_CONNECTION,
    }
    if settings.max_connection_age:
        # gRPC spreads the age by a tenth; what still runs gets the same time again, then it is cut and resumed
        options["grpc.max_connection_age_ms"] = _milliseconds(settings.max_connection_age)
        options["grpc.max_connection_age_grace_ms"] = _milliseconds(settings.max_connection_age)
    return list(options.items())


def _milliseconds(seconds: float) -> int:
    return round(1e3 * seconds)
