"""The leases of this server's attempts, renewed by one thread whatever the attempts are busy with."""

import threading
import time
from typing import Final

import structlog

from npn_service.errors import LostLease, Unavailable
from npn_service.jobs.model import Job, State
from npn_service.jobs.store import JobStore

_RENEW_SECONDS: Final = 0.5  # also how long a cancel may go unseen
# An attempt that could not renew stops this long before its lease can pass: a call to the store that hangs ends
# within two seconds, and a worker is killed in milliseconds.
_STOP_SECONDS: Final = 2.5

_log = structlog.get_logger(__name__)


class Lease:
    """What is known of one attempt's lease.  Thread-safe.

    Counted from before the store was asked, on this process's monotonic clock, it ends here before it ends in
    the database.
    """

    def __init__(self, job: Job, *, since: float, seconds: float) -> None:
        self.job = job
        self._state = job.state
        self._seconds = seconds
        self._ends = since + seconds
        self._lost = ""

    def check(self) -> State:
        """The job's newest known state.  Raises LostLease when the attempt must stop."""
        if not self._lost and time.monotonic() > self._ends - min(_STOP_SECONDS, self._seconds / 2):
            self._lost = "the store was out of reach for as long as the lease"
        if self._lost:
            raise LostLease(self._lost)
        return self._state

    def is_cancelled(self) -> bool:
        """Whether the job's owner wants it to stop.  Raises LostLease when the attempt must stop."""
        return self.check() is State.CANCELLING

    def renewed(self, state: State, *, since: float) -> None:
        """The store extended it; one that was given up stays so."""
        self._state, self._ends = state, since + self._seconds

    def lost(self, cause: str) -> None:
        """Another attempt may begin, or has begun."""
        self._lost = cause


class LeaseKeeper:
    """Renews every lease that is held; the attempts look at theirs and stop by themselves.

    `start` begins the thread and `stop` ends it; between `hold` and `drop` a lease is renewed.
    """

    def __init__(self, store: JobStore, lease_seconds: float) -> None:
        self._store = store
        self._seconds = lease_seconds
        self._leases: dict[str, Lease] = {}
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name="leases", daemon=True)

    def start(self) -> None:
        """Begin to renew."""
        self._thread.start()

    def stop(self) -> None:
        """Renew no more."""
        self._stopped = True
        self._wake.set()
        if self._thread.ident is not None:
            self._thread.join()

    def wake(self) -> None:
        """Look at the jobs now: one may have been cancelled."""
        self._wake.set()

    def hold(self, job: Job, *, since: float) -> Lease:
        """Keep the lease of the job's current attempt, asked for at `since` on the monotonic clock."""
        lease = Lease(job, since=since, seconds=self._seconds)
        with self._lock:
            self._leases[job.id] = lease
        return lease

    def drop(self, lease: Lease) -> None:
        """The attempt is over."""
        with self._lock:
            if self._leases.get(lease.job.id) is lease:
                del self._leases[lease.job.id]

    def _run(self) -> None:
        while not self._stopped:
            try:
                self._renew()
            except Unavailable as error:  # leases end by themselves when that lasts
                _log.debug("leases.not_renewed", error=error.message)
            except Exception:
                _log.exception("leases.not_renewed")
            self._wake.wait(_RENEW_SECONDS)
            self._wake.clear()

    def _renew(self) -> None:
        with self._lock:
            leases = list(self._leases.values())
        if not leases:
            return
        since = time.monotonic()
        held = {lease.job.id: lease.job.attempt for lease in leases}
        states = self._store.renew_leases(held, lease_seconds=self._seconds)
        for lease in leases:
            if lease.job.id in states:
                lease.renewed(states[lease.job.id], since=since)
            else:
                lease.lost("the attempt does not hold its job any more")
