"""A real S3 server for tests and trials: OpenStack Swift with its s3api, in a Python environment of its own.

    python scripts/start_s3.py FOLDER [--port 9000]     serves until SIGTERM or Ctrl-C, data under FOLDER
    python scripts/start_s3.py --install                only prepares the environment, `.venv/s3`

Needs no docker and no privileges.  FOLDER lies on a file system with extended attributes (ext4, xfs, btrfs).
The keys are public: this is no server to store anything in.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import getpass
import json
import random
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

SWIFT = "swift==2.38.3"
ENVIRONMENT = Path(__file__).parents[1] / ".venv" / "s3"
ACCESS_KEY, SECRET_KEY = "ci:minio", "ci-secret-key"
REGION = "us-east-1"
START_SECONDS = 60.0
STORAGE = ("account", "container", "object")

# Linux: the thread that started a server takes it along, so that a killed test run leaves nothing behind.  Not as a
# `preexec_fn`: that runs between fork and exec, where gRPC's handlers for forks can hang in a test that uses it.
DIE_WITH_PARENT = """\
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGKILL)
os.execv(sys.argv[1], sys.argv[1:])
"""

COMMON = """\
[DEFAULT]
swift_dir = {folder}
devices = {folder}/devices
mount_check = false
bind_ip = 127.0.0.1
bind_port = {port}
user = {user}
workers = 0
log_level = WARNING
"""
# The timeouts are long because test machines are busy: a storage server that is slow is not away.
STORAGE_SERVER = """\
[pipeline:main]
pipeline = {kind}-server
[app:{kind}-server]
use = egg:swift#{kind}
conn_timeout = 5
node_timeout = 60
container_update_timeout = 60
"""
PROXY_SERVER = """\
[pipeline:main]
pipeline = healthcheck s3api tempauth bulk slo versioned_writes symlink proxy-server
[app:proxy-server]
use = egg:swift#proxy
account_autocreate = true
conn_timeout = 5
node_timeout = 60
error_suppression_limit = 1000000
[filter:healthcheck]
use = egg:swift#healthcheck
[filter:s3api]
use = egg:swift#s3api
max_upload_part_num = 10000
[filter:tempauth]
use = egg:swift#tempauth
user_{user} = {secret} .admin
[filter:bulk]
use = egg:swift#bulk
[filter:slo]
use = egg:swift#slo
max_manifest_segments = 10000
allow_async_delete = false
[filter:versioned_writes]
use = egg:swift#versioned_writes
allow_object_versioning = true
[filter:symlink]
use = egg:swift#symlink
"""
# Runs in the server's environment: one device that holds everything once.
RINGS = """\
import json, sys
from swift.common.ring import RingBuilder
for kind, port in json.loads(sys.argv[2]).items():
    builder = RingBuilder(part_power=4, replicas=1, min_part_hours=0)
    device = {"region": 1, "zone": 1, "ip": "127.0.0.1", "port": port, "device": "d1", "weight": 1.0}
    builder.add_dev(device | {"replication_ip": "127.0.0.1", "replication_port": port, "meta": ""})
    builder.rebalance()
    builder.get_ring().save(f"{sys.argv[1]}/{kind}.ring.gz")
