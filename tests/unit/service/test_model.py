"""The table of state changes."""

import itertools
from dataclasses import replace

import pytest
from job_samples import SPEC

from npn_service.errors import WrongState
from npn_service.jobs.model import TRANSITIONS, DatasetRef, ModelRef, State, check_transition, object_id_of

ALLOWED = {
    ("QUEUED", "RUNNING"),
    ("QUEUED", "CANCELLED"),
    ("QUEUED", "FAILED"),
    ("RUNNING", "QUEUED"),
    ("RUNNING", "CANCELLING"),
    ("RUNNING", "SUCCEEDED"),
    ("RUNNING", "FAILED"),
    ("CANCELLING", "CANCELLED"),
    ("CANCELLING", "SUCCEEDED"),
    ("CANCELLING", "FAILED"),
}


@pytest.mark.parametrize(("source", "target"), list(itertools.product(State, State)))
def test_every_pair_is_allowed_or_raises(source: State, target: State) -> None:
    """Of all 36 pairs the ten of the life cycle pass; every other one is WrongState."""
    if (source.name, target.name) in ALLOWED:
        check_transition(source, target)
    else:
        with pytest.raises(WrongState, match=source.name):
            check_transition(source, target)


def test_done_states_have_no_way_out() -> None:
    """`done` and the table say the same."""
    assert {state for state in State if state.done} == {State.SUCCEEDED, State.FAILED, State.CANCELLED}
    assert set(TRANSITIONS) == set(State)


@pytest.mark.parametrize(
    ("uri", "object_id"),
    [("objects/a1", "a1"), ("objects/", None), ("s3://objects/a", None), ("objects", None)],
)
def test_only_one_kind_of_uri_names_an_object(uri: str, object_id: str | None) -> None:
    """Only objects/{id} names an uploaded object."""
    assert object_id_of(uri) == object_id


def test_a_job_reads_its_dataset_and_its_model() -> None:
    """A network of the catalogue has no object; a model and a dataset may be one object."""
    dataset = DatasetRef(uri="objects/a")
    assert replace(SPEC, dataset=dataset).object_ids == {"a"}
    assert replace(SPEC, dataset=dataset, model=ModelRef(uri="objects/b")).object_ids == {"a", "b"}
    assert replace(SPEC, dataset=dataset, model=ModelRef(uri="objects/a")).object_ids == {"a"}
    assert replace(SPEC, model=ModelRef(uri="objects/b")).uris == {
        "job.dataset.uri": SPEC.dataset.uri,
        "job.model.uri": "objects/b",
    }
