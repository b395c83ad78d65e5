"""A real `npn-server` in a process of its own, on free ports."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

START_SECONDS = 60.0
STOP_SECONDS = 30.0


@dataclass(kw_only=True)
class ServerProcess:
    """A running `npn-server`.  `address` and `metrics_address` are "host:port"."""

    process: subprocess.Popen[bytes]
    address: str
    metrics_address: str
    data_dir: Path
    log: Path

    def stop(self) -> int:
        """Send SIGTERM and return the exit code.  Fails when a process that it started lives on."""
        started = descendants(self.process.pid)
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(STOP_SECONDS)
            assert not alive(started), f"{alive(started)} outlived the server"
        finally:
            self.kill()
        return code

    def kill(self) -> None:
        """Kill the server; what it started dies with it."""
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            return
        self.process.wait(STOP_SECONDS)

    def warm(self) -> None:
        """Wait until its inspector is ready: before that a job may be created without being checked."""
        deadline = time.monotonic() + START_SECONDS
        while not any(line.get("event") == "inspector.ready" for line in self.log_lines()):
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.1)

    def log_lines(self) -> list[dict[str, object]]:
        """What the server logged so far."""
        return [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]


def descendants(root: int) -> set[int]:
    """Process ids of everything below a process; empty where there is no /proc."""
    parents: dict[int, int] = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parents[int(status.parent.name)] = int(status.read_text().rpartition(")")[2].split()[1])
    found: set[int] = set()
    newest = {root}
    while newest:
        newest = {process for process, parent in parents.items() if parent in newest}
        found |= newest
    return found


def alive(processes: set[int]) -> set[int]:
    """Those that run a second later: a killed process takes a moment to go."""
    deadline = time.monotonic() + 1.0
    while left := {process for process in processes if Path(f"/proc/{process}/exe").exists()}:
        if time.monotonic() > deadline:
            break
        time.sleep(0.02)
    return left


def launch_server(
    data_dir: Path, folder: Path, *, through: Sequence[str] = (), **settings: str
) -> ServerProcess:
    """Start `npn-server` on free ports and wait until it listens.

    `settings` are NPN_ variables without the prefix, lower case: `workers="0"`.  `folder` takes its log.
    `through` is a command that runs the one which follows it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    ready, log = folder / "ready.json", folder / "server.log"
    own = {
        "listen": "127.0.0.1:0",
        "metrics_listen": "127.0.0.1:0",
        "data_dir": str(data_dir),
        "log_format": "json",
    } | settings
    environment = {name: value for name, value in os.environ.items() if not name.startswith("NPN_")}
    environment |= {f"NPN_{name.upper()}": value for name, value in own.items()} | {"OMP_NUM_THREADS": "1"}
    with log.open("wb") as out:
        process = subprocess.Popen(
            [*through, sys.executable, "-m", "npn_service.main", "--ready-file", str(ready)],
            env=environment,
            cwd=folder,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    deadline = time.monotonic() + START_SECONDS
    while not ready.exists():
        if process.poll() is not None or time.monotonic() > deadline:
            os.killpg(process.pid, signal.SIGKILL) if process.poll() is None else None
            process.wait()
            raise RuntimeError(f"npn-server did not start:\n{log.read_text()}")
        time.sleep(0.02)
    bound = json.loads(ready.read_text())
    return ServerProcess(
        process=process,
        address=bound["address"],
        metrics_address=bound["metrics_address"],
        data_dir=data_dir,
        log=log,
    )
