"""Callers that make mistakes or mean harm: the server answers as documented, and goes on as before."""

import ast
import re
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from abuse import ELSEWHERE, abuse, documented, faults, launch_victim
from abuse.raw import GOAWAY, frame, hello
from server_process import ServerProcess
from wire import SECONDS

import npn_core
import npn_service

REQUESTS = 2000


@pytest.mark.timeout(900)  # half a minute on a machine that does nothing else
def test_two_thousand_requests_of_every_bad_kind(
    start_server: Callable[..., ServerProcess], tmp_path: Path
) -> None:
    """Documented codes alone, every reason in reach, a fifth OK, no traceback in the log, no process lost."""
    victim = launch_victim(start_server, tmp_path)
    tally = abuse(victim, REQUESTS, number=1)
    assert tally.requests >= REQUESTS
    assert not faults(victim, tally), tally.tell()
    assert psutil.Process(victim.server.process.pid).num_fds() < 500
    assert victim.server.stop() == 0


# Constants that are spelled like a reason and are none.
NO_REASONS = re.compile(
    "(NPN|OMP|GRPC|CUDA|ARROW|LD)_.*|PATH_INFO|UNAUTHENTICATED|PERMISSION_DENIED"  # variables, WSGI, codes
)


def reasons_in(source: ast.AST) -> Iterator[str]:
    """What a module gives as a reason by that name, and every constant of several words in capitals."""
    for node in ast.walk(source):
        match node:
            case ast.keyword(arg="reason", value=ast.Constant(value=str(reason))):
                yield reason
            case ast.Assign(targets=[ast.Name(id="reason")], value=ast.Constant(value=str(reason))):
                yield reason
            case ast.Constant(value=str(text)) if re.fullmatch(r"[A-Z]+(_[A-Z0-9]+)+", text):
                yield text


def test_the_error_table_is_whole() -> None:
    """Every reason in the code is in docs/api.md, and nothing else is."""
    files = [path for package in (npn_core, npn_service) for path in Path(package.__path__[0]).rglob("*.py")]
    given = {reason for path in files for reason in reasons_in(ast.parse(path.read_text()))}
    given = {reason for reason in given if reason.isupper() and not NO_REASONS.fullmatch(reason)}
    assert given == set().union(*documented().values())


def test_strangers_write_nothing_into_the_log(start_server: Callable[..., ServerProcess]) -> None:
    """What a peer says when it leaves does not become a line of ours."""
    server = start_server(workers="0")
    host, _, port = server.address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=SECONDS) as peer:
        peer.sendall(hello() + frame(GOAWAY, 0, 0, bytes(8) + b'\n{"event": "forged"}\n'))
        peer.shutdown(socket.SHUT_WR)
        while peer.recv(1 << 16):  # until the server has read all of it and hangs up
            pass
    assert server.stop() == 0
    assert "forged" not in server.log.read_text()


def test_every_reason_elsewhere_is_documented() -> None:
    """The list of what is out of reach names reasons that exist."""
    assert set(ELSEWHERE) <= set().union(*documented().values())
