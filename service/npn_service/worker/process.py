"""What every process of the service does first: `python -m npn_service.worker.process TARGET FD PARENT NICENESS`.

It sees to it that it never outlives the server nor takes the processor or the memory away from it, imports
what it needs, says Ready, and calls TARGET ("module:function") with its end of the pipe.
"""

import ctypes
import faulthandler
import importlib
import os
import resource
import signal
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Final

from npn_service.worker.messages import Ready

_PR_SET_PDEATHSIG: Final = 1


def main() -> None:
    """Run one process to its end."""
    target, descriptor, parent, niceness = sys.argv[1:]
    _die_with(int(parent))
    _yield_to_the_server(int(niceness))
    faulthandler.enable()  # a crash in C code leaves its stack on stderr
    connection = Connection(int(descriptor))
    entry = _load(target)
    connection.send(Ready())
    entry(connection)


def _die_with(parent: int) -> None:
    """Have the kernel kill this process when the parent dies, even while C code holds the interpreter."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before it could be watched
        sys.exit(1)


def _yield_to_the_server(niceness: int) -> None:
    os.nice(niceness)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    adjustment = Path("/proc/self/oom_score_adj")
    if adjustment.exists():  # when memory runs out, a worker goes before the server
        adjustment.write_text("500")


def _load(target: str) -> Callable[[Connection], None]:
    module, _, function = target.partition(":")
    entry: Callable[[Connection], None] = getattr(importlib.import_module(module), function)
    return entry


if __name__ == "__main__":
    main()
