"""JSON text of what the database stores."""

import json
import math
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from job_samples import ERROR, PLAN, RESULT, SPEC, progress_at

from npn_core.config import Budget, Preprocessing, Training
from npn_core.progress import Progress
from npn_core.strict_json import DocumentError
from npn_service.jobs.codec import decode, encode
from npn_service.jobs.model import FileSpec, Job, JobSpec, ModelRef, State

JOB = Job(
    id="1",
    owner="local",
    creator="me",
    state=State.RUNNING,
    spec=SPEC,
    plan=PLAN,
    create_time=datetime(2026, 1, 31, 12, 0, 0, 5, tzinfo=UTC),
    progress=progress_at(3),
    error=ERROR,
    result=RESULT,
)


@pytest.mark.parametrize(
    "value", [SPEC, PLAN, RESULT, ERROR, JOB, progress_at(1)], ids=lambda v: type(v).__name__
)
def test_stored_values_come_back_equal(value: object) -> None:
    """Every kind of value that the database holds survives the round trip."""
    assert decode(type(value), encode(value)) == value


def test_a_tuple_of_files_comes_back() -> None:
    """The files of an upload keep their order."""
    files = (FileSpec(path="b", size=1, sha256="0"), FileSpec(path="a", size=2, sha256="1"))
    assert decode(tuple[FileSpec, ...], encode(files)) == files


def test_the_text_is_standard_json() -> None:
    """Infinite k is a string, as other readers of the database have no literal for it."""
    text = encode(progress_at(1))
    assert json.loads(text, parse_constant=lambda name: pytest.fail(name))["k"] == "Infinity"
    assert decode(Progress, text).k == math.inf


@given(
    labels=st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=3),
    lr=st.floats(min_value=1e-300, max_value=1e300),
    seed=st.integers(min_value=0, max_value=2**63 - 1),
    mean=st.lists(st.floats(allow_nan=False, allow_infinity=False), max_size=3),
    max_macs=st.none() | st.integers(min_value=1),
)
def test_any_spec_comes_back_equal(
    labels: dict[str, str], lr: float, seed: int, mean: list[float], max_macs: int | None
) -> None:
    """Text of any script, the full range of floats and integers, absent and present limits."""
    preprocessing = Preprocessing(mode="fixed", scale=0.5, mean=tuple(mean), std=(1.0,) * len(mean))
    spec = replace(
        SPEC,
        labels=labels,
        training=Training(lr=lr, seed=seed, preprocessing=preprocessing),
        budget=Budget(max_params=5, max_macs=max_macs),
    )
    assert decode(JobSpec, encode(spec)) == spec


def test_a_model_is_told_apart_by_its_keys() -> None:
    """A network of the catalogue, as older rows have it, and an archive."""
    assert decode(JobSpec, encode(SPEC)).model == SPEC.model
    own = replace(SPEC, model=ModelRef(uri="objects/1"))
    assert decode(JobSpec, encode(own)) == own


def test_a_job_without_a_plan_comes_back() -> None:
    """The check took too long; events hold the job all the same."""
    assert decode(Job, encode(replace(JOB, plan=None))).plan is None


def changed(**fields: object) -> str:
    """The text of SPEC with some keys set."""
    return json.dumps(json.loads(encode(SPEC)) | fields)


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        changed(unknown=1),
        changed(priority="0"),
        changed(priority=True),
        changed(dataset={"layout": ""}),
        changed(budget={"max_params": -1}),
        changed(model={}),
        changed(model={"uri": "objects/1", "name": "mlp"}),
        changed(model={"uri": 1}),
        changed(model="mlp"),
    ],
)
def test_other_text_is_refused(text: str) -> None:
    """Broken JSON, unknown and missing keys, other types and values that the spec refuses."""
    with pytest.raises(DocumentError):
        decode(JobSpec, text)


def test_rows_of_an_older_version_get_the_new_fields_default() -> None:
    """A field that was added later, with a default, does not make old jobs unreadable."""
    older = json.loads(encode(SPEC))
    del older["max_duration"], older["training"]["mask"]
    assert decode(JobSpec, json.dumps(older)) == replace(SPEC, max_duration=None)
