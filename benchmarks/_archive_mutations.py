"""Changes to an archive: of fields inside of its entries, zipped again with valid checksums, and of raw bytes."""

import json
import pickle
import random
import zipfile
from collections.abc import Callable
from io import BytesIO
from typing import Any

Entries = list[tuple[str, bytes]]
ALIGNMENT = 64
NUMBERS = (
    0,
    1,
    -1,
    2,
    3,
    7,
    127,
    255,
    1 << 15,
    (1 << 31) - 1,
    1 << 32,
    (1 << 63) - 1,
    -(1 << 63),
    1 << 64,
    10**30,
)
OTHERS: tuple[object, ...] = (
    None,
    True,
    False,
    0.5,
    -1e308,
    float("nan"),
    float("inf"),
    "",
    "x",
    [],
    {},
    [[]],
    "NaN",
    "Infinity",
)
EXPRESSIONS = (
    "Integer(2)", "Integer(-1)", "Symbol('s0', positive=True, integer=True)", "Symbol('u0', integer=True)",
    "Pow(Integer(9), Integer(8))", "Pow(Integer(10), Integer(1000000000))", "Integer(99999999999999999)",
    "FloorDiv(Integer(1), Integer(0))", "Mod(Symbol('s77', positive=True, integer=True), Integer(3))",
    "Add(Symbol('s77', positive=True, integer=True), Integer(1))", "Max(Integer(1), Integer(2))", "oo", "zoo",
)  # fmt: skip
TARGETS = (
    "torch.ops.aten.relu.default", "torch.ops.aten.add.Tensor", "torch.ops.aten.view.default",
    "torch.ops.aten.repeat.default", "torch.ops.aten.expand.default", "torch.ops.aten.as_strided.default",
    "torch.ops.aten.sum.default", "torch.ops.aten.t.default", "torch.ops.aten.item.default",
    "torch.ops.aten.index_select.default", "torch.ops.aten.from_file.default", "torch.ops.aten.full.default",
    "torch.ops.aten.nonzero.default", "torch.ops.aten.conv2d.default", "torch.ops.aten.embedding.default",
    "torch.hub.load", "torch.load", "_operator.pow", "_operator.mul", "torch.sym_max", "math.trunc", "builtins.eval",
)  # fmt: skip
FIELDS = (
    "target", "expr_str", "dtype", "as_int", "name", "in_spec", "out_spec", "as_name", "kind", "storage_offset",
    "sizes", "strides", "arg", "path_name", "parameter_name", "guards_code", "min_val", "nn_module_stack",
    "requires_grad", "hint", "type", "as_ints", "as_sym_ints",
)  # fmt: skip


class Payload:
    """A pickle that makes the marker."""

    def __init__(self, marker: str) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        import os

        return os.mkdir, (self.marker,)


def payload_texts(marker: str) -> tuple[str, ...]:
    """Texts that make the marker where something evaluates them, or breaks out of what they are written into."""
    call = f"__import__('os').mkdir({marker!r})"
    return (
        call,
        f"x\n{call}\n",
        f'a"); {call} #',
        f"Symbol('s0', positive={call})",
        f"x={call}",
        f"{{{call}}}",
    )


def mutate_inside(entries: Entries, rng: random.Random, marker: str) -> bytes:
    """One to three changes inside of entries; checksums are valid."""
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        rng.choice((_change_json,) * 8 + (_change_weight, _change_entries))(entries, rng, marker)
    return zip_entries(entries, aligned=rng.random() < 0.7)


