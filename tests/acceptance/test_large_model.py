"""A model of half a gigabyte through a real server: sent, interrupted, resumed, checked, never held whole."""

import hashlib
import selectors
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from server_process import ServerProcess, descendants
from torch import nn

from npn_client import Budget, Client, ModelArchive
from npn_client.exporting import prepare

pytestmark = pytest.mark.slow

WIDTH, LAYERS, CLASSES = 4096, 8, 2
PARAMS = LAYERS * (WIDTH * WIDTH + WIDTH) + WIDTH * CLASSES + CLASSES
CUTS = (120 << 20, 90 << 20, 200 << 20)  # bytes after which consecutive connections break
MOST_GROWTH = 250 << 20


class Proxy:
    """Forwards TCP connections to `target`; each of the first ones is cut after so many bytes from the client."""

    def __init__(self, target: str, cuts: tuple[int, ...]) -> None:
        self._target = target
        self._cuts = list(cuts)
        self.made = 0
        self.sent = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Take no more connections."""
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self.made += 1
            cut = self._cuts.pop(0) if self._cuts else None
            threading.Thread(target=self._forward, args=(client, cut), daemon=True).start()

    def _forward(self, client: socket.socket, cut: int | None) -> None:
        host, _, port = self._target.rpartition(":")
        passed = 0
        with (
            client,
            socket.create_connection((host, int(port))) as server,
            selectors.DefaultSelector() as ready,
        ):
            ready.register(client, selectors.EVENT_READ, server)
            ready.register(server, selectors.EVENT_READ, client)
            while cut is None or passed < cut:
                for key, _ in ready.select():
                    source, sink = key.fileobj, key.data
                    assert isinstance(source, socket.socket)
                    data = source.recv(1 << 18)
                    if not data:
                        return
                    sink.sendall(data)
                    if source is client:
                        passed += len(data)
                        self.sent += len(data)


def memory(pid: int) -> dict[str, int]:
    """The Vm and Rss lines of a process's status, in bytes; empty once it is gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return {}
    return {
        line.split(":")[0]: int(line.split()[1]) << 10 for line in lines if line.startswith(("Vm", "Rss"))
    }


@contextmanager
def watched(pids: set[int]) -> Iterator[dict[int, int]]:
    """The largest anonymous memory of each process meanwhile, in bytes: file pages are the system's cache."""
    largest = dict.fromkeys(pids, 0)
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.02):
            for pid in pids:
                largest[pid] = max(largest[pid], memory(pid).get("RssAnon", 0))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield largest
    finally:
        over.set()
        thread.join()


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A stack of wide linear layers, exported by the SDK."""
    layers: list[nn.Module] = []
    for _ in range(LAYERS):
        layers += [nn.Linear(WIDTH, WIDTH), nn.ReLU()]
    archive = prepare(nn.Sequential(*layers, nn.Linear(WIDTH, CLASSES)), torch.zeros(2, WIDTH), tmp_path)
    assert isinstance(archive, ModelArchive)
    assert archive.local_path is not None
    return archive.local_path


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """A few samples."""
    path = tmp_path / "data.npz"
    arrays = {}
    for split, size in (("train", 40), ("test", 10)):
        arrays[f"x_{split}"] = np.zeros((size, WIDTH), dtype=np.float32)
        arrays[f"y_{split}"] = np.arange(size) % CLASSES
    np.savez(path, **arrays)
    return path


def test_half_a_gigabyte(start_server: Callable[..., ServerProcess], model: Path, dataset: Path) -> None:
    """Three broken connections cost no byte twice, and the server's memory hardly grows."""
    size = model.stat().st_size
    assert size >= 500_000_000
    server = start_server()
    server.warm()
    proxy = Proxy(server.address, CUTS)
    with Client(server.address) as client:  # what its first use takes is taken afterwards
        client.plan("mlp", dataset=dataset, budget=Budget(max_params=100_000))
    before = memory(server.process.pid)
    with watched({server.process.pid, *descendants(server.process.pid)}) as largest:
        started_at = dict(largest) | {pid: memory(pid).get("RssAnon", 0) for pid in largest}
        started = time.monotonic()
        with Client(proxy.address) as client:
            plan = client.plan(str(model), dataset=dataset, budget=Budget(max_params=PARAMS // 2))
        seconds = time.monotonic() - started
    proxy.close()
    growth = memory(server.process.pid)["VmHWM"] - before["VmRSS"]
    others = max(largest[pid] - started_at[pid] for pid in largest if pid != server.process.pid)
    print(
        f"\nfile {size:,} bytes; {proxy.made} connections, {proxy.sent:,} bytes sent; {seconds:.1f} s with the "
        f"check; server: resident {before['VmRSS'] >> 20} MiB before, peak {growth / 2**20:.0f} MiB above that; "
        f"inspector and workers: anonymous memory at most {others / 2**20:.0f} MiB above the start"
    )
    assert plan.dense.params == PARAMS
    assert proxy.made > len(CUTS)
    assert proxy.sent < size * 1.05 + (len(CUTS) << 20) * 8  # what was under way when a connection broke
    assert growth < MOST_GROWTH
    assert others < MOST_GROWTH
    (stored,) = (server.data_dir / "objects/keys/objects").rglob("model.pt2")
    assert digest(stored) == digest(model)


def digest(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
