"""rpc/filters.py: the filter of ListJobs."""

from datetime import UTC, datetime

import pytest

from npn_service.errors import InvalidRequest
from npn_service.jobs.model import State
from npn_service.jobs.store import JobFilter
from npn_service.rpc.filters import parse_filter


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", JobFilter()),
        ("  ", JobFilter()),
        ("state = RUNNING", JobFilter(state=State.RUNNING)),
        ("state=QUEUED", JobFilter(state=State.QUEUED)),
        ('labels.team = "vision"', JobFilter(labels={"team": "vision"})),
        ("labels.team = vision", JobFilter(labels={"team": "vision"})),
        ('labels.team = ""', JobFilter(labels={"team": ""})),
        (r'labels.team = "a \"b\" \\ AND c"', JobFilter(labels={"team": r'a "b" \ AND c'})),
        (
            'create_time >= "2026-01-31T00:00:00Z" AND create_time <= "2026-02-01T00:00:00+01:00"',
            JobFilter(
                created_from=datetime(2026, 1, 31, tzinfo=UTC),
                created_to=datetime(2026, 1, 31, 23, tzinfo=UTC),
            ),
        ),
        (
            'state = FAILED AND labels.a = "1" AND labels.b-2 = "2"',
            JobFilter(state=State.FAILED, labels={"a": "1", "b-2": "2"}),
        ),
    ],
)
def test_a_filter_means_what_it_says(text: str, expected: JobFilter) -> None:
    """Terms joined by AND narrow the list."""
    assert parse_filter(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "state",
        "state =",
        "state = SLEEPING",
        "state = running",
        "state >= RUNNING",
        "state = RUNNING state = RUNNING",
        "state = RUNNING AND state = FAILED",
        "state = RUNNING OR state = FAILED",
        "state = RUNNING and labels.a = b",
        "state = RUNNING AND",
        "AND state = RUNNING",
        'labels.a = "\0"',
        'create_time >= "0001-01-01T00:00:00+23:00"',
        " AND ".join(f"labels.a{at} = b" for at in range(1_000)),
        "NOT state = RUNNING",
        "owner >= me",
        "owner = a AND owner = b",
        "creator = me",
        "labels. = x",
        "labels.Team = x",
        "labels.a = x AND labels.a = y",
        'labels.a = "x',
        'labels.a = "x"y',
        'create_time = "2026-01-31T00:00:00Z"',
        "create_time >= yesterday",
        'create_time >= "2026-01-31T00:00:00"',
        'create_time > "2026-01-31T00:00:00Z"',
    ],
)
def test_anything_else_is_refused(text: str) -> None:
    """A filter that is not understood never lists all jobs."""
    with pytest.raises(InvalidRequest) as caught:
        parse_filter(text)
    assert caught.value.violations[0].field == "filter"
