"""Servers that share one PostgreSQL and one bucket, what they log, and how they are killed."""

import json
import os
import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
from postgres_server import PostgresServer
from s3_server import S3Bucket
from server_process import ServerProcess, descendants, launch_server

from npn_service.jobs.migrations import migrate
from npn_service.storage.s3_client import S3Client

# Short enough that a batch of jobs meets everything within minutes.
SETTINGS = {
    "workers": "2",
    "lease_seconds": "5",
    "checkpoint_seconds": "0.3",
    "metrics_listen": "127.0.0.1:0",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Line:
    """One line of a server's log."""

    server: int
    event: str
    fields: Mapping[str, Any]

    @property
    def job(self) -> str:
        """The job that it speaks of, "" for none."""
        return str(self.fields.get("job", ""))

    @property
    def attempt(self) -> tuple[str, int]:
        """The attempt that it speaks of."""
        return self.job, int(self.fields.get("attempt", 0))


@dataclass
class _Log:
    """How far the log of a server's newest process was read."""

    path: Path
    offset: int = 0


@dataclass
class Cluster:
    """`servers` servers; a killed one is started anew on its data folder, under its old address or a new one."""

    folder: Path
    postgres: PostgresServer
    bucket: S3Bucket
    servers: int = 1
    settings: Mapping[str, str] = field(default_factory=dict)
    running: list[ServerProcess] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.database = self.postgres.create_database()
        migrate(self.postgres.url(self.database))
        self._logs: list[_Log] = []
        self._starts = 0
        self._frozen: list[int] = []
        self.workers: dict[tuple[str, int], int] = {}
        for index in range(self.servers):
            self.running.append(self._launch(index))
            self._logs.append(_Log(self.running[index].log))

    @property
    def address(self) -> str:
        """That of the first server."""
        return self.running[0].address

    def lines(self) -> Iterator[Line]:
        """What was logged since the last call; remembers which process works at which attempt."""
        for server, log in enumerate(self._logs):
            with log.path.open("rb") as file:
                file.seek(log.offset)
                text = file.read()
            whole = text[: text.rfind(b"\n") + 1]
            log.offset += len(whole)
            for raw in whole.splitlines():
                if not raw.startswith(b"{"):
                    continue
                fields = json.loads(raw)
                line = Line(server=server, event=fields.get("event", ""), fields=fields)
                if line.event == "attempt.started":
                    self.workers[line.attempt] = fields["worker"]
                yield line

    def kill_worker(self, attempt: tuple[str, int]) -> bool:
        """Kill the process that works at an attempt; False when it is gone."""
        with suppress(ProcessLookupError):
            os.kill(self.workers[attempt], signal.SIGKILL)
            return True
        return False

    def kill_server(self, index: int) -> None:
        """Kill a server with all that it started, and start it again."""
        self.running[index].kill()
        self.running[index] = self._launch(index, listen=self.running[index].address)
        self._logs[index] = _Log(self.running[index].log)

    def freeze(self, index: int) -> None:
        """Have a server, and all that it started, hang."""
        server = self.running[index].process.pid
        os.kill(server, signal.SIGSTOP)  # first: it starts nothing more
        self._frozen = [server, *descendants(server)]
        self._signal_frozen(signal.SIGSTOP)

    def thaw(self) -> None:
        """Have what was frozen go on as if nothing had happened."""
        self._signal_frozen(signal.SIGCONT)

    def _signal_frozen(self, number: signal.Signals) -> None:
        for process in self._frozen:
            with suppress(ProcessLookupError):
                os.kill(process, number)

    def stop(self) -> None:
        """Stop every server cleanly."""
        for server in self.running:
            assert server.stop() == 0, server.log.read_text()[-4000:]

    def kill(self) -> None:
        """Leave nothing behind, whatever state it is in."""
        for server in self.running:
            server.kill()

    def query(self, statement: str) -> Sequence[tuple[Any, ...]]:
        """Rows of the database."""
        with psycopg.connect(self.postgres.url(self.database)) as connection:
            return connection.execute(statement).fetchall()  # type: ignore[arg-type]

    def keys(self, prefix: str) -> list[str]:
        """Keys in the bucket."""
        client = S3Client(self.bucket.settings)
        bucket = self.bucket.settings.bucket
        found = client.call(lambda: list(client.minio.list_objects(bucket, prefix, recursive=True)))
        return sorted(str(each.object_name) for each in found)

    def _launch(self, index: int, **more: str) -> ServerProcess:
        self._starts += 1
        return launch_server(
            self.folder / f"data-{index}",
            self.folder / f"start-{self._starts}",
            database_url=self.postgres.url(self.database),
            **self.bucket.environment(),
            **SETTINGS | dict(self.settings) | more,
        )
