"""The table of state changes."""

import itertools

import pytest

from npn_service.errors import WrongState
from npn_service.jobs.model import TRANSITIONS, DatasetRef, State, check_transition

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
def test_a_dataset_knows_its_object(uri: str, object_id: str | None) -> None:
    """Only objects/{id} names an uploaded object."""
    assert DatasetRef(uri=uri).object_id == object_id
