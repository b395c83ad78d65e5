"""The port to whoever keeps checkpoints: the worker's store, a search, a test."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from .train import Trainer


class Keeper(Protocol):
    """Who keeps the loop's checkpoints (`checkpoint.write`)."""

    def due(self) -> bool:
        """Whether one is wanted now: asked before every step."""

    def keep(self, trainer: "Trainer", beside: Callable[[Path], None] | None = None) -> None:
        """Write one, before the loop goes on and changes what it holds; `beside` adds files to its folder."""
