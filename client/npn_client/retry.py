"""When a call that failed is made again.  Transport-free: shared by Client and AsyncClient.

Single calls are retried by gRPC itself, from the service config below: on UNAVAILABLE alone, with backoff and
jitter, within the call's deadline, and only where a second delivery changes nothing.  CreateJob and
CreateUpload are among them because each carries a request_id.  Transfers and watches resume where they were.
"""

import json
import random

from ._pb import SERVICE
from .errors import Cancelled, ClientError, DeadlineExceeded, TransferFailed, Unavailable

IDEMPOTENT = frozenset(
    {
        "CreateJob",
        "GetJob",
        "GetJobLogs",
        "ListJobs",
        "CancelJob",
        "ListArchitectures",
        "GetServerInfo",
        "CreateUpload",
        "GetUpload",
        "CompleteUpload",
        "ListUploads",
        "GetDownload",
    }
)
# What a stream may end with and be resumed: a server that stops cancels its calls.
PASSING = (Unavailable, DeadlineExceeded, Cancelled)
ATTEMPTS = 5
FIRST_DELAY = 0.2  # seconds
LONGEST_DELAY = 5.0


def service_config() -> str:
    """The gRPC service config (JSON) that retries the idempotent calls."""
    policy = {
        "maxAttempts": ATTEMPTS,
        "initialBackoff": f"{FIRST_DELAY}s",
        "maxBackoff": f"{LONGEST_DELAY}s",
        "backoffMultiplier": 2,
        "retryableStatusCodes": ["UNAVAILABLE"],
    }
    names = [{"service": SERVICE.full_name, "method": method} for method in sorted(IDEMPOTENT)]
    return json.dumps({"methodConfig": [{"name": names, "retryPolicy": policy}]})


def delay(failures: int) -> float:
    """Seconds to wait after so many failures in a row: exponential, with jitter of one half."""
    longest = min(LONGEST_DELAY, FIRST_DELAY * 2.0 ** min(failures - 1, 16))
    return longest * random.uniform(0.5, 1.0)  # noqa: S311 - spreads load, guards no secret


class Resumption:
    """Decides whether an interrupted transfer goes on: as long as bytes get through, it does."""

    def __init__(self, position: int) -> None:
        self._position = position
        self._failures = 0

    def after(self, position: int, error: ClientError | None) -> float:
        """Seconds to wait before resuming at `position`.

        Raises `error` when it will not pass by itself, or after as many failures in a row without a byte.
        """
        stuck = position <= self._position
        self._position = position
        self._failures = self._failures + 1 if stuck else 1
        passing = error is None or isinstance(error, PASSING)
        if self._failures > ATTEMPTS or (stuck and not passing):
            raise error or TransferFailed("the transfer ended early again and again; try again later")
        return delay(self._failures)
