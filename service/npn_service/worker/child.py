"""The parent's handle on a process of this service: spawned, in a session of its own, at the end of a pipe.

A process is spawned by running the interpreter anew, not through `multiprocessing.Process`: so its
environment and session are chosen here, and it neither imports the server's main module nor needs a tracker.
"""

import os
import signal
import socket
import struct
import subprocess
import sys
import tempfile
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Final

from .messages import Ready

# Handed on from the server's environment; all else, secrets first of all, stays behind.
_HANDED_ON: Final = ("PATH", "HOME", "TMPDIR", "TZ", "LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES")
_HANDED_ON_PREFIXES: Final = ("LANG", "LC_", "PYTHON")

# A message is short; a process that takes longer to send or take one is stuck in the middle of it.
_MESSAGE_SECONDS: Final = 5
_EXIT_SECONDS: Final = 1.0
_STDERR_BYTES: Final = 4096
_NICENESS: Final = 10


class ChildEnded(Exception):
    """The process is gone, or makes no sense any more; the message says how, for the job's owner to read.

    `signal` is the number of the one that killed it, 0 where none did.
    """

    def __init__(self, message: str, *, signal: int = 0) -> None:
        super().__init__(message)
        self.signal = signal


class Child:
    """One process that runs `target` ("module:function", called with its end of the pipe).

    `niceness` is how far it stands back from the processor: a caller waits for what is not nice.
    The kernel kills it when the thread that made it ends: make it in a thread that lives as long.
    """

    def __init__(self, target: str, *, niceness: int = _NICENESS) -> None:
        ours, theirs = socket.socketpair()
        timeout = struct.pack("ll", _MESSAGE_SECONDS, 0)
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, timeout)
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, timeout)
        self._stderr = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - closed by close
        command = [sys.executable, "-P", "-m", "npn_service.worker.process"]
        try:
            self._process = subprocess.Popen(  # noqa: S603 - nothing of it comes from a caller
                [*command, target, str(theirs.fileno()), str(os.getpid()), str(niceness)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=self._stderr,
                env=_environment(),
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        except OSError:
            ours.close()
            self._stderr.close()
            raise
        finally:
            theirs.close()
        self._connection = Connection(ours.detach())
        self._ready = False

    @property
    def pid(self) -> int:
        """Process id; also the id of its session and process group."""
        return self._process.pid

    def ready(self, timeout: float = 0.0) -> bool:
        """Whether it has imported what it needs, waiting up to `timeout` seconds.  Raises ChildEnded."""
        if not self._ready:
            self._ready = isinstance(self.receive(timeout), Ready)
        elif self._process.poll() is not None:
            raise self._ending()
        return self._ready

    def send(self, message: object) -> None:
        """Raises ChildEnded when nobody takes it."""
        try:
            self._connection.send(message)
        except OSError as error:
            raise self._ending() from error

    def receive(self, timeout: float) -> object | None:
        """The next message; None when there is none within `timeout` seconds.  Raises ChildEnded."""
        try:
            return self._connection.recv() if self._connection.poll(timeout) else None
        except (EOFError, ConnectionError) as error:
            raise self._ending() from error
        except Exception as error:  # unpickling may raise anything
            raise ChildEnded("the worker sent a message that cannot be read") from error

    def stderr_tail(self, limit: int = _STDERR_BYTES) -> str:
        """The last `limit` bytes of what it wrote to stderr."""
        descriptor = self._stderr.fileno()
        begin = max(0, os.fstat(descriptor).st_size - limit)
        # Not seek: the process writes through the same offset.
        return os.pread(descriptor, limit, begin).decode(errors="replace")

    def kill(self) -> None:
        """End the process and what it may have started, at once.  Idempotent; from any thread."""
        if self._process.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
            self._process.wait()

    def close(self) -> None:
        """Kill it and let go of what belongs to it."""
        self.kill()
        self._connection.close()
        self._stderr.close()

    def _ending(self) -> ChildEnded:
        try:
            code = self._process.wait(_EXIT_SECONDS)
        except subprocess.TimeoutExpired:
            return ChildEnded("the worker closed its connection without a result")
        if code < 0:
            name = signal.Signals(-code).name
            how = "was killed by" if code == -signal.SIGKILL else "crashed with"
            return ChildEnded(f"the worker {how} {name}", signal=-code)
        return ChildEnded(f"the worker exited with code {code} without a result")


def _environment() -> dict[str, str]:
    kept = {
        name: value
        for name, value in os.environ.items()
        if name in _HANDED_ON or name.startswith(_HANDED_ON_PREFIXES)
    }
    # Before it knows its job a process needs one thread; the job's own number is set with the assignment.
    # Waiting threads sleep: two workers with two spinning threads each on two cores ran fifteen times slower.
    # Arrow's own allocator reserves 1 GiB at its first use, half of what the inspector may take.
    own = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "ARROW_DEFAULT_MEMORY_POOL": "system"}
    return kept | own
