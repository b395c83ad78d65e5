"""Files that are replaced while the server runs: tokens, keys, certificates.

Each of their readers has `refresh`, which is called every second in a thread, never raises, and keeps what was
read last where the new file is broken.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

Stamp = tuple[tuple[int, int, int, int], ...]


class Refreshed(Protocol):
    """What is read again while the server runs."""

    def refresh(self) -> None:
        """Take over what has changed; keeps the last good state, and logs, where that is broken."""


def stamp(paths: Iterable[Path]) -> Stamp:
    """Differs once one of the files was replaced or written; (0, 0, 0, 0) stands for a file that is not there."""
    return tuple(_stamp(path) for path in paths)


def _stamp(path: Path) -> tuple[int, int, int, int]:
    try:
        found = path.stat()
    except OSError:
        return (0, 0, 0, 0)
    return (found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size)
