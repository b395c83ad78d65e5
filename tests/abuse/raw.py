"""Bytes at the socket that are no HTTP/2, broken HTTP/2, or HTTP/2 around broken gRPC."""

import contextlib
import random
import socket
import struct
from collections.abc import Callable

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY = 0, 1, 3, 4, 6, 7
END_STREAM, END_HEADERS = 1, 4
METHODS = ("GetJob", "CreateJob", "WatchJob", "WriteObject", "Dream")


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """An HTTP/2 frame."""
    return len(payload).to_bytes(3) + bytes([kind, flags]) + struct.pack("!I", stream) + payload


def hello() -> bytes:
    """How a connection begins."""
    return PREFACE + frame(SETTINGS, 0, 0, b"")


def field(name: bytes, value: bytes) -> bytes:
    """A header as HPACK writes it without any compression."""
    return b"\0" + _length(len(name)) + name + _length(len(value)) + value


def _length(number: int) -> bytes:
    if number < 127:
        return bytes([number])
    rest, out = number - 127, bytearray([127])
    while rest >= 128:
        out.append(128 + rest % 128)
        rest //= 128
    return bytes([*out, rest])


def call(method: str, message: bytes, *extra: bytes, stream: int = 1, end: bool = True) -> bytes:
    """A call, with more headers if they are given."""
    headers = b"".join(
        [
            field(b":method", b"POST"),
            field(b":scheme", b"http"),
            field(b":path", f"/npn.v1.CompressionService/{method}".encode()),
            field(b":authority", b"localhost"),
            field(b"content-type", b"application/grpc"),
            field(b"te", b"trailers"),
            *extra,
        ]
    )
    return frame(HEADERS, END_HEADERS, stream, headers) + frame(
        DATA, END_STREAM if end else 0, stream, message
    )


def noise(by: random.Random) -> bytes:
    """Bytes without meaning."""
    return by.randbytes(by.randrange(1, 4096))


def http1(by: random.Random) -> bytes:
    """Somebody who takes the port for a web server."""
    path = "/" * by.randrange(1, 2000)
    return f"{by.choice(['GET', 'POST', 'CONNECT'])} {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode()


def broken_frame(by: random.Random) -> bytes:
    """A frame of any kind with any flags and any payload."""
    return hello() + frame(by.randrange(16), by.randrange(256), by.randrange(1 << 31), noise(by))


def huge_frame(by: random.Random) -> bytes:
    """A frame that announces more than it may have."""
    return hello() + b"\xff\xff\xff" + bytes([by.randrange(10), 0]) + struct.pack("!I", 1) + noise(by)


def cut_off(by: random.Random) -> bytes:
    """A call of which a part arrives."""
    whole = hello() + call(by.choice(METHODS), b"\0\0\0\0\x05hello")
    return whole[: by.randrange(len(whole))]


def broken_prefix(by: random.Random) -> bytes:
    """A message whose length, or whose compression flag, is not true."""
    flag, size = by.choice([0, 1, 255]), by.choice([0, 4, 6, 1 << 20, (1 << 32) - 1])
    return hello() + call(by.choice(METHODS), bytes([flag]) + struct.pack("!I", size) + b"hello")


def large_metadata(by: random.Random) -> bytes:
    """Headers beyond any limit."""
    more = [field(f"x-{number}".encode(), b"v" * 1000) for number in range(by.randrange(1, 40))]
    return hello() + call("GetJob", b"\0\0\0\0\0", *more)


def odd_metadata(by: random.Random) -> bytes:
    """Headers that gRPC reads, with values that it cannot."""
    name = by.choice(
        [b"grpc-timeout", b"grpc-encoding", b"content-type", b"x-bin", b"authorization", b":path"]
    )
    return hello() + call("GetJob", b"\0\0\0\0\0", field(name, noise(by)[:200]))


def storm(by: random.Random) -> bytes:
    """Calls that are taken back at once, or whose time is over before they begin."""
    if by.random() < 0.5:
        one = (
            call("GetJob", b"\0\0\0\0\0", stream=stream) + frame(RST_STREAM, 0, stream, struct.pack("!I", 8))
            for stream in range(1, 100, 2)
        )
    else:
        late = field(b"grpc-timeout", b"1n")
        one = (call("WatchJob", b"\0\0\0\0\0", late, stream=stream) for stream in range(1, 60, 2))
    return hello() + b"".join(one)


def pings(by: random.Random) -> bytes:
    """More pings than anybody needs."""
    return hello() + frame(PING, 0, 0, bytes(8)) * by.randrange(1, 100)


def goodbye(by: random.Random) -> bytes:
    """A caller that leaves with words of its own, perhaps a line for the log."""
    words = by.choice([noise(by), b'\n{"level": "error", "event": "forged"}\n'])
    return hello() + frame(GOAWAY, 0, 0, struct.pack("!II", 0, by.randrange(1 << 32)) + words)


def half_closed(by: random.Random) -> bytes:
    """A stream whose other half never ends."""
    return hello() + call(by.choice(METHODS), b"\0\0\0\0\0", end=False)


KINDS: tuple[Callable[[random.Random], bytes], ...] = (
    noise,
    http1,
    broken_frame,
    huge_frame,
    cut_off,
    broken_prefix,
    large_metadata,
    odd_metadata,
    storm,
    pings,
    goodbye,
    half_closed,
)


class Attacker:
    """Sends such bytes; a part of the connections stays open, as those of idle or vanished callers do."""

    def __init__(self, address: str, by: random.Random, *, held: int = 50) -> None:
        host, _, port = address.rpartition(":")
        self._address, self._by, self._held = (host, int(port)), by, held
        self._open: list[socket.socket] = []

    def send(self) -> None:
        """One connection with bytes of one kind."""
        by = self._by
        connection = socket.create_connection(self._address, timeout=30)
        self._open.append(connection)
        with contextlib.suppress(OSError):  # the server may hang up in the middle
            connection.sendall(by.choice(KINDS)(by))
            end = by.randrange(4)
            if end == 0:
                connection.shutdown(socket.SHUT_WR)
            if end == 1:
                connection.settimeout(0.01)
                connection.recv(1 << 16)
            if end == 2:  # a reset instead of a goodbye
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self._open.remove(connection)
                connection.close()
        while len(self._open) > self._held:
            self._open.pop(by.randrange(len(self._open))).close()

    def close(self) -> None:
        """Let go of every connection."""
        for connection in self._open:
            connection.close()
