"""Jobs whose check takes too long: created without a plan, checked by their worker."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from job_samples import PLAN
from worker_lab import OWNER, Lab, worker_pids

from npn.v1 import compression_pb2 as pb
from npn_core.config import Budget
from npn_core.errors import InvalidInput
from npn_service.access.identity import Identity, Scope
from npn_service.blocking import BlockingPool
from npn_service.errors import TooSlow
from npn_service.jobs.model import ArchitectureModel, State
from npn_service.rpc.jobs import JobCalls
from npn_service.rpc.watch import WatchHub
from npn_service.worker import failures
from npn_service.worker.inspector import Inspector
from npn_service.worker.messages import Inspected, Inspection


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    """A lab whose workers compress."""
    made = Lab(tmp_path)
    yield made
    made.close()
    assert not worker_pids()


class Answering(Inspector):
    """An inspector with an answer of its own."""

    def __init__(self, answer: Inspected | None) -> None:
        self._answer = answer

    async def inspect(self, inspection: Inspection) -> Inspected | None:
        """The answer."""
        return self._answer


def ask(lab: Lab, answer: Inspected | None, *, validate_only: bool = False) -> pb.Job:
    """CreateJob on the lab's dataset, with that answer of the inspector."""
    blocking = BlockingPool(1)
    calls = JobCalls(
        store=lab.store,
        manager=lab.manager,
        inputs=lab.inputs,
        inspector=Answering(answer),
        hub=WatchHub(lab.store, blocking),
        blocking=blocking,
        carrying=blocking,
        wake=lambda: None,
        max_epochs=100,
        longest=None,
        default_threads=1,
    )
    job = pb.Job(
        compress=pb.CompressTask(),
        model=pb.Model(architecture=pb.Architecture(name="mlp", params={"hidden": "8"})),
        dataset=pb.Dataset(uri=lab.dataset.uri),
        budget=pb.Budget(max_params=60),
    )
    request = pb.CreateJobRequest(job=job, validate_only=validate_only)
    caller = Identity(owner=OWNER, subject="test", scopes=frozenset({Scope.WRITE}))
    try:
        return asyncio.run(calls.create(request, caller))
    finally:
        blocking.close()


def test_a_job_is_created_without_a_plan(lab: Lab) -> None:
    """The caller need not wait for what takes long; the job says that it has no plan."""
    job = ask(lab, None)
    assert (job.state, job.HasField("plan")) == (pb.JOB_STATE_QUEUED, False)
    assert ask(lab, Inspected(plan=PLAN, error=None)).HasField("plan")


def test_data_that_take_long_to_come_are_not_waited_for(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """The inspector is not asked then; the worker fetches them and checks."""
    monkeypatch.setattr("npn_service.rpc.jobs._FETCH_SECONDS", 0.0)
    job = ask(lab, Inspected(plan=PLAN, error=None))
    assert (job.state, job.HasField("plan")) == (pb.JOB_STATE_QUEUED, False)


def test_a_plan_alone_is_not_given_later(lab: Lab) -> None:
    """validate_only has nothing to answer then, and creates nothing."""
    with pytest.raises(TooSlow, match="its worker checks it"):
        ask(lab, None, validate_only=True)
    assert sum(lab.store.count_by_state().values()) == 0


def test_a_worker_gives_the_inspectors_reason(lab: Lab) -> None:
    """A job that nobody checked ends FAILED with the field and the reason that CreateJob would have given."""
    error = failures.describe(InvalidInput("dataset.uri", "no archive", reason="DATASET_NOT_NPZ"))
    with pytest.raises(InvalidInput) as refused:
        ask(lab, Inspected(plan=None, error=error))
    lab.dispatcher(target="npn_service.worker.compression:run")
    model, budget = ArchitectureModel(name="mlp", params={"hidden": "8"}), Budget(max_params=60)
    ended = lab.wait(lab.create("", plan=None, model=model, budget=budget, labels={}))
    assert ended.state is State.FAILED
    assert ended.plan is None
    assert ended.error is not None
    assert (ended.error.code, ended.error.field) == (failures.INVALID_ARGUMENT, refused.value.field)
    assert ended.error.reason == refused.value.reason
