"""The filter of ListJobs: terms joined by AND, parsed strictly.

    state = RUNNING AND owner = "vision" AND labels.team = "vision" AND create_time >= "2026-01-31T00:00:00Z"

`state`, `owner` and `labels.KEY` take `=`, `create_time` takes `>=` and `<=`.
"""

import re
from datetime import UTC, datetime

from npn_service.errors import InvalidRequest
from npn_service.jobs.model import State
from npn_service.jobs.store import JobFilter

from .decode import LABEL_KEY, MAX_LABELS

_TERM = re.compile(
    r"""\s* (?P<field> state | owner | create_time | labels\.[^\s=<>]* ) \s* (?P<operator> >= | <= | = ) \s*
        (?: "(?P<quoted> (?: [^"\\] | \\["\\] )* )" | (?P<bare> [^\s"\\]+ ) )""",
    re.VERBOSE,
)
_AND = re.compile(r"\s+AND\s+")


def parse_filter(text: str) -> JobFilter:
    """Raises InvalidRequest that shows the place where the text is no filter."""
    if not text.strip():
        return JobFilter()
    owner: str | None = None
    state: State | None = None
    labels: dict[str, str] = {}
    bounds: dict[str, datetime] = {}
    for field, operator, value in _terms(text):
        if field == "state" and operator == "=" and state is None:
            state = _state(value)
        elif field == "owner" and operator == "=" and owner is None:
            owner = value
        elif field == "create_time" and operator != "=" and operator not in bounds:
            bounds[operator] = _time(value)
        elif field.startswith("labels.") and operator == "=" and field not in labels:
            labels[field] = value
            if len(labels) > MAX_LABELS:
                raise _wrong(f"more than {MAX_LABELS} labels; no job has so many")
        else:
            raise _wrong(f"{field} {operator} is not a term of its own here; see the comment on filter")
    return JobFilter(
        owner=owner,
        state=state,
        labels={_label_key(field): value for field, value in labels.items()} or None,
        created_from=bounds.get(">="),
        created_to=bounds.get("<="),
    )


def _terms(text: str) -> list[tuple[str, str, str]]:
    terms = []
    position = 0
    while True:
        term = _TERM.match(text, position)
        if term is None:
            raise _wrong(f"no term at {text[position : position + 40]!r}; a term is like state = RUNNING")
        value = term["bare"] if term["quoted"] is None else re.sub(r"\\(.)", r"\1", term["quoted"])
        if not value.isprintable():
            raise _wrong(f"{value!r:.60} has control characters, which no value has")
        terms.append((term["field"], term["operator"], value))
        position = term.end()
        if not text[position:].strip():
            return terms
        joint = _AND.match(text, position)
        if joint is None:
            raise _wrong(f"AND is missing at {text[position : position + 40]!r}; other joints are not taken")
        position = joint.end()


def _state(value: str) -> State:
    try:
        return State[value]
    except KeyError:
        raise _wrong(f"unknown state {value!r}; known: {', '.join(State.__members__)}") from None


def _time(value: str) -> datetime:
    try:
        time = datetime.fromisoformat(value)
    except ValueError:
        time = None
    if time is None or time.tzinfo is None:
        raise _wrong(f"{value!r} is no time with a zone, like 2026-01-31T00:00:00Z")
    try:
        return time.astimezone(UTC)
    except OverflowError:
        raise _wrong(f"{value!r} is a time before year 1 or after 9999") from None


def _label_key(field: str) -> str:
    key = field.removeprefix("labels.")
    if not LABEL_KEY.fullmatch(key):
        raise _wrong(f"label key {key!r} does not match {LABEL_KEY.pattern}")
    return key


def _wrong(message: str) -> InvalidRequest:
    return InvalidRequest("filter", message)
