"""How much memory a worker takes, and whether the kernel took its life for it."""

from contextlib import suppress
from pathlib import Path
from typing import Final

import psutil

_CGROUPS: Final = Path("/sys/fs/cgroup")


def tree_bytes(pid: int) -> int:
    """Memory that a process and all that it started have of their own, in bytes; 0 when it is gone.

    Without mapped files, such as a dataset larger than memory: the kernel takes those back when it needs room.
    """
    try:
        root = psutil.Process(pid)
        processes = [root, *root.children(recursive=True)]
    except psutil.Error:
        return 0
    total = 0
    for process in processes:
        with suppress(psutil.Error):  # it ended since
            memory = process.memory_info()
            total += memory.rss - getattr(memory, "shared", 0)  # Linux tells; elsewhere they count
    return total


class OomKills:
    """The kernel's count of processes that it killed for want of memory in this process's cgroup (v2).

    `events` is the cgroup's file of that, found by default.
    """

    def __init__(self, events: Path | None = None) -> None:
        self._events = _own_events() if events is None else events

    def count(self) -> int:
        """So far; always 0 where the kernel does not tell."""
        try:
            lines = self._events.read_text().splitlines()
        except OSError:
            return 0
        return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)


def _own_events() -> Path:
    """memory.events of this process's cgroup, which its children share; may be absent."""
    group = ""
    with suppress(OSError):
        lines = Path("/proc/self/cgroup").read_text().splitlines()
        group = next((line[3:] for line in lines if line.startswith("0::")), "")
    return _CGROUPS / group.lstrip("/") / "memory.events"
