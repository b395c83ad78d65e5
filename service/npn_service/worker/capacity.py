"""What this machine, or the container that the server runs in, can give to jobs."""

import os
from pathlib import Path
from typing import Final

import psutil

from npn_service.jobs.model import Resources

_CGROUP: Final = Path("/sys/fs/cgroup")


def host_capacity(cgroup: Path = _CGROUP) -> Resources:
    """CPUs that this process may use, and memory; a container's limits (cgroup v2) where they are lower.

    No GPUs: workers train on the CPU.
    """
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    memory = psutil.virtual_memory().total
    match _limits(cgroup / "cpu.max"):
        case [quota, period]:
            allowed = min(allowed, max(1, quota // period))
    match _limits(cgroup / "memory.max"):
        case [limit]:
            memory = min(memory, limit)
    return Resources(cpus=allowed, memory_bytes=memory)


def _limits(path: Path) -> list[int]:
    """The numbers in a file of the cgroup; none where there is no file, or no limit ("max")."""
    try:
        return [int(word) for word in path.read_text().split()]
    except (OSError, ValueError):
        return []
