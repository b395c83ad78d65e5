"""What Prometheus reads."""

from collections.abc import Callable, Iterator, Mapping

from prometheus_client import (
    CollectorRegistry,
    Gauge,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
)
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from npn_core.progress import Progress

from .errors import Unavailable
from .jobs.model import Job, State

_WAIT_BUCKETS = (0.1, 0.3, 1, 3, 10, 30, 60, 300, 900, 3600, 4 * 3600, 24 * 3600)
_RUN_BUCKETS = (1, 3, 10, 30, 60, 180, 600, 1800, 3600, 3 * 3600, 12 * 3600, 48 * 3600)
_CHECKPOINT_BUCKETS = (0.03, 0.1, 0.3, 1, 3, 10, 30, 60, 180, 600)
_RPC_BUCKETS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 60, 600)


class Metrics:
    """The metrics of one server, in a registry of their own.  Thread-safe.

    It is the dispatcher's observer, and what the RPCs report to.
    """

    def __init__(self, count_jobs: Callable[[], Mapping[State, int]]) -> None:
        self.registry = CollectorRegistry()
        self.registry.register(_JobsByState(count_jobs))
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        GCCollector(registry=self.registry)
        self._queue_wait = Histogram(
            "npn_queue_wait_seconds",
            "Time from a job's creation to the start of its first attempt.",
            buckets=_WAIT_BUCKETS,
            registry=self.registry,
        )
        self._duration = Histogram(
            "npn_job_duration_seconds",
            "Time that an attempt ran.",
            ["outcome"],
            buckets=_RUN_BUCKETS,
            registry=self.registry,
        )
        self._samples = Gauge(
            "npn_training_samples_per_second",
            "Training samples per second at the newest report of a worker, by stage of the method.",
            ["stage"],
            registry=self.registry,
        )
        self._checkpoints = Histogram(
            "npn_checkpoint_duration_seconds",
            "Time that storing a checkpoint took.",
            ["outcome"],
            buckets=_CHECKPOINT_BUCKETS,
            registry=self.registry,
        )
        self._checkpoint_size = Gauge(
            "npn_checkpoint_size_bytes",
            "Size of the newest checkpoint that was recorded.",
            registry=self.registry,
        )
        self._rpc = Histogram(
            "npn_rpc_duration_seconds",
            "Time that an RPC took; for a stream, to its end.",
            ["method", "code"],
            buckets=_RPC_BUCKETS,
            registry=self.registry,
        )

    def job_leased(self, job: Job, *, queued_seconds: float) -> None:
        """An attempt starts after `queued_seconds` in the queue."""
        self._queue_wait.observe(queued_seconds)

    def job_ended(self, *, outcome: str, seconds: float) -> None:
        """An attempt ended."""
        self._duration.labels(outcome).observe(seconds)

    def progress_made(self, job: Job, progress: Progress) -> None:
        """A worker reported."""
        self._samples.labels(progress.stage.value).set(progress.samples_per_second)

    def checkpoint_tried(self, *, outcome: str, seconds: float, size: int) -> None:
        """A checkpoint was stored, or not."""
        self._checkpoints.labels(outcome).observe(seconds)
        if outcome == "recorded":
            self._checkpoint_size.set(size)

    def rpc_ended(self, method: str, code: str, seconds: float) -> None:
        """An RPC was answered."""
        self._rpc.labels(method, code).observe(seconds)


class _JobsByState(Collector):
    """Counted when asked: the database knows, this process need not."""

    def __init__(self, count_jobs: Callable[[], Mapping[State, int]]) -> None:
        self._count_jobs = count_jobs

    def describe(self) -> Iterator[GaugeMetricFamily]:
        yield GaugeMetricFamily("npn_jobs", "Jobs by state.", labels=["state"])

    def collect(self) -> Iterator[GaugeMetricFamily]:
        try:
            counts = self._count_jobs()
        except Unavailable:  # the other metrics are wanted all the more
            return
        (family,) = self.describe()
        for state in State:
            family.add_metric([state.name], counts.get(state, 0))
        yield family
