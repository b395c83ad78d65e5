"""Frozen dataclasses to JSON and back, strictly: no key may be unknown, missing or of another type.

A union of dataclasses is told apart by its keys, so no two of its members may take the same ones.

Numbers that JSON cannot write are the strings "Infinity", "-Infinity" and "NaN", as in protobuf's JSON;
times are strings in ISO 8601.
"""

import dataclasses
import math
import types
import typing
from collections.abc import Mapping
from datetime import datetime
from enum import Enum
from functools import cache
from typing import Any, TypeVar

T = TypeVar("T")

_AS_THEY_ARE = {str, int, bool, types.NoneType}
_NOT_NUMBERS = {"Infinity": math.inf, "-Infinity": -math.inf, "NaN": math.nan}


class DocumentError(ValueError):
    """A JSON document that is not what its reader expects; the message names the place."""


def to_json(value: object) -> Any:
    """What `json.dumps` takes (no NaN), for a dataclass, enum, mapping, sequence, time or scalar."""
    if type(value) in _AS_THEY_ARE:
        return value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {name: to_json(getattr(value, name)) for name in _fields_of(type(value))}
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Mapping):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value


def from_json(expected: type[T], value: object, *, fill_defaults: bool = False) -> T:
    """The `expected` dataclass read from decoded JSON; raises DocumentError naming the place.

    With `fill_defaults` a missing key takes the field's default: for documents of an older version.
    """
    return typing.cast(T, _read(expected, value, "document", fill_defaults))


def _read(expected: Any, value: object, at: str, fill: bool) -> object:
    origin, arguments = typing.get_origin(expected), typing.get_args(expected)
    if dataclasses.is_dataclass(expected):
        return _read_dataclass(typing.cast(type, expected), value, at, fill)
    if origin in (types.UnionType, typing.Union):
        if value is None and types.NoneType in arguments:
            return None
        members = [argument for argument in arguments if argument is not types.NoneType]
        return _read(members[0] if len(members) == 1 else _member(members, value, at), value, at, fill)
    if origin is tuple:
        items = _require(list, value, at)
        return tuple(_read(arguments[0], item, f"{at}[{index}]", fill) for index, item in enumerate(items))
    if origin is Mapping:
        pairs = _require(dict, value, at)
        return {key: _read(arguments[1], item, f"{at}.{key}", fill) for key, item in pairs.items()}
    if isinstance(expected, type) and issubclass(expected, Enum | datetime):
        try:
            return expected(value) if issubclass(expected, Enum) else datetime.fromisoformat(str(value))
        except ValueError:
            raise DocumentError(f"{at} is {value!r}, not a {expected.__name__}") from None
    if expected is float:
        if isinstance(value, str) and value in _NOT_NUMBERS:
            return _NOT_NUMBERS[value]
        return float(value) if type(value) is int else _require(float, value, at)
    return _require(expected, value, at)


def _read_dataclass(expected: type, value: object, at: str, fill: bool) -> object:
    pairs = _require(dict, value, at)
    fields = _fields_of(expected)
    for key in pairs:
        if key not in fields:
            raise DocumentError(f"{at} has an unknown key {key!r}")
    for name, (_, has_default) in fields.items():
        if name not in pairs and not (fill and has_default):
            raise DocumentError(f"{at} lacks the key {name!r}")
    values = {name: _read(fields[name][0], item, f"{at}.{name}", fill) for name, item in pairs.items()}
    return typing.cast(object, expected(**values))


@cache  # the types are resolved once: that is most of the time that reading a document takes
def _fields_of(of: type) -> Mapping[str, tuple[Any, bool]]:
    """Type, and whether there is a default, of a dataclass's fields by name."""
    types_of = typing.get_type_hints(of)
    return {field.name: (types_of[field.name], _has_default(field)) for field in dataclasses.fields(of)}


def _member(members: list[type], value: object, at: str) -> type:
    """The one dataclass of a union that takes the keys of `value`."""
    keys = set(_require(dict, value, at))
    fitting = [member for member in members if keys and keys <= _fields_of(member).keys()]
    if len(fitting) != 1:
        names = " or ".join(member.__name__ for member in members)
        raise DocumentError(f"{at} with the keys {sorted(keys)} is no {names}")
    return fitting[0]


def _has_default(field: "dataclasses.Field[Any]") -> bool:
    return field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING


def _require(expected: type[T], value: object, at: str) -> T:
    if type(value) is not expected:  # not isinstance: True is no int here
        raise DocumentError(f"{at} is of type {type(value).__name__}, not {expected.__name__}")
    return value
