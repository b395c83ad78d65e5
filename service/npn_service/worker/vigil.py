"""What ends an attempt from outside: too long, too large, no step; and why its process may have died."""

import math
import signal
import time
from dataclasses import dataclass
from typing import Final

from npn_service.jobs.model import JobError

from .child import ChildEnded
from .failures import DEADLINE_EXCEEDED, OUT_OF_MEMORY, RESOURCE_EXHAUSTED
from .memory import OomKills, tree_bytes
from .messages import Cancelled, Failed, Finished

_MEASURE_SECONDS: Final = 1.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Released:
    """The attempt ended through no fault of the job; `counts` as in `JobStore.release_job`."""

    cause: str
    counts: bool


Ending = Finished | Failed | Cancelled | Released


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkerLimits:
    """What the server allows each worker: seconds, and bytes of memory (0: as many as there are).

    A checkpoint every `checkpoint_seconds`; `stall_seconds` without a step end the attempt; a server that shuts
    down waits `grace_seconds` for a last checkpoint.
    """

    checkpoint_seconds: float = 60.0
    stall_seconds: float = 600.0
    grace_seconds: float = 25.0
    memory_bytes: int = 0


class Vigil:
    """Watches over the process `pid` of one attempt at a job that may run for `max_duration` seconds and has
    run for `spent` of them.
    """

    def __init__(
        self,
        *,
        pid: int,
        max_duration: float | None,
        spent: float = 0.0,
        limits: WorkerLimits,
        kills: OomKills | None = None,
    ) -> None:
        self._pid = pid
        self._spent = spent
        self._max_duration = math.inf if max_duration is None else max_duration
        self._limits = limits
        self._kills = OomKills() if kills is None else kills
        self._started = self._moved = time.monotonic()
        self._measured = -math.inf
        self._kills_before = self._kills_now = self._kills.count()

    def moved(self) -> None:
        """The work itself, and no clock beside it, said that it has come further."""
        self._moved = time.monotonic()

    def verdict(self) -> Ending | None:
        """How the attempt is to end now; None while all is well."""
        now = time.monotonic()
        if self._spent + now - self._started >= self._max_duration:
            return Failed(error=_too_long(self._max_duration))
        if now - self._moved >= self._limits.stall_seconds:
            return Released(
                cause=f"the worker made no step for {self._limits.stall_seconds:g} s", counts=True
            )
        if now - self._measured >= _MEASURE_SECONDS:
            self._measured = now
            # Two counts are kept: the newest may have seen the very kill that the pipe has yet to tell of.
            self._kills_before, self._kills_now = self._kills_now, self._kills.count()
            return self._weigh()
        return None

    def explain(self, ended: ChildEnded) -> Ending:
        """What the death of the process means: the kernel's memory killer, or the machine."""
        if ended.signal == signal.SIGKILL and self._kills.count() > self._kills_before:
            return Failed(error=_out_of_memory("the machine, or the server's container, ran out of memory"))
        return Released(cause=str(ended), counts=True)

    def _weigh(self) -> Ending | None:
        limit = self._limits.memory_bytes
        if not limit or (used := tree_bytes(self._pid)) <= limit:
            return None
        return Failed(
            error=_out_of_memory(f"the worker took {used >> 20:,} MiB; the server allows {limit >> 20:,} MiB")
        )


def _too_long(limit: float) -> JobError:
    return JobError(
        code=DEADLINE_EXCEEDED,
        reason="MAX_DURATION_EXCEEDED",
        message=f"the job ran longer than its max_duration of {limit:g} s, all attempts together; "
        "allow more, or fewer epochs",
        field="max_duration",
    )


def _out_of_memory(what: str) -> JobError:
    return JobError(
        code=RESOURCE_EXHAUSTED,
        reason=OUT_OF_MEMORY,
        message=f"{what}; use a smaller batch_size, model or dataset, or a server with more memory",
    )
