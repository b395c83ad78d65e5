"""Waiting out a source that is away: calls are repeated, and reads go on where they broke off."""

import threading
from collections.abc import Callable, Iterator
from typing import Final, TypeVar

import structlog
from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception_type,
    sleep_using_event,
    stop_after_delay,
    stop_when_event_set,
    wait_random_exponential,
)

from npn_core.errors import Stopped
from npn_service.errors import Unavailable

OUTAGE_SECONDS: Final = 600.0  # a source that is away for longer is left to a later attempt
_LONGEST_PAUSE: Final = 10.0

R = TypeVar("R")

_log = structlog.get_logger(__name__)


def insist(function: Callable[[], R], stop: threading.Event) -> R:
    """What `function` returns once it does not raise Unavailable; raises that at last, and when `stop` is set."""
    retrying = Retrying(
        retry=retry_if_exception_type(Unavailable),
        wait=wait_random_exponential(multiplier=0.2, max=_LONGEST_PAUSE),
        stop=stop_after_delay(OUTAGE_SECONDS) | stop_when_event_set(stop),
        sleep=sleep_using_event(stop),
        before_sleep=_tell,
        reraise=True,
    )
    return retrying(function)


def read_on(read: Callable[[int], Iterator[bytes]], size: int, stop: threading.Event) -> Iterator[bytes]:
    """The `size` bytes that `read` gives from an offset on, opened anew at the right place after an outage.

    Raises Stopped once `stop` is set, Unavailable where the source stays away.
    """
    done = 0

    def open_there() -> tuple[bytes, Iterator[bytes]]:
        chunks = read(done)
        first = next(chunks, b"")
        if not first:
            raise Unavailable("the object ended early; try again")
        return first, chunks

    while done < size:
        chunk, rest = insist(open_there, stop)
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
    _log.warning("source.away", error=str(error), tries=state.attempt_number)
