"""Valid messages with one field changed, or whose bytes are no message."""

import random
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

TEXTS = (
    "",
    " ",
    "x",
    "jobs/",
    "jobs/none",
    "jobs/../jobs/none",
    "jobs/%2e%2e",
    "objects/none",
    "objects/../../x",
    "uploads/none",
    "s3://bucket/key",
    "file:///etc/passwd",
    "/etc/passwd",
    "state = RUNNING",
    "'; DROP TABLE jobs; --",
    "\0",
    "\u202e\ud7ff\U0001f600",
    "a" * 300,
    "0" * 64,
    "00000000-0000-0000-0000-000000000000",
    "x" * 100_000,
)
INTEGERS = (0, 1, -1, 2, 1000, 1 << 20, (1 << 31) - 1, -(1 << 31))
LONGS = (*INTEGERS, (1 << 63) - 1, -(1 << 63))
FLOATS = (0.0, -1.0, 1e-300, 1e300, float("nan"), float("inf"), float("-inf"))


def mutated(message: Any, by: random.Random) -> Any:
    """A copy with one field, at any depth, changed."""
    copy = type(message)()
    copy.CopyFrom(message)
    _mutate(copy, by)
    return copy


def broken(message: Message, by: random.Random) -> bytes:
    """The bytes of a message, damaged so that they may be none."""
    data = bytearray(message.SerializeToString() or b"\x0a\x01x")
    for _ in range(by.randrange(1, 4)):
        data[by.randrange(len(data))] = by.randrange(256)
    return bytes(data[: by.randrange(len(data) + 1)]) + by.choice([b"", b"\xff" * 11, by.randbytes(9)])


def _mutate(message: Message, by: random.Random) -> None:
    field = by.choice(message.DESCRIPTOR.fields)
    inner = field.message_type is not None and not field.is_repeated
    if inner and message.HasField(field.name) and by.random() < 0.8 and field.message_type.fields:
        _mutate(getattr(message, field.name), by)
    elif by.random() < 0.2:
        message.ClearField(field.name)  # type: ignore[arg-type]
    elif _is_map(field):
        getattr(message, field.name)[by.choice(TEXTS)] = by.choice(TEXTS)
    elif field.is_repeated:
        _mutate_list(getattr(message, field.name), field, by)
    elif inner:
        getattr(message, field.name).SetInParent()
    else:
        setattr(message, field.name, _value(field, by))


def _mutate_list(values: Any, field: FieldDescriptor, by: random.Random) -> None:
    if values and by.random() < 0.3:
        del values[:]
    elif field.message_type is None:
        values.extend([_value(field, by)] * by.choice([1, 1, 50]))
    else:
        if values and by.random() < 0.5:
            values.add().CopyFrom(values[0])
        _mutate(by.choice(values) if values and by.random() < 0.5 else values.add(), by)


def _is_map(field: FieldDescriptor) -> bool:
    return field.message_type is not None and field.message_type.GetOptions().map_entry


def _value(field: FieldDescriptor, by: random.Random) -> Any:
    match field.cpp_type:
        case FieldDescriptor.CPPTYPE_STRING:
            return by.randbytes(9) if field.type == FieldDescriptor.TYPE_BYTES else by.choice(TEXTS)
        case FieldDescriptor.CPPTYPE_BOOL:
            return by.random() < 0.5
        case FieldDescriptor.CPPTYPE_INT64:
            return by.choice(LONGS)
        case FieldDescriptor.CPPTYPE_ENUM | FieldDescriptor.CPPTYPE_INT32:
            return by.choice(INTEGERS)
        case FieldDescriptor.CPPTYPE_DOUBLE:
            return by.choice(FLOATS)
    raise AssertionError(f"no values of {field.full_name} are known here")
