"""The reader of exported models against numbers that lie: sizes, types, versions, and graphs that cannot run."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from exported_samples import (
    WEIGHTS,
    edit_json,
    edit_model,
    graph_of,
    read_entries,
    refusal,
    residual_archive,
    write_entries,
)

from npn_core.errors import InvalidInput
from npn_core.exported import read_exported


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """A good archive, to be changed."""
    return residual_archive(tmp_path / "model.pt2")


def update_meta(name: str, **changes: Any) -> Callable[[Any], None]:
    """Change a weight's description."""
    return lambda document: document["config"][name]["tensor_meta"].update(changes)


def ints(*numbers: Any) -> list[Any]:
    """Sizes as the schema writes them."""
    return [{"as_int": number} for number in numbers]


@pytest.mark.parametrize(
    "changes",
    [
        {"sizes": ints(5, 5)},
        {"sizes": ints(-5, -4)},
        {"sizes": ints(1 << 40, 4)},
        {"sizes": ints(1 << 62, 1 << 62)},
        {"sizes": ints(5, 4, 1)},
        {"sizes": ints(*[1] * 40), "strides": ints(*[1] * 40)},
        {"sizes": ints(True, 4)},
        {"sizes": ints(5.0, 4)},
        {"sizes": [{"as_expr": {"expr_str": "Integer(5)", "hint": None}}, {"as_int": 4}]},
        {"strides": ints(-4, 1)},
        {"strides": ints(1 << 61, 1)},
        {"strides": ints(5, 1)},
        {"storage_offset": {"as_int": 1}},
        {"storage_offset": {"as_int": -4}},
        {"storage_offset": {"as_int": (1 << 63) - 1}},
        {"dtype": 8},
        {"dtype": 0},
        {"dtype": 99},
        {"dtype": 12},
        {"dtype": 5},
        {"layout": 1},
        {"device": {"type": "cpu"}, "sizes": ints(2, 2)},
        {"sizes": ints(1 << 30, 1 << 20), "strides": ints(0, 0)},
    ],
)
def test_weights_lie_inside_their_bytes(archive: Path, changes: Any) -> None:
    """Sizes, strides, offsets and types that the bytes do not have, or the graph does not expect."""
    edit_json(archive, WEIGHTS, update_meta("fc.weight", **changes))
    refusal(archive, "MODEL_NOT_PT2")


@pytest.mark.parametrize("token", ["NaN", "Infinity", "-Infinity", "1e999", '"NaN"', "null", "1" * 5000])
def test_sizes_are_numbers(archive: Path, token: str) -> None:
    """What Python's JSON reads as a float, or not at all, is no size."""
    entries = read_entries(archive)
    entries[WEIGHTS] = entries[WEIGHTS].replace(b'{"as_int": 5}', b'{"as_int": %s}' % token.encode())
    refusal(write_entries(archive, entries), "MODEL_NOT_PT2")


@pytest.mark.parametrize(
    "path_name", ["../models/model.json", "weight_0/../weight_1", "weight_999", "tensor_0", ""]
)
def test_weights_lie_in_their_own_folder(archive: Path, path_name: str) -> None:
    """A weight cannot point at another entry or file."""
    edit_json(archive, WEIGHTS, lambda document: document["config"]["fc.bias"].update(path_name=path_name))
    with pytest.raises(InvalidInput, match=r"weight"):
        read_exported(archive)


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("mean", {"sizes": ints(4, 7)}),
        ("mean", {"dtype": 8}),
        ("mean", {"sizes": ints(1 << 62, 1 << 62)}),
        ("mean", {"strides": ints(-1, -1)}),
        ("x", {"sizes": ints(4, 3, 9, 9)}),
        ("x", {"sizes": ints(1 << 40, 3, 1 << 40, 8)}),
        ("p_fc_weight", {"sizes": ints(4, 5)}),
    ],
)
def test_graphs_do_what_they_say(archive: Path, name: str, changes: Any) -> None:
    """A dry run finds shapes and types that no run would give."""
    edit_model(archive, lambda document: graph_of(document)["tensor_values"][name].update(changes))
    with pytest.raises(InvalidInput) as caught:
        read_exported(archive)
    assert caught.value.reason in ("MODEL_NOT_PT2", "MODEL_OPERATOR")


def test_arithmetic_of_sizes_is_bounded(archive: Path) -> None:
    """Powers and squares of sizes could fill the memory."""

    def edit(document: Any) -> None:
        graph = graph_of(document)
        argument = [
            {"name": "a", "arg": {"as_int": 9}, "kind": 1},
            {"name": "b", "arg": {"as_int": 10**9}, "kind": 1},
        ]
        output = {"as_sym_int": {"as_name": "huge"}}
        graph["sym_int_values"]["huge"] = {"as_int": 1}
        graph["nodes"].insert(
            0,
            {
                "target": "_operator.pow",
                "inputs": argument,
                "outputs": [output],
                "metadata": {},
                "name": "huge",
            },
        )

    edit_model(archive, edit)
    assert "power" in refusal(archive, "MODEL_OPERATOR")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("schema_version", {"major": 9, "minor": 0}),
        ("schema_version", {"major": 0, "minor": 0}),
        ("verifiers", ["EDGE"]),
        ("verifiers", []),
    ],
)
def test_other_versions_are_refused(archive: Path, key: str, value: Any) -> None:
    """What this reader does not know, it does not guess."""
    edit_model(archive, lambda document: document.update({key: value}))
    refusal(archive, "MODEL_VERSION")


@pytest.mark.parametrize("name", ["s0; import os", "u99999999999", "__x", "x"])
def test_ranges_are_of_symbols(archive: Path, name: str) -> None:
    """torch counts to the number in a symbol's name."""
    edit_model(
        archive, lambda document: document.update(range_constraints={name: {"min_val": 0, "max_val": 1}})
    )
    refusal(archive, "MODEL_UNSAFE")
    edit_model(
        archive, lambda document: document.update(range_constraints={"s0": {"min_val": 9, "max_val": 1}})
    )
    refusal(archive, "MODEL_NOT_PT2")
