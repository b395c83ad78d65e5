"""The reader of exported models against archives that bring code: nothing runs, and every refusal says why."""

import io
import json
import os
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from exported_samples import (
    CONSTANTS,
    WEIGHTS,
    edit_json,
    edit_model,
    graph_of,
    read_entries,
    refusal,
    residual_archive,
    residual_inputs,
    write_entries,
)

from npn_core.exported import read_exported


class Payload:
    """What a pickle runs when it is opened: it makes a folder."""

    def __init__(self, marker: Path) -> None:
        self.marker = str(marker)

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self.marker,)


@pytest.fixture
def marker(tmp_path: Path) -> Iterator[Path]:
    """A path that the payloads would make; nothing may have made it in the end."""
    path = tmp_path / "ran"
    yield path
    assert not path.exists(), "code of the archive ran"


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """A good archive, to be changed."""
    return residual_archive(tmp_path / "model.pt2")


def python_call(marker: Path) -> str:
    """An expression that makes the marker when it is evaluated."""
    return f"__import__('os').mkdir({str(marker)!r})"


# pickles


def payload_bytes(marker: Path) -> bytes:
    """The payload as `torch.save` writes it."""
    buffer = io.BytesIO()
    torch.save(Payload(marker), buffer)
    return buffer.getvalue()


def test_the_payload_runs_where_it_is_unpickled(tmp_path: Path) -> None:
    """The other tests could fail: the payload does its work."""
    marker = tmp_path / "control"
    torch.load(io.BytesIO(payload_bytes(marker)), weights_only=False)
    assert marker.exists()


def test_torch_itself_runs_pickled_example_inputs(archive: Path, tmp_path: Path) -> None:
    """Why torch's own loader is never used: it runs the archive that the next test reads safely."""
    marker = tmp_path / "control"
    write_entries(archive, read_entries(archive) | {"data/sample_inputs/model.pt": payload_bytes(marker)})
    with pytest.raises((RuntimeError, TypeError)):  # whichever of its own messages fails first
        torch.export.load(archive)
    assert marker.exists()


def test_pickled_example_inputs_are_never_read(archive: Path, marker: Path) -> None:
    """`torch.export.save` always pickles them, so the archive is good and they are dropped."""
    write_entries(archive, read_entries(archive) | {"data/sample_inputs/model.pt": payload_bytes(marker)})
    assert read_exported(archive).module()(*residual_inputs())["logits"].shape == (4, 5)


@pytest.mark.parametrize(("config", "name"), [(WEIGHTS, "fc.bias"), (CONSTANTS, "shift")])
def test_pickled_tensors_are_refused(archive: Path, marker: Path, config: str, name: str) -> None:
    """A weight or constant that says that it is a pickle."""
    entries = read_entries(archive)
    place = json.loads(entries[config])["config"][name]["path_name"]
    entries[f"{Path(config).parent}/{place}"] = payload_bytes(marker)
    write_entries(archive, entries)
    edit_json(archive, config, lambda document: document["config"][name].update(use_pickle=True))
    assert "pickled" in refusal(archive, "MODEL_PICKLED")
    edit_json(
        archive, config, lambda document: document["config"][name].update(tensor_meta=None, use_pickle=False)
    )
    assert name in refusal(archive, "MODEL_PICKLED")


@pytest.mark.parametrize("entry", ["data/constants/custom_obj_0", "data/constants/opaque_obj_0"])
def test_script_and_opaque_objects_are_refused(archive: Path, marker: Path, entry: str) -> None:
    """Objects that torch would unpickle."""
    meta = {"path_name": Path(entry).name, "is_param": False, "use_pickle": True, "tensor_meta": None}
    write_entries(archive, read_entries(archive) | {entry: pickle.dumps(Payload(marker))})
    edit_json(archive, CONSTANTS, lambda document: document["config"].update(thing=meta))
    refusal(archive, "MODEL_PICKLED")


def test_weights_of_older_versions_are_refused(archive: Path, marker: Path) -> None:
    """torch 2.9 and older pickled the state dict whole."""
    write_entries(archive, read_entries(archive) | {"data/weights/model.pt": payload_bytes(marker)})
    assert "2.10" in refusal(archive, "MODEL_VERSION")


def test_compiled_code_is_refused(archive: Path) -> None:
    """AOTInductor packages hold libraries that torch would load."""
    write_entries(archive, read_entries(archive) | {"data/aotinductor/model/a.so": b"\x7fELF"})
    assert "compiled" in refusal(archive, "MODEL_UNSAFE")


# text that torch evaluates, imports or writes into source


