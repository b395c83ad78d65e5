"""Decoded JSON to the dataclasses of torch's export schema, with every type checked.

torch's own conversion takes any value for any field.  Here a value has exactly the type that the schema says: no
bool for an int, no number that is none, no tag that a union lacks.  Keys that the schema lacks are dropped, as
torch does, so that archives of a later minor version can be read.
"""

import dataclasses
import functools
import json
import math
import types
import typing
from collections.abc import Callable
from enum import IntEnum
from typing import Any

from torch._export.serde import schema
from torch._export.serde.union import _Union

from .archive import MAX_JSON_BYTES, ModelArchive
from .refusal import HOW_TO_EXPORT, refuse, shown

MAX_TEXT = 1 << 20
_INT64 = 1 << 63
_NOT_NUMBERS = {"Infinity": math.inf, "-Infinity": -math.inf, "NaN": math.nan}

Reader = Callable[[Any], Any]
T = typing.TypeVar("T")


class Malformed(Exception):
    """A value is not what the schema says; the message names it, `place` where it is, innermost first."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message
        self.place: list[str] = []


def read_document(archive: ModelArchive, name: str, expected: type) -> Any:
    """The entry's JSON as the schema's dataclass; raises InvalidInput naming the place."""
    view = archive.bytes_of(name, MAX_JSON_BYTES)
    try:
        return _reader(expected)(json.loads(bytes(view).decode("utf-8"), parse_constant=_no_constant))
    except Malformed as malformed:
        place = ".".join(reversed(malformed.place))
        raise refuse(
            "MODEL_NOT_PT2", f"{name}: {shown(place, 200)} {malformed.message}; {HOW_TO_EXPORT}"
        ) from None
    except RecursionError:
        raise refuse("MODEL_TOO_LARGE", f"{name} is nested too deeply; {HOW_TO_EXPORT}") from None
    except ValueError:  # of decoding and of JSON
        raise refuse("MODEL_NOT_PT2", f"{name} is no JSON; {HOW_TO_EXPORT}") from None


def _no_constant(name: str) -> float:
    raise ValueError(name)  # a bare NaN is Python's, not JSON's


@functools.cache
def _reader(expected: Any) -> Reader:
    origin, arguments = typing.get_origin(expected), typing.get_args(expected)
    if origin in (types.UnionType, typing.Union):  # only X | None appears
        return _optional(next(argument for argument in arguments if argument is not types.NoneType))
    if origin is list:
        return _list(arguments[0])
    if origin is dict:
        return _dict(arguments[1])
    if isinstance(expected, type) and issubclass(expected, _Union):
        return _union(expected)
    if dataclasses.is_dataclass(expected):
        return _dataclass(typing.cast(type, expected))
    if isinstance(expected, type) and issubclass(expected, IntEnum):
        return _enum(expected)
    return {int: _int, float: _float, str: _str, bool: _bool}[expected]


def _optional(inner: Any) -> Reader:
    return lambda value: None if value is None else _reader(inner)(value)


def _list(inner: Any) -> Reader:
    def read(value: object) -> list[Any]:
        reader = _reader(inner)
        result = []
        for index, item in enumerate(_require(list, value)):
            try:
                result.append(reader(item))
            except Malformed as malformed:
                malformed.place.append(str(index))
                raise
        return result

    return read


def _dict(inner: Any) -> Reader:
    def read(value: object) -> dict[str, Any]:
        reader = _reader(inner)
        result = {}
        for key, item in _require(dict, value).items():
            try:
                result[_str(key)] = reader(item)
            except Malformed as malformed:
                malformed.place.append(key)
                raise
        return result

    return read


def _union(cls: type[_Union]) -> Reader:
    hints = typing.get_type_hints(cls, globalns=vars(schema))
    hints.pop("_type", None)
    create: Any = cls.create

    def read(value: object) -> _Union:
        pairs = _require(dict, value)
        if len(pairs) != 1:
            raise Malformed(f"has {len(pairs)} kinds at once; it must have one")
        ((tag, item),) = pairs.items()
        if tag not in hints:
            raise Malformed(f"has an unknown kind {shown(tag)}")
        try:
            content = _reader(hints[tag])(item)
        except Malformed as malformed:
            malformed.place.append(tag)
            raise
        return typing.cast(_Union, create(**{tag: content}))

    return read


def _dataclass(cls: type) -> Reader:
    hints = typing.get_type_hints(cls, globalns=vars(schema))
    required = {
        field.name
        for field in dataclasses.fields(cls)
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    }

    def read(value: object) -> Any:
        pairs = _require(dict, value)
        for name in sorted(required - pairs.keys()):
            raise Malformed(f"lacks {name!r}")
        result = {}
        for name, hint in hints.items():
            if name in pairs:
                try:
                    result[name] = _reader(hint)(pairs[name])
                except Malformed as malformed:
                    malformed.place.append(name)
                    raise
        return cls(**result)

    return read


def _enum(cls: type[IntEnum]) -> Reader:
    members = {member.value: member for member in cls}

    def read(value: object) -> IntEnum:
        number = _int(value)
        if number not in members:
            raise Malformed(f"is {number}, which is no {cls.__name__}")
        return members[number]

    return read


def _int(value: object) -> int:
    number = _require(int, value)
    if not -_INT64 <= number < _INT64:
        raise Malformed("is an integer of more than 64 bits")
    return number


def _float(value: object) -> float:
    if type(value) is str and value in _NOT_NUMBERS:  # as torch writes them
        return _NOT_NUMBERS[value]
    return float(_int(value)) if type(value) is int else _require(float, value)


def _str(value: object) -> str:
    text = _require(str, value)
    if len(text) > MAX_TEXT:
        raise Malformed(f"is a text of {len(text):,} characters; at most {MAX_TEXT:,}")
    if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
        raise Malformed("is a text that no encoding has")
    return text


def _bool(value: object) -> bool:
    return _require(bool, value)


def _require(expected: type[T], value: object) -> T:
    if type(value) is not expected:  # not isinstance: True is no int here
        raise Malformed(f"is of type {type(value).__name__}, not {expected.__name__}")
    return value