"""


class S3Server:
    """A running server; `endpoint` is its URL.  A context manager.

    `stop_proxy` closes the port that clients see and `start_proxy` opens it again; the data stay.
    """

    def __init__(self, folder: Path, port: int = 0) -> None:
        self._folder = folder.resolve()
        self._folder.mkdir(parents=True, exist_ok=True)
        self._port = _claim(port) if port else free_port()
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self.endpoint = f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        """Start every process and wait until the server answers.  Raises RuntimeError with its log."""
        install()
        (self._folder / "devices" / "d1").mkdir(parents=True, exist_ok=True)
        (self._folder / "swift.conf").write_text(
            "[swift-hash]\nswift_hash_path_suffix = s3\nswift_hash_path_prefix = s3\n"
        )
        ports = {kind: free_port() for kind in STORAGE}
        self._make_rings(ports)
        for kind, port in ports.items():
            self._configure(kind, port, STORAGE_SERVER.format(kind=kind))
            self._launch(kind)
        self._configure(
            "proxy", self._port, PROXY_SERVER.format(user=ACCESS_KEY.replace(":", "_"), secret=SECRET_KEY)
        )
        self.start_proxy()

    def start_proxy(self) -> None:
        """Open the port, and wait until the server answers.  It ends with the thread that calls this."""
        self._launch("proxy")
        deadline = time.monotonic() + START_SECONDS
        while not self._answers():
            if time.monotonic() > deadline or not self._runs():
                self.stop()
                logs = [path.read_text()[-2000:] for path in sorted(self._folder.glob("*.log"))]
                raise RuntimeError("\n".join(["the S3 server did not start:", *logs]))
            time.sleep(0.1)

    def stop_proxy(self) -> None:
        """Close the port: connections are refused."""
        _end(self._processes["proxy"])

    def pause_proxy(self) -> None:
        """Hang: connections are taken, and nothing is answered, until `resume_proxy`."""
        self._processes["proxy"].send_signal(signal.SIGSTOP)

    def resume_proxy(self) -> None:
        """Answer again."""
        self._processes["proxy"].send_signal(signal.SIGCONT)

    def stop(self) -> None:
        """End every process."""
        for process in self._processes.values():
            _end(process)

    def wait(self) -> None:
        """Until a process ends."""
        while self._runs():
            time.sleep(0.5)

    def __enter__(self) -> S3Server:
        self.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self.stop()

    def _runs(self) -> bool:
        return all(process.poll() is None for process in self._processes.values())

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.endpoint}/healthcheck", timeout=5):  # noqa: S310 - a fixed scheme
                return True
        except OSError:
            return False

    def _make_rings(self, ports: dict[str, int]) -> None:
        """Where each kind of data lies; the rings hold the ports, so they are made anew at every start."""
        program: list[str | Path] = [
            ENVIRONMENT / "bin" / "python",
            "-c",
            RINGS,
            self._folder,
            json.dumps(ports),
        ]
        subprocess.run(program, check=True)

    def _configure(self, kind: str, port: int, rest: str) -> None:
        head = COMMON.format(folder=self._folder, port=port, user=getpass.getuser())
        (self._folder / f"{kind}.conf").write_text(head + rest)

    def _launch(self, kind: str) -> None:
        server = ENVIRONMENT / "bin" / f"swift-{kind}-server"
        with (self._folder / f"{kind}.log").open("ab") as log:
            self._processes[kind] = subprocess.Popen(
                [sys.executable, "-c", DIE_WITH_PARENT, server, self._folder / f"{kind}.conf", "-v"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )


def install() -> None:
    """Make the environment, once; processes that come at the same time wait for the first."""
    done = ENVIRONMENT / f"{SWIFT}.installed"
    if done.exists():
        return
    ENVIRONMENT.parent.mkdir(exist_ok=True)
    with (ENVIRONMENT.parent / "s3.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if done.exists():
            return
        subprocess.run([sys.executable, "-m", "venv", "--clear", ENVIRONMENT], check=True)
        subprocess.run([ENVIRONMENT / "bin" / "python", "-m", "pip", "install", "--quiet", SWIFT], check=True)
        done.touch()


def free_port() -> int:
    """A port that stays free while its server is away: Linux gives clients those from 32768 on."""
    for port in random.sample(range(20_000, 32_768), 100):
        with contextlib.suppress(OSError):
            return _claim(port)
    raise OSError("no port is free between 20000 and 32767")


def _claim(port: int) -> int:
    """The port itself.  Raises OSError when it is taken."""
    with socket.create_server(("127.0.0.1", port)):
        return port


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()  # the data are on disk, and SIGTERM waits for open connections
    process.wait()


def main() -> None:
    """Serve until a signal."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--port", type=int, default=9000)
    parser.add_argument("--install", action="store_true")
    arguments = parser.parse_args()
    if arguments.install:
        return install()
    if arguments.folder is None:
        parser.error("FOLDER is missing")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with S3Server(arguments.folder, arguments.port) as server:
        keys = {"access_key": ACCESS_KEY, "secret_key": SECRET_KEY, "region": REGION}
        print(json.dumps({"endpoint": server.endpoint, **keys}), flush=True)
        try:
            server.wait()
        except KeyboardInterrupt:
            return None
    sys.exit("a process of the S3 server ended; see the logs in its folder")


if __name__ == "__main__":
    main()
