"""rpc/transport.py and rpc/admission.py: what one connection, and all of them together, may ask."""

from pathlib import Path

import pytest

from npn_client import channel
from npn_service.errors import Unavailable
from npn_service.rpc.admission import Admission
from npn_service.rpc.transport import server_options
from npn_service.settings import Settings


def test_the_sdk_pings_less_often_than_the_server_allows() -> None:
    """Otherwise the server would end its connections with ENHANCE_YOUR_CALM."""
    server = dict(server_options(Settings(data_dir=Path("unused"))))
    client = dict(channel.options("localhost:50051"))
    assert client["grpc.keepalive_time_ms"] >= 2 * server["grpc.http2.min_ping_interval_without_data_ms"]
    assert client["grpc.http2.max_pings_without_data"] == 0
    assert server["grpc.keepalive_permit_without_calls"] == 1


def test_connections_end_when_they_are_old_or_never() -> None:
    """Calls that still run get as much time again; 0 sets no age."""
    old = dict(server_options(Settings(max_connection_age=60)))
    assert (old["grpc.max_connection_age_ms"], old["grpc.max_connection_age_grace_ms"]) == (60_000, 60_000)
    assert "grpc.max_connection_age_ms" not in dict(server_options(Settings(max_connection_age=0)))


def test_calls_and_watches_are_counted_apart() -> None:
    """What is above the limit is refused at once; what ends makes room, also when it fails."""
    admission = Admission(calls=1, watches=1)
    with admission.admit("GetJob"), admission.admit("WatchJob"):
        for method in ("ListJobs", "WatchJob"):
            with pytest.raises(Unavailable) as refused, admission.admit(method):
                pass
            assert refused.value.reason == "OVERLOADED"
    with pytest.raises(ZeroDivisionError), admission.admit("GetJob"):
        raise ZeroDivisionError
    with admission.admit("GetJob"):
        pass
