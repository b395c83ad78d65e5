"""The data folder of one server: its places, and the lock that keeps a second server out."""

import fcntl
import os
import secrets
from pathlib import Path
from types import TracebackType
from typing import Self

from npn_service.errors import StartupError


class DataPaths:
    """The places in a data folder."""

    def __init__(self, path: Path) -> None:
        self.path = path.resolve()

    @property
    def identity(self) -> str:
        """What no other data folder has: drawn when the folder is first used, and kept in it."""
        path = self.path / "identity"
        if not path.exists():
            unfinished = path.with_suffix(".part")
            unfinished.write_text(secrets.token_hex(8))
            unfinished.replace(path)
        return path.read_text()

    @property
    def database_url(self) -> str:
        """SQLAlchemy URL of the embedded database."""
        return f"sqlite:///{self.path / 'npn.sqlite'}"

    @property
    def objects(self) -> Path:
        """Root of the local object store."""
        return self.path / "objects"

    @property
    def cache(self) -> Path:
        """Copies of what jobs read from elsewhere."""
        return self.path / "cache"

    @property
    def scratch(self) -> Path:
        """Where workers write before they publish."""
        return self.path / "scratch"


class DataFolder(DataPaths):
    """A folder held by this process until `close`, or until the process dies: the kernel frees the lock.

    Raises StartupError when another process holds it, or when it cannot be written.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = (self.path / "lock").open("a+")
        except OSError as error:
            raise StartupError(f"the data folder {self.path} cannot be used: {error.strerror}") from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StartupError(self._refusal()) from None
        self._lock.truncate(0)
        self._lock.write(str(os.getpid()))
        self._lock.flush()

    def close(self) -> None:
        """Let the folder go."""
        self._lock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _refusal(self) -> str:
        with self._lock:
            self._lock.seek(0)
            holder = self._lock.read().strip() or "unknown"
        return (
            f"the data folder {self.path} is in use by the server with process id {holder}; "
            "stop that server, or set NPN_DATA_DIR to another folder"
        )
