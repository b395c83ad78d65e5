"""Jobs, progress and results for tests that need one and do not care which."""

import math
from dataclasses import replace

from npn_core.config import Budget, Training
from npn_core.progress import (
    Cost,
    CostProgress,
    DatasetInfo,
    GroupPlan,
    GroupProgress,
    InputInfo,
    Metric,
    Plan,
    Progress,
    Stage,
)
from npn_service.jobs.model import (
    ArchitectureModel,
    ArtifactFile,
    DatasetRef,
    Job,
    JobError,
    JobPlan,
    JobResult,
    JobSpec,
)
from npn_service.jobs.store import JobStore

DENSE = Cost(params=431_080, macs=2_293_000, bytes=1_724_320)
SMALL = Cost(params=9_000, macs=200_000, bytes=36_000)

SPEC = JobSpec(
    model=ArchitectureModel(name="lenet5-caffe", params={"widths": "20,50,500"}),
    dataset=DatasetRef(uri="s3://data/mnist.npz"),
    budget=Budget(max_params=10_000),
    training=Training(epochs=2),
    labels={"team": "vision"},
    max_duration=60.0,
)
PLAN = JobPlan(
    plan=Plan(dense=DENSE, smallest=SMALL, groups=(GroupPlan(name="conv1", kind="channel", size=20),)),
    dataset=DatasetInfo(
        train_samples=54_000,
        validation_samples=6_000,
        test_samples=10_000,
        inputs=(InputInfo(name="x", shape=(1, 28, 28), dtype="uint8"),),
        target="classes",
        classes=10,
    ),
)
RESULT = JobResult(
    dense=DENSE,
    compact=SMALL,
    metrics=(Metric(name="test_accuracy", value=0.99, low=0.98, high=0.995),),
    files=(ArtifactFile(path="model.pt2", size=3, sha256="0" * 64),),
    train_time=12.5,
)
ERROR = JobError(code=3, reason="LABEL_OUT_OF_RANGE", message="y_train holds 11", field="dataset.uri")


def progress_at(step: int) -> Progress:
    """Progress of stage 1, whose k is infinite."""
    return Progress(
        step=step,
        steps=100,
        epoch=1,
        epochs=2,
        stage=Stage.DENSE,
        k=math.inf,
        loss=0.5,
        metrics=(Metric(name="validation_accuracy", value=0.9),),
        costs=(CostProgress(kind="params", expected=1.5, hard=2, budget=3, multiplier=0.1),),
        groups=(GroupProgress(name="conv1", size=20, active=20, entropy=1.0, variance=0.9),),
        samples_per_second=1000.0,
        time_left=3.0,
    )


def create(store: JobStore, *, owner: str = "local", request_id: str = "", **changes: object) -> Job:
    """A queued job."""
    spec = replace(SPEC, **changes)
    return store.create_job(
        owner=owner, creator=owner, spec=spec, plan=PLAN, request_id=request_id, request_hash="hash"
    )


def lease(store: JobStore, seconds: float = 60.0) -> Job:
    """The next job in line, running."""
    job = store.lease_job(host="host", lease_seconds=seconds)
    assert job is not None
    return job
