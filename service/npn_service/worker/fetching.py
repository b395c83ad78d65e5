"""A job's inputs on their way to this host, in a thread of their own: whoever needs them waits, and may give up."""

import contextvars
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import AbstractContextManager, ExitStack

from npn_service.jobs.inputs import Inputs
from npn_service.storage.streaming import insist


class Fetching:
    """Begins at once; `inputs` is done when they are here, or with what prevents it.

    `hold` is `JobInputs.hold`, given what stops it.  With `patiently` it is repeated while a source or the room
    for it is away.
    """

    def __init__(
        self, hold: Callable[[threading.Event], AbstractContextManager[Inputs]], *, patiently: bool = False
    ) -> None:
        self.inputs: Future[Inputs] = Future()
        self.inputs.set_running_or_notify_cancel()  # nobody who waits can cancel it
        self._hold, self._patiently = hold, patiently
        self._stop = threading.Event()
        self._held = ExitStack()
        context = contextvars.copy_context()  # log lines keep what they say
        threading.Thread(target=context.run, args=(self._run,), name="fetching", daemon=True).start()

    def close(self) -> None:
        """Let the inputs go; returns at once, also while they are still on their way."""
        self._stop.set()
        self.inputs.add_done_callback(lambda _: self._held.close())

    def _run(self) -> None:
        try:
            found = insist(self._enter, self._stop.is_set) if self._patiently else self._enter()
        except BaseException as error:
            self.inputs.set_exception(error)
        else:
            self.inputs.set_result(found)

    def _enter(self) -> Inputs:
        return self._held.enter_context(self._hold(self._stop))