def mutate_raw(data: bytes, rng: random.Random) -> bytes:
    """Flipped, removed, repeated and inserted bytes, half of them in the zip's directory and headers."""
    raw = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        length = len(raw)
        if length < 100:
            break
        directory = rng.random() < 0.5
        place = rng.randrange(length - min(length, 2500), length) if directory else rng.randrange(length)
        size = rng.choice((1, 1, 4, 16, 256))
        kind = rng.randrange(6)
        if kind <= 2:
            raw[place] = rng.choice((raw[place] ^ 1 << rng.randrange(8), rng.randrange(256), 0, 255))
        elif kind == 3:
            del raw[place : place + size]
        elif kind == 4:
            raw[place:place] = rng.choice(
                (bytes(size), rng.randbytes(size), bytes(raw[place - size : place]))
            )
        else:
            raw[place : place + 4] = rng.choice(NUMBERS[:9]).to_bytes(8, "little", signed=True)[:4]
    if rng.random() < 0.05:
        del raw[rng.randrange(len(raw)) :]
    return bytes(raw)


def zip_entries(entries: Entries, *, aligned: bool) -> bytes:
    """A zip of stored entries; `aligned` as torch writes them, so that weights are mapped."""
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in entries:
            info = zipfile.ZipInfo(f"archive/{name}")
            if aligned:
                after = buffer.tell() + 30 + len(info.filename.encode()) + 4
                padding = -after % ALIGNMENT
                info.extra = b"FB" + padding.to_bytes(2, "little") + b"Z" * padding
            archive.writestr(info, data)
    return buffer.getvalue()


def _change_weight(entries: Entries, rng: random.Random, marker: str) -> None:
    index = rng.choice([i for i, (name, _) in enumerate(entries) if "/weight_" in name or "/tensor_" in name])
    name, data = entries[index]
    raw = bytearray(data or b"\0")
    for _ in range(rng.randrange(1, 5)):
        raw[rng.randrange(len(raw))] = rng.randrange(256)
    kind = rng.randrange(4)
    changed = (bytes(raw), bytes(raw[:-1]), bytes(raw) + b"\0" * 4, pickle.dumps(Payload(marker)))[kind]
    entries[index] = (name, changed)


def _change_entries(entries: Entries, rng: random.Random, marker: str) -> None:
    index = rng.randrange(len(entries))
    name, data = entries[index]
    kind = rng.randrange(6)
    if kind == 0:
        del entries[index]
    elif kind == 1:
        entries[index] = (rng.choice((name + "x", "../" + name, name.upper(), "extra/" + name, "")), data)
    elif kind == 2:
        entries.append(
            (rng.choice((name, "data/constants/custom_obj_0", "data/weights/model.pt", "a/b")), data)
        )
    elif kind == 3:
        other = rng.randrange(len(entries))
        entries[index], entries[other] = (name, entries[other][1]), (entries[other][0], data)
    elif kind == 4:
        entries[index] = (name, pickle.dumps(Payload(marker)))
    else:
        place = next((i for i, (name, _) in enumerate(entries) if "sample_inputs" in name), index)
        entries[place] = (entries[place][0], pickle.dumps(Payload(marker)))


def _change_json(entries: Entries, rng: random.Random, marker: str) -> None:
    names = [i for i, (name, _) in enumerate(entries) if name.endswith(".json")]
    if not names:
        return
    index = rng.choice(names + [i for i in names if entries[i][0].startswith("models/")] * 3)
    name, data = entries[index]
    try:
        document = json.loads(data)
    except ValueError:  # changed before
        return
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        _change_value(document, rng, marker)
    text = json.dumps(document)
    entries[index] = (name, text.encode("utf-8", "surrogatepass"))


def _places(document: Any, found: list[tuple[Any, Any]]) -> list[tuple[Any, Any]]:
    """Every (container, key) in the document."""
    if not isinstance(document, dict | list):
        return found
    pairs = document.items() if isinstance(document, dict) else enumerate(document)
    for key, value in pairs:
        found.append((document, key))
        if isinstance(value, dict | list):
            _places(value, found)
    return found


def _change_value(document: Any, rng: random.Random, marker: str) -> None:
    places = _places(document, [])
    if not places:
        return
    # half of the changes go to the fields that torch acts on
    wanted = rng.choice(FIELDS)
    chosen = [place for place in places if place[1] == wanted] if rng.random() < 0.5 else []
    if not chosen and rng.random() < 0.7:  # whole parts of another kind are refused early
        chosen = [
            (container, key) for container, key in places if not isinstance(container[key], dict | list)
        ]
    container, key = rng.choice(chosen or places)
    _CHANGES[rng.randrange(len(_CHANGES))](container, key, places, rng, marker)


