"""Waiting out a store that is away: calls are repeated, and reads go on where they broke off."""

import threading
from collections.abc import Callable, Iterator
from typing import Final, TypeVar

import structlog
from tenacity import RetryCallState, Retrying, retry_if_exception_type, wait_random_exponential

from npn_core.errors import Stopped
from npn_service.errors import Unavailable

_LONGEST_PAUSE: Final = 2.0  # seconds; also how long a stop may go unseen

R = TypeVar("R")

_log = structlog.get_logger(__name__)


def insist(function: Callable[[], R], stop: Callable[[], bool]) -> R:
    """What `function` returns once it does not raise Unavailable; raises that when `stop` says so, or raises."""
    retrying = Retrying(
        retry=retry_if_exception_type(Unavailable),
        wait=wait_random_exponential(multiplier=0.2, max=_LONGEST_PAUSE),
        stop=lambda _: stop(),
        before_sleep=_tell,
        reraise=True,
    )
    return retrying(function)


def read_on(read: Callable[[int], Iterator[bytes]], size: int, stop: threading.Event) -> Iterator[bytes]:
    """The `size` bytes that `read` gives from an offset on, opened anew at the right place after an outage.

    Raises Stopped once `stop` is set, or Unavailable where the source is away then.
    """
    done = 0

    def open_there() -> tuple[bytes, Iterator[bytes]]:
        chunks = read(done)
        first = next(chunks, b"")
        if not first:
            raise Unavailable("the object ended early; try again")
        return first, chunks

    while done < size:
        chunk, rest = insist(open_there, stop.is_set)
        try:
            while chunk:
                if stop.is_set():
                    raise Stopped
                done += len(chunk)
                yield chunk
                chunk = next(rest, b"")
        except Unavailable:
            continue


def _tell(state: RetryCallState) -> None:
    error = state.outcome.exception() if state.outcome else None
    _log.warning("storage.away", error=str(error), tries=state.attempt_number)