def expressions(document: Any) -> list[Any]:
    """Every symbolic expression in the document."""
    if isinstance(document, dict):
        own = [document["as_expr"]] if "as_expr" in document else []
        return own + [found for value in document.values() for found in expressions(value)]
    if isinstance(document, list):
        return [found for value in document for found in expressions(value)]
    return []


@pytest.mark.parametrize("place", range(0, 30, 7))
def test_symbolic_sizes_are_not_evaluated(archive: Path, marker: Path, place: int) -> None:
    """sympy's parser evaluates text as Python; no text reaches it."""
    call = python_call(marker)
    for text in (call, f"Add(Integer(1), {call})", f"Symbol('s0', positive={call})", f"Integer({call})"):

        def edit(document: Any, text: str = text) -> None:
            found = expressions(document)
            found[place % len(found)]["expr_str"] = text

        edit_model(archive, edit)
        assert "symbolic size" in refusal(archive, "MODEL_UNSAFE")


@pytest.mark.parametrize("key", ["sym_int_values", "sym_float_values", "sym_bool_values"])
def test_values_of_sizes_are_not_evaluated(archive: Path, marker: Path, key: str) -> None:
    """The same in the tables of numbers."""
    value = {"n": {"as_expr": {"expr_str": python_call(marker), "hint": None}}}
    edit_model(archive, lambda document: graph_of(document).update({key: value}))
    refusal(archive, "MODEL_UNSAFE")


def test_guards_are_forgotten(archive: Path, marker: Path) -> None:
    """torch turns guards into the source of a function."""
    edit_model(
        archive, lambda document: document.update(guards_code=[python_call(marker), f"L['x'] == {marker}"])
    )
    module = read_exported(archive).module()
    assert module(*residual_inputs())["logits"].shape == (4, 5)


def spec(kind: str, context: str) -> str:
    """A treespec of two leaves of some type."""
    leaf = {"type": None, "context": None, "children_spec": []}
    return json.dumps([1, {"type": kind, "context": context, "children_spec": [leaf, leaf]}])


@pytest.mark.parametrize(
    ("kind", "context"),
    [
        ("builtins.dict", '{"__enum__": true, "fqn": "exported_trap:Trap", "name": "A"}'),
        ("builtins.dict", '[{"__enum__": true, "fqn": "exported_trap:Trap", "name": "A"}, "b"]'),
        (
            "collections.defaultdict",
            '{"default_factory_module": "exported_trap", "default_factory_name": "Trap"}',
        ),
        ("os.system", "null"),
        ("builtins.dict", '["a", "a"]'),
        ("builtins.dict", '["a"]'),
    ],
)
@pytest.mark.parametrize("side", ["in_spec", "out_spec"])
def test_treespecs_import_nothing(
    archive: Path,
    tmp_path: Path,
    marker: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    context: str,
    side: str,
) -> None:
    """Contexts of trees may name modules, which torch imports."""
    (tmp_path / "exported_trap.py").write_text(f"import os\nos.mkdir({str(marker)!r})\n")
    monkeypatch.syspath_prepend(tmp_path)
    edit_model(
        archive,
        lambda document: document["graph_module"]["module_call_graph"][0]["signature"].update(
            {side: spec(kind, context)}
        ),
    )
    refusal(archive, "MODEL_UNSAFE")


@pytest.mark.parametrize(
    "name", ["x; import os", "x\nimport os", "lambda", "self", "torch", "é", "__class__", "1x", ""]
)
def test_names_cannot_become_source(archive: Path, name: str) -> None:
    """torch writes names of values into Python that it compiles."""
    text = read_entries(archive)["models/model.json"].decode()
    changed = text.replace('"name": "x"', json.dumps({"name": name})[1:-1])
    assert changed != text
    write_entries(archive, read_entries(archive) | {"models/model.json": changed.encode()})
    assert "value of the name" in refusal(archive, "MODEL_UNSAFE")


@pytest.mark.parametrize(
    "name", ['a"); import os', "forward", "__dict__", "a..b", "_parameters", "a b", "", "graph"]
)
def test_names_of_members_cannot_break_out(archive: Path, name: str) -> None:
    """The same for weights, which become attributes."""
    edit_json(
        archive, WEIGHTS, lambda document: document["config"].update({name: document["config"]["fc.bias"]})
    )
    refusal(archive, "MODEL_UNSAFE")


@pytest.mark.parametrize("names", [["x=print()"], ["class"], ["x", "x):\n import os\n def f(y"]])
def test_argument_names_cannot_become_source(archive: Path, names: list[str]) -> None:
    """torch writes them into the head of `forward`."""
    edit_model(
        archive,
        lambda document: document["graph_module"]["module_call_graph"][0]["signature"].update(
            forward_arg_names=names
        ),
    )
    refusal(archive, "MODEL_UNSAFE")


