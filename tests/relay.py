"""A TCP relay whose connections break where a test says."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections import deque
from typing import Self
from urllib.parse import urlsplit


class Relay:
    """Passes bytes on to the server at a URL; `endpoint` is its own URL, `localhost` by name.

    `cuts` are numbers of bytes, both ways together, after which consecutive connections break; `passed` counts
    the bytes of all.  With `tls` callers speak that, and the server does not.
    """

    def __init__(self, url: str, tls: ssl.SSLContext | None = None) -> None:
        self._target = urlsplit(url)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._tls = tls
        self.endpoint = f"{'https' if tls else 'http'}://localhost:{self._listener.getsockname()[1]}"
        self.cuts: deque[int] = deque()
        self.passed = 0
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True, name="relay").start()
        return self

    def __exit__(self, *raised: object) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                caller, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(caller,), daemon=True).start()

    def _serve(self, caller: socket.socket) -> None:
        with self._lock:
            room = [self.cuts.popleft() if self.cuts else 1 << 62]
        if self._tls is not None:
            try:
                caller = self._tls.wrap_socket(caller, server_side=True)
            except OSError:  # it does not trust us
                return
        with caller, socket.create_connection((self._target.hostname, self._target.port)) as server:
            back = threading.Thread(target=self._pass, args=(server, caller, room), daemon=True)
            back.start()
            self._pass(caller, server, room)
            back.join()

    def _pass(self, source: socket.socket, target: socket.socket, room: list[int]) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                with self._lock:
                    data = data[: room[0]]
                    room[0] -= len(data)
                    self.passed += len(data)
                target.sendall(data)
                if room[0] <= 0:
                    break
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
