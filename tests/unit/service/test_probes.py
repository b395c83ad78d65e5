"""probes.py: what Kubernetes and Prometheus ask."""

import socket
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from npn_service.metrics import Metrics
from npn_service.probes import ProbeServer


@pytest.fixture
def probes() -> Iterator[ProbeServer]:
    """A probe server on a free port."""
    server = ProbeServer("127.0.0.1", 0)
    yield server
    server.close()


def ask(probes: ProbeServer, path: str) -> tuple[int, str]:
    """Status and text of an answer."""
    try:
        with urllib.request.urlopen(f"http://{probes.address}{path}", timeout=30) as answer:
            return answer.status, answer.read().decode().strip()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode().strip()


def test_a_server_is_alive_from_the_first_moment(probes: ProbeServer) -> None:
    """Liveness asks for nothing but an answer."""
    assert ask(probes, "/livez") == (200, "alive")
    probes.drain()
    assert ask(probes, "/livez") == (200, "alive")


def test_ready_is_between_the_start_and_the_drain(probes: ProbeServer) -> None:
    """Callers are sent here only while it serves, and the answer says why not."""
    assert ask(probes, "/readyz") == (503, "starting")
    probes.ready()
    assert ask(probes, "/readyz") == (200, "ready")
    probes.drain()
    assert ask(probes, "/readyz") == (503, "draining")


def test_scrapes_are_answered_over_http(probes: ProbeServer) -> None:
    """The endpoint speaks the exposition format, once there is something to tell."""
    assert ask(probes, "/metrics") == (503, "starting")
    probes.expose(Metrics(dict).registry)
    status, text = ask(probes, "/metrics")
    assert status == 200
    assert {"npn_jobs", "process_cpu_seconds", "python_info"} <= {
        family.name for family in text_string_to_metric_families(text + "\n")
    }


def test_other_paths_are_not_there(probes: ProbeServer) -> None:
    """The answer says which are."""
    probes.expose(CollectorRegistry())
    assert ask(probes, "/") == (404, "ask /livez, /readyz or /metrics")


def test_silent_callers_keep_nobody_waiting(probes: ProbeServer) -> None:
    """Connections that say nothing do not hold up the probe that comes after them."""
    host, _, port = probes.address.rpartition(":")
    silent = [socket.create_connection((host, int(port))) for _ in range(20)]
    assert ask(probes, "/livez") == (200, "alive")
    for connection in silent:
        connection.close()