def test_keyword_inputs_cannot_become_source(archive: Path, marker: Path) -> None:
    """torch writes the keys of keyword inputs between quotes."""
    leaf = {"type": None, "context": None, "children_spec": []}
    key = json.dumps([f"a':{python_call(marker)},'b"])
    children = [
        {"type": "builtins.tuple", "context": "null", "children_spec": []},
        {"type": "builtins.dict", "context": key, "children_spec": [leaf]},
    ]
    spec = json.dumps([1, {"type": "builtins.tuple", "context": "null", "children_spec": children}])
    edit_model(
        archive,
        lambda document: document["graph_module"]["module_call_graph"][0]["signature"].update(
            in_spec=spec, forward_arg_names=None
        ),
    )
    assert "identifier" in refusal(archive, "MODEL_UNSAFE")


TARGETS = [
    "torch.ops.aten.from_file.default",
    "torch.ops.aten.save.default",
    "torch.ops.aten.empty.memory_format",
    "torch.ops.aten.set_.source_Tensor",
    "torch.ops.aten.resize_.default",
    "torch.ops.aten.add.out",
    "torch.ops.aten.add",
    "torch.ops.aten.add.Nothing",
    "torch.ops.aten.__class__.default",
    "torch.ops.aten._print.default",
    "torch.ops.aten.relu_backward.default",
    "torch.ops.prim.device.default",
    "torch.ops.quantized.add.default",
    "torch.ops.load_library",
    "torch.ops.higher_order.cond",
    "torch.hub.load",
    "torch.load",
    "torch.os.system",
    "torch.sym_sum",
    "torch.utils.cpp_extension.os.system",
    "math.__loader__.load_module",
    "_operator.attrgetter",
    "_operator.methodcaller",
    "_operator.lshift",
    "operator.add",
    "builtins.eval",
    "os.system",
    "#os:system",
    "",
    "\u202eevil\n",
]


@pytest.mark.parametrize("target", TARGETS)
def test_only_functions_of_tensors_are_operators(archive: Path, target: str) -> None:
    """torch looks up any name below torch, operator and math."""
    edit_model(archive, lambda document: graph_of(document)["nodes"][3].update(target=target))
    assert "exported_samples.py" in refusal(archive, "MODEL_OPERATOR")


@pytest.mark.parametrize(
    ("argument", "reason"),
    [
        ({"as_operator": "torch.hub.load"}, "MODEL_UNSAFE"),
        ({"as_custom_obj": {"name": "x", "class_fqn": "os.system"}}, "MODEL_PICKLED"),
        ({"as_graph": {"name": "g", "graph": None}}, "MODEL_NOT_PT2"),
        ({"as_string_to_argument": {"a": {"as_int": 1}}}, "MODEL_NOT_PT2"),
        ({"as_device": {"type": "privateuseone", "index": 0}}, "MODEL_NOT_PT2"),
        ({"as_layout": 1}, "MODEL_OPERATOR"),
        ({"as_string": "a\nb"}, "MODEL_UNSAFE"),
        ({"as_tensor": {"name": "nowhere"}}, "MODEL_NOT_PT2"),
        ({"as_int": True}, "MODEL_NOT_PT2"),
        ({"as_int": 1 << 70}, "MODEL_NOT_PT2"),
        ({"as_int": 1, "as_float": 1.0}, "MODEL_NOT_PT2"),
        ({"as_new": 1}, "MODEL_NOT_PT2"),
        ({"as_string": "text for a tensor"}, "MODEL_OPERATOR"),
    ],
)
def test_arguments_are_values_of_the_schema(archive: Path, argument: Any, reason: str) -> None:
    """Arguments of operators, in place of a tensor."""
    edit_model(archive, lambda document: graph_of(document)["nodes"][0]["inputs"][0].update(arg=argument))
    refusal(archive, reason)


def test_metadata_is_text(archive: Path, marker: Path) -> None:
    """torch looks up functions and builds objects from metadata; none of it is kept."""
    metadata = {
        "source_fn_stack": "a,torch.hub.load",
        "custom": "{",
        "from_node": '[{"name": 1}]',
        "torch_fn": python_call(marker),
        "nn_module_stack": "one,two;(",
        "stack_trace": f"x\r\x0c\u2028{python_call(marker)}",
    }
    edit_model(archive, lambda document: graph_of(document)["nodes"][0].update(metadata=metadata))
    node = next(node for node in read_exported(archive).graph.nodes if node.op == "call_function")
    assert not {"source_fn_stack", "custom", "from_node", "torch_fn"} & set(node.meta)
    assert node.meta["stack_trace"].isprintable()
    assert node.meta["nn_module_stack"] == {}
