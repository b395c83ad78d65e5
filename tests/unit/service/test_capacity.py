"""What a host can give to jobs."""

from pathlib import Path

import pytest

from npn_service.jobs.model import Resources
from npn_service.worker.capacity import host_capacity


def test_the_machine_is_the_capacity(tmp_path: Path) -> None:
    """Without a container's limits: the CPUs and the memory that there are."""
    found = host_capacity(tmp_path)
    assert found.cpus >= 1
    assert found.memory_bytes > 1 << 28
    (tmp_path / "cpu.max").write_text("max 100000\n")
    (tmp_path / "memory.max").write_text("max\n")
    assert host_capacity(tmp_path) == found


@pytest.mark.parametrize(("quota", "cpus"), [("100000 100000", 1), ("50000 100000", 1)])
def test_a_container_is_smaller_than_its_machine(tmp_path: Path, quota: str, cpus: int) -> None:
    """Its quota of CPU time and its memory limit count where they are lower."""
    (tmp_path / "cpu.max").write_text(quota)
    (tmp_path / "memory.max").write_text("1000000")
    assert host_capacity(tmp_path) == Resources(cpus=cpus, memory_bytes=1_000_000)


def test_what_is_taken_is_not_free() -> None:
    """Jobs that run leave the rest, and never less than nothing."""
    host = Resources(cpus=4, memory_bytes=100)
    left = host.without(Resources(cpus=3, memory_bytes=200))
    assert left == Resources(cpus=1)
    assert Resources(cpus=1).fits(left)
    assert not Resources(cpus=2).fits(left)
    with pytest.raises(ValueError, match="cpus is -1"):
        Resources(cpus=-1)
