"""What Kubernetes and Prometheus ask over HTTP, on a port of its own: the kubelet's gRPC probe speaks no TLS.

/livez     200 as long as this process answers; depends on nothing else
/readyz    200 while calls should come here; 503 with the reason while starting and draining.  Storage that is
           away changes nothing: another replica would have no other
/metrics   Prometheus text
"""

import threading
from collections.abc import Callable, Iterable
from http import HTTPStatus
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import CollectorRegistry, make_wsgi_app

_App = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]

STARTING = "starting"
DRAINING = "draining"


class ProbeServer:
    """Answers at "host:port" from threads, until it is closed.  Raises OSError when the port is taken.

    `not_ready` says why no calls should come here; empty when they should.
    """

    def __init__(self, host: str, port: int) -> None:
        self.not_ready = STARTING
        self._metrics: _App | None = None
        self._server = make_server(host, port, self._answer, _ThreadingServer, _Handler)
        self.address = "{}:{}".format(*self._server.server_address[:2])
        threading.Thread(target=self._server.serve_forever, name="probes", daemon=True).start()

    def expose(self, registry: CollectorRegistry) -> None:
        """Answer scrapes from now on."""
        self._metrics = make_wsgi_app(registry)

    def ready(self) -> None:
        """Calls may come."""
        self.not_ready = ""

    def drain(self) -> None:
        """No more calls should come."""
        self.not_ready = DRAINING

    def close(self) -> None:
        """Stop answering."""
        self._server.shutdown()
        self._server.server_close()

    def _answer(self, environment: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        match environment.get("PATH_INFO"):
            case "/livez":
                return _say(start, HTTPStatus.OK, "alive")
            case "/readyz" if self.not_ready:
                return _say(start, HTTPStatus.SERVICE_UNAVAILABLE, self.not_ready)
            case "/readyz":
                return _say(start, HTTPStatus.OK, "ready")
            case "/metrics" if self._metrics is not None:
                return self._metrics(environment, start)
            case "/metrics":
                return _say(start, HTTPStatus.SERVICE_UNAVAILABLE, STARTING)
        return _say(start, HTTPStatus.NOT_FOUND, "ask /livez, /readyz or /metrics")


def _say(start: Callable[..., Any], status: HTTPStatus, text: str) -> Iterable[bytes]:
    start(f"{status.value} {status.phrase}", [("Content-Type", "text/plain; charset=utf-8")])
    return [f"{text}\n".encode()]


class _ThreadingServer(ThreadingMixIn, WSGIServer):
    daemon_threads = True
    request_queue_size = 64


class _Handler(WSGIRequestHandler):
    timeout = 10  # seconds that a caller may be silent; a thread is bound as long

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: probes come every few seconds."""
