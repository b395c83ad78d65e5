"""The strict reader and writer of dataclasses."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

import pytest

from npn_core.progress import Stage
from npn_core.strict_json import DocumentError, from_json, to_json


@dataclass(frozen=True, kw_only=True, slots=True)
class Inner:
    """A part."""

    names: tuple[str, ...]
    limit: int | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Outer:
    """A document."""

    ratio: float
    on: bool
    stage: Stage
    parts: Mapping[str, Inner]


DOCUMENT = Outer(ratio=0.5, on=True, stage=Stage.DENSE, parts={"a": Inner(names=("x", "y"), limit=None)})


def test_round_trip() -> None:
    """What was written is read as it was, through text."""
    assert from_json(Outer, json.loads(json.dumps(to_json(DOCUMENT)))) == DOCUMENT


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_numbers_that_json_lacks(value: float) -> None:
    """Infinities and NaN travel as strings, in JSON that any reader takes."""
    document = Outer(ratio=value, on=True, stage=Stage.DENSE, parts={})
    read = from_json(Outer, json.loads(json.dumps(to_json(document), allow_nan=False)))
    assert read.ratio == value or (math.isnan(read.ratio) and math.isnan(value))


def test_a_whole_number_is_a_float() -> None:
    """Other writers leave the fraction of 1.0 out."""
    assert isinstance(from_json(Outer, to_json(DOCUMENT) | {"ratio": 1}).ratio, float)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"extra": 1}, "document has an unknown key 'extra'"),
        ({"on": 1}, "document.on is of type int, not bool"),
        ({"ratio": True}, "document.ratio is of type bool, not float"),
        ({"ratio": "1"}, "document.ratio is of type str, not float"),
        ({"stage": "late"}, "document.stage is 'late', not a Stage"),
        ({"parts": []}, "document.parts is of type list, not dict"),
        ({"parts": {"a": {"names": []}}}, "document.parts.a lacks the key 'limit'"),
        ({"parts": {"a": {"names": ["x", 1], "limit": 1}}}, r"document.parts.a.names\[1\] is of type int"),
        ({"parts": {"a": {"names": [], "limit": 1.5}}}, "document.parts.a.limit is of type float, not int"),
    ],
)
def test_refusals(change: dict[str, object], words: str) -> None:
    """Anything unknown, missing or of another type is refused with its place."""
    with pytest.raises(DocumentError, match=words):
        from_json(Outer, to_json(DOCUMENT) | change)


@dataclass(frozen=True, kw_only=True, slots=True)
class Grown:
    """A document that got a field later."""

    at: datetime
    added: int = 7


def test_times_round_trip() -> None:
    """Times travel with their zone; other text is refused with its place."""
    document = Grown(at=datetime(2026, 1, 31, 12, 30, tzinfo=UTC))
    assert from_json(Grown, to_json(document)) == document
    with pytest.raises(DocumentError, match=r"document.at is 'noon', not a datetime"):
        from_json(Grown, {"at": "noon", "added": 1})


def test_defaults_are_filled_in_only_where_asked() -> None:
    """A missing key takes its default in documents of an older version, and is refused otherwise."""
    older = {"at": "2026-01-31T12:30:00+00:00"}
    assert from_json(Grown, older, fill_defaults=True).added == 7
    with pytest.raises(DocumentError, match="lacks the key 'added'"):
        from_json(Grown, older)
    with pytest.raises(DocumentError, match="lacks the key 'at'"):
        from_json(Grown, {}, fill_defaults=True)