def _replace(container: Any, key: Any, places: Any, rng: random.Random, marker: str) -> None:
    value = container[key]
    if key == "expr_str" and isinstance(value, str):
        container[key] = rng.choice((*EXPRESSIONS, *payload_texts(marker), _splice(value, rng)))
    elif key == "target" and isinstance(value, str):
        container[key] = rng.choice((*TARGETS, *payload_texts(marker), _splice(value, rng)))
    elif key in ("in_spec", "out_spec") and isinstance(value, str):
        container[key] = _change_treespec(value, rng, marker)
    elif isinstance(value, bool):
        container[key] = not value
    elif value is None:
        container[key] = rng.choice((True, 0, "x"))
    elif isinstance(value, int):
        near = (value + 1, value - 1, -value, value * 2, value // 2, rng.randrange(14))
        container[key] = rng.choice(near if rng.random() < 0.7 else NUMBERS)
    elif isinstance(value, float):
        container[key] = rng.choice((-value, value * 2, 0.0, "Infinity", "NaN", 1e300))
    elif isinstance(value, str):
        container[key] = rng.choice(
            (*payload_texts(marker), _splice(value, rng), "", value + "_1", "self", "\ud800")
        )
    else:
        container[key] = rng.choice(OTHERS)


def _replace_by_other(container: Any, key: Any, places: Any, rng: random.Random, marker: str) -> None:
    other, other_key = rng.choice([place for place in places if place[1] == key] or places)
    container[key] = json.loads(json.dumps(other[other_key]))


def _replace_by_any(container: Any, key: Any, places: Any, rng: random.Random, marker: str) -> None:
    container[key] = rng.choice((*NUMBERS, *OTHERS, *payload_texts(marker)))


def _remove(container: Any, key: Any, places: Any, rng: random.Random, marker: str) -> None:
    del container[key]


def _repeat(container: Any, key: Any, places: Any, rng: random.Random, marker: str) -> None:
    if isinstance(container, list):
        container.insert(rng.randrange(len(container) + 1), json.loads(json.dumps(container[key])))
    else:
        container[rng.choice((f"{key}_2", "use_pickle", *payload_texts(marker)))] = container[key]


def _swap(container: Any, key: Any, places: Any, rng: random.Random, marker: str) -> None:
    other = rng.choice(list(container) if isinstance(container, dict) else range(len(container)))
    container[key], container[other] = container[other], container[key]


_Change = Callable[[Any, Any, Any, random.Random, str], None]
_CHANGES: tuple[_Change, ...] = (
    _replace, _replace, _replace, _replace, _replace, _replace_by_other, _replace_by_other, _replace_by_other,
    _replace_by_any, _remove, _repeat, _swap,
)  # fmt: skip


def _splice(text: str, rng: random.Random) -> str:
    """Remove, repeat or insert some characters."""
    start = rng.randrange(len(text) + 1)
    end = min(len(text), start + rng.randrange(6))
    return (
        text[:start] + rng.choice(("", text[start:end] * 2, "(", ",", "'", "0", "-", "\n", "é")) + text[end:]
    )


def _change_treespec(text: str, rng: random.Random, marker: str) -> str:
    try:
        document = json.loads(text)
    except ValueError:
        return text
    places = _places(document, [])
    if not places:
        return text
    container, key = rng.choice(places)
    kinds = (
        "builtins.list",
        "builtins.dict",
        "collections.defaultdict",
        "collections.deque",
        "os.system",
        None,
    )
    context = rng.choice(('["a"]', '["a", "b"]', "null", '{"__enum__": 1, "fqn": "os:system", "name": "x"}'))
    container[key] = rng.choice(
        (*kinds, context, *payload_texts(marker), [], json.loads(json.dumps(document)))
    )
    return json.dumps(document)
