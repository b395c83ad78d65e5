"""What the database holds of jobs as JSON text: specs, plans, progress, errors, results and whole jobs."""

import json
from typing import TypeVar

from npn_core.errors import InvalidInput
from npn_core.strict_json import DocumentError, from_json, to_json

T = TypeVar("T")


def encode(value: object) -> str:
    """A frozen dataclass, or a tuple of them, as JSON text."""
    return json.dumps(to_json(value), separators=(",", ":"), allow_nan=False)


def decode(expected: type[T], text: str) -> T:
    """The `expected` dataclass that `encode` wrote, or an older version of it whose new fields have defaults.

    Raises DocumentError, also where the values are refused by the dataclass itself.
    """
    try:
        return from_json(expected, json.loads(text), fill_defaults=True)
    except (InvalidInput, json.JSONDecodeError) as error:
        raise DocumentError(f"a stored {expected.__name__} cannot be read: {error}") from error
