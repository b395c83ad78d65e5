"""What an attempt's owner may read of how it went: bounded, and without the server's paths and secrets."""

import re
from collections import deque
from datetime import UTC, datetime
from typing import Final

from npn_core.progress import Progress, Stage

from .messages import Cancelled, Failed
from .vigil import Released

MAX_BYTES: Final = 64 << 10
_MAX_LINES: Final = 200

# Up to here an absolute path says where something is installed; the rest is the same everywhere.
_INSTALLED: Final = re.compile(r"(?<![\w./])/(?:[^\s:'\"]*/)?(?:site-packages|python3\.\d+|service)/")
_PATH: Final = re.compile(r"(?<![\w./])/(?:[^\s/:'\"(),]+/)*([^\s/:'\"(),]+)/?")
# A signed URL lets anybody in who has all of it.
_SIGNATURE: Final = re.compile(r"(\b\w+://[^\s?'\"]+)\?[^\s'\"]+")


class AttemptLog:
    """The events of one attempt, the newest two hundred, to be told with the end of its worker's stderr."""

    def __init__(self) -> None:
        self._lines: deque[str] = deque(maxlen=_MAX_LINES)
        self._stage: Stage | None = None

    def add(self, event: str) -> None:
        """Note something that happened now."""
        self._lines.append(f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ} {event}")

    def follow(self, progress: Progress) -> None:
        """Note the begin of a stage, and warnings."""
        if progress.stage is not self._stage:
            self._stage = progress.stage
            self.add(f"stage {progress.stage.value}, step {progress.step} of {progress.steps}")
        if progress.warning:
            self.add(f"warning: {progress.warning}")

    def end(self, ending: Failed | Cancelled | Released) -> None:
        """Note how it ended."""
        match ending:
            case Failed(error=error):
                self.add(f"failed: {error.reason}: {error.message}")
            case Cancelled():
                self.add("cancelled")
            case Released(cause=cause):
                self.add(f"ended: {cause}")

    def text(self, stderr: str) -> str:
        """All of it, at most MAX_BYTES of UTF-8: the newest."""
        text = "\n".join(map(without_places, [*self._lines, *stderr.splitlines()]))
        return newest(text.replace("\0", ""))  # which PostgreSQL does not store


def without_places(line: str) -> str:
    """A line without the folders of this machine and without what signs a URL."""
    signed = _SIGNATURE.sub(r"\1", line)
    return _PATH.sub(r"\1", _INSTALLED.sub("", signed))


def newest(text: str) -> str:
    """The end of a text, whole lines of it, in at most MAX_BYTES."""
    data = text.encode()
    if len(data) <= MAX_BYTES:
        return text
    return data[-MAX_BYTES:].decode(errors="ignore").partition("\n")[2]
