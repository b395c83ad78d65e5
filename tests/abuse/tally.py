"""Counts of what a server answered."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import grpc
from wire import SECONDS, refusal_of


@dataclass(kw_only=True)
class Tally:
    """`requests` sent, of which `raw` were bytes at the socket; `answers` of the others by code and reason."""

    requests: int = 0
    raw: int = 0
    answers: Counter[tuple[str, str]] = field(default_factory=Counter)

    @property
    def calls(self) -> int:
        """Requests that were calls: each has an answer."""
        return sum(self.answers.values())

    @property
    def ok_share(self) -> float:
        """Share of the calls that were answered with OK."""
        return self.answers["OK", ""] / max(self.calls, 1)

    @property
    def reasons(self) -> Counter[str]:
        """Refusals by reason."""
        counts: Counter[str] = Counter()
        for (_, reason), count in self.answers.items():
            counts[reason] += count if reason else 0
        return +counts

    def call(self, method: Callable[..., Any], request: Any, *, most: int = 3) -> Any:
        """Make a call and count its answer; of a stream the first `most` messages are read.  None when refused."""
        self.requests += 1
        try:
            answer = method(request, timeout=SECONDS)
            if isinstance(answer, grpc.Call):
                answer = self._read(answer, most)
        except grpc.RpcError as error:
            refusal = refusal_of(error)
            self.answers[refusal.code.name, refusal.reason] += 1
            return None
        self.answers["OK", ""] += 1
        return answer

    def _read(self, stream: Any, most: int) -> list[Any]:
        read = []
        for message in stream:
            read.append(message)
            if len(read) >= most or message.DESCRIPTOR.name == "WatchJobResponse":
                stream.cancel()
                break
        return read

    def tell(self) -> str:
        """The counts, one line each."""
        lines = [f"{self.requests} requests, {self.raw} of them raw; {self.ok_share:.0%} of the calls OK"]
        lines += [f"{count:7} {code} {reason}" for (code, reason), count in sorted(self.answers.items())]
        return "\n".join(lines)
