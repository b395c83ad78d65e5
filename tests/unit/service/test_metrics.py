"""metrics.py: what Prometheus reads."""

from datetime import UTC, datetime

from job_samples import PLAN, SPEC, progress_at

from npn_core.progress import Stage
from npn_service.errors import Unavailable
from npn_service.jobs.model import Job, State
from npn_service.metrics import Metrics


def test_what_happened_is_counted() -> None:
    """Each observation shows under its name and labels; jobs are counted when Prometheus asks."""
    counts = {State.QUEUED: 2}
    metrics = Metrics(lambda: counts)
    job = Job(
        id="1",
        owner="local",
        creator="local",
        state=State.RUNNING,
        spec=SPEC,
        plan=PLAN,
        create_time=datetime.now(UTC),
    )
    metrics.job_leased(job, queued_seconds=2.0)
    metrics.job_ended(outcome="succeeded", seconds=40.0)
    metrics.progress_made(job, progress_at(1))
    metrics.checkpoint_tried(outcome="recorded", seconds=2.0, size=700)
    metrics.checkpoint_tried(outcome="postponed", seconds=4.0, size=900)
    metrics.rpc_ended("GetJob", "OK", 0.002)
    counts[State.QUEUED] = 5

    value = metrics.registry.get_sample_value
    assert value("npn_jobs", {"state": "QUEUED"}) == 5
    assert value("npn_jobs", {"state": "FAILED"}) == 0
    assert value("npn_queue_wait_seconds_sum") == 2
    assert value("npn_job_duration_seconds_bucket", {"outcome": "succeeded", "le": "60.0"}) == 1
    assert value("npn_training_samples_per_second", {"stage": Stage.DENSE.value}) == 1000
    assert value("npn_checkpoint_duration_seconds_sum", {"outcome": "postponed"}) == 4
    assert value("npn_checkpoint_size_bytes") == 700
    assert value("npn_rpc_duration_seconds_count", {"method": "GetJob", "code": "OK"}) == 1


def test_a_database_that_is_away_hides_its_jobs_alone() -> None:
    """Scrapes go on without the counts of jobs."""

    def away() -> dict[State, int]:
        raise Unavailable("the database does not answer; try again")

    names = {family.name for family in Metrics(away).registry.collect()}
    assert "npn_jobs" not in names
    assert {"npn_rpc_duration_seconds", "process_cpu_seconds"} <= names
