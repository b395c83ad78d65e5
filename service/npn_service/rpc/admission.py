"""How many calls are answered at a time.  Too many are refused at once, which costs little, instead of waiting
in line until their callers have given up.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from npn_service.errors import Unavailable

_LASTING = frozenset({"WatchJob", "ServerReflectionInfo"})


class Admission:
    """Counts the calls in hand.  For one event loop.

    Watches, and talks with reflection, are counted apart: they last, and cost next to nothing while nothing happens.
    """

    def __init__(self, *, calls: int, watches: int) -> None:
        self._limits = {False: calls, True: watches}
        self._in_hand = {False: 0, True: 0}

    @contextmanager
    def admit(self, method: str) -> Iterator[None]:
        """Count a call while the block lasts.  Raises Unavailable (OVERLOADED) when there are too many."""
        lasts = method in _LASTING
        if self._in_hand[lasts] >= self._limits[lasts]:
            kind = "watches" if lasts else "calls"
            raise Unavailable(f"the server has too many {kind} in hand; try again", reason="OVERLOADED")
        self._in_hand[lasts] += 1
        try:
            yield
        finally:
            self._in_hand[lasts] -= 1
