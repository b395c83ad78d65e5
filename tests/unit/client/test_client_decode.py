"""What becomes of the server's answers."""

from datetime import UTC, datetime

from npn.v1 import compression_pb2 as pb
from npn_client import Architecture, DatasetInput, JobState, ModelArchive, Stage, StateChanged, Unpruned
from npn_client.decode import event, plan, snapshot


def test_states_and_stages_are_those_of_the_interface() -> None:
    """Every value of the interface has a member, and UNKNOWN is for those to come."""
    assert {state.value for state in JobState} == {"UNKNOWN"} | {
        name.removeprefix("JOB_STATE_") for name, number in pb.JobState.items() if number
    }
    assert {stage.value for stage in Stage} == {"UNKNOWN"} | {
        name.removeprefix("STAGE_") for name, number in pb.Stage.items() if number
    }


def test_a_state_of_a_newer_server() -> None:
    """A state that this client is too old for is UNKNOWN, and `done` still counts."""
    job = snapshot(pb.Job(name="jobs/1", state=99, done=True))  # type: ignore[arg-type]
    assert job.state is JobState.UNKNOWN
    assert job.done


def test_a_bare_job() -> None:
    """What is absent is None, not a zero."""
    job = snapshot(pb.Job(name="jobs/1", state=pb.JOB_STATE_QUEUED))
    assert (job.start_time, job.plan, job.progress, job.error, job.result) == (None,) * 5
    assert job.budget.max_params is None
    assert job.training.epochs is None


def test_a_full_job() -> None:
    """Nested messages become dataclasses; metrics are found by name, times are in UTC."""
    message = pb.Job(name="jobs/1", state=pb.JOB_STATE_SUCCEEDED, done=True)
    message.create_time.FromDatetime(datetime(2026, 1, 2))
    message.training.epochs = 3
    message.progress.stage = pb.STAGE_PLASTIC
    message.progress.time_left.FromMilliseconds(1500)
    message.result.compact.params = 12
    message.result.metrics.add(name="compact_test_accuracy", value=0.5, low=0.4, higher_is_better=True)
    job = snapshot(message)
    assert job.create_time == datetime(2026, 1, 2, tzinfo=UTC)
    assert job.training.epochs == 3
    assert job.progress is not None
    assert (job.progress.stage, job.progress.time_left) == (Stage.PLASTIC, 1.5)
    assert job.result is not None
    assert job.result.compact.params == 12
    assert job.result.metrics["compact_test_accuracy"].low == 0.4
    assert job.result.metrics["compact_test_accuracy"].high is None


def test_a_model_of_the_callers_own() -> None:
    """An archive shows its URI, a network of the catalogue its name."""
    assert snapshot(pb.Job(model=pb.Model(uri="objects/1"))).model == ModelArchive("objects/1")
    named = pb.Model(architecture=pb.Architecture(name="mlp", params={"hidden": "3"}))
    assert snapshot(pb.Job(model=named)).model == Architecture("mlp", {"hidden": "3"})


def test_a_plan() -> None:
    """What stays whole, the prunable share, every input and the target are told."""
    message = pb.Plan(prunable=0.5, unpruned=[pb.Unpruned(name="head", size=3, reason="an output")])
    message.dataset.inputs.add(name="ids", shape=[16], dtype="int64")
    message.dataset.target, message.dataset.target_shape[:] = "values", [2]
    answer = plan(message)
    assert (answer.prunable, answer.unpruned) == (0.5, (Unpruned(name="head", size=3, reason="an output"),))
    assert answer.dataset is not None
    assert answer.dataset.inputs == (DatasetInput(name="ids", shape=(16,), dtype="int64"),)
    assert (answer.dataset.target, answer.dataset.target_shape) == ("values", (2,))


def test_events() -> None:
    """A job is a change of state; heartbeats and unknown kinds are no events."""
    change = event(pb.WatchJobResponse(sequence=4, job=pb.Job(name="jobs/1")))
    assert isinstance(change, StateChanged)
    assert (change.sequence, change.job.name, change.time) == (4, "jobs/1", None)
    assert event(pb.WatchJobResponse(heartbeat=pb.Heartbeat())) is None
    assert event(pb.WatchJobResponse()) is None
