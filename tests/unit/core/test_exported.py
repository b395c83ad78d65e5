"""The reader of exported models against every good kind: the same outputs, names and ties as the original."""

import gc
import json
import warnings
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest
import torch
from exported_samples import (
    DIM,
    Residual,
    Sized,
    Tied,
    edit_model,
    export,
    graph_of,
    ordered,
    read_entries,
    residual_archive,
    residual_inputs,
    save,
    write_entries,
)
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from npn_core.errors import InvalidInput
from npn_core.exported import read_exported

Pair = namedtuple("Pair", "first second")
BATCH = {"x": {0: DIM("batch")}}


class Reply(dict):  # type: ignore[type-arg]
    """An output type of a library, as the transformers library registers its own."""


pytree.register_pytree_node(
    Reply,
    lambda reply: (list(reply.values()), list(reply.keys())),
    lambda values, keys: Reply(zip(keys, values, strict=True)),
    serialized_type_name="tests.Reply",
)


def leaves(value: Any) -> list[Any]:
    """All that lies in nested containers."""
    return pytree.tree_leaves(value)


def assert_same(
    program: torch.export.ExportedProgram, path: Path, *inputs: Any
) -> torch.export.ExportedProgram:
    """Reading the saved program gives one of the same outputs."""
    read = read_exported(save(program, path))
    torch.manual_seed(1)  # dropout
    expected = program.module(check_guards=False)(*inputs)
    torch.manual_seed(1)
    found = read.module()(*inputs)
    for one, other in zip(leaves(expected), leaves(found), strict=True):
        torch.testing.assert_close(other, one, rtol=0, atol=0)
    return read


@pytest.mark.parametrize("decomposed", [False, True])
@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("shapes", [None, BATCH], ids=["fixed", "dynamic"])
def test_residual_network_is_read(tmp_path: Path, decomposed: bool, train: bool, shapes: Any) -> None:
    """Exported in train or eval mode, decomposed or not, with any batch: outputs, names and values are the user's."""
    module = Residual().train(train)
    program = export(module, residual_inputs(), shapes)
    if decomposed:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = program.run_decompositions()
    read = assert_same(program, tmp_path / "m.pt2", *residual_inputs())
    assert read.example_inputs is None
    assert read.state_dict.keys() == module.state_dict().keys()
    assert dict(read.named_parameters()).keys() == dict(module.named_parameters()).keys()
    assert all(parameter.requires_grad for parameter in read.parameters())


def test_dynamic_batch_stays_dynamic(tmp_path: Path) -> None:
    """A program exported with a dynamic batch runs at another one."""
    path = residual_archive(tmp_path / "m.pt2", train=False)
    assert read_exported(path).module()(torch.randn(9, 3, 8, 8))["logits"].shape == (9, 5)


def test_arithmetic_of_sizes_is_read(tmp_path: Path) -> None:
    """Floor divisions, maxima and powers of dynamic sizes survive."""
    auto = {"x": {0: DIM.AUTO, 2: DIM.AUTO, 3: DIM.AUTO}}
    x = torch.randn(3, 3, 32, 40)
    read = assert_same(export(Sized(), (x,), auto), tmp_path / "m.pt2", x)
    assert read.module()(torch.randn(2, 3, 24, 32)).shape == (2, 4 * 6 * 16)


def test_tied_weights_stay_one_parameter(tmp_path: Path) -> None:
    """A parameter of two names is one object."""
    module = Tied().eval()
    inputs = (torch.tensor([[1, 2, 3, 4, 5, 6]]), torch.ones(1, 6))
    read = assert_same(export(module, inputs), tmp_path / "m.pt2", *inputs)
    assert read.state_dict["embed.weight"] is read.state_dict["out.weight"]
    assert isinstance(read.state_dict["out.weight"], nn.Parameter)


def test_views_of_one_storage_stay_views(tmp_path: Path) -> None:
    """Buffers that are parts of one tensor, transposed or shifted, are read as such."""

    class Parts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            whole = torch.arange(12.0).reshape(3, 4)
            self.register_buffer("whole", whole)
            self.register_buffer("turned", whole.t())
            self.register_buffer("row", whole[1])

        def forward(self, x: Tensor) -> Tensor:
            return x @ self.turned + self.row.sum() + self.whole[0, 1]

    read = assert_same(export(Parts(), (torch.ones(2, 4),)), tmp_path / "m.pt2", torch.ones(2, 4))
    read.state_dict["whole"][1] = 7.0
    assert read.state_dict["row"].tolist() == [7.0] * 4
    assert read.state_dict["turned"].stride() == (1, 4)


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        (lambda x: [x, (x, x)], list),
        (lambda x: ordered(["b", "a"], [x, x]), dict),
        (lambda x: Pair(x, x), tuple),
        (lambda x: Reply(logits=x, hidden=x + 1), dict),
        (lambda x: (x, None, 3), tuple),
    ],
    ids=["list", "ordered", "namedtuple", "library", "constants"],
)
def test_outputs_become_plain_containers(tmp_path: Path, output: Any, expected: type) -> None:
    """Named tuples come back as tuples, and types of libraries as dicts of their keys."""
    if not any(kind is Pair for kind in pytree.SUPPORTED_NODES):
        pytree._register_namedtuple(Pair, serialized_type_name="tests.Pair")

    class Model(nn.Module):
        def forward(self, x: Tensor) -> Any:
            return output(x * 2)

    read = assert_same(export(Model(), (torch.ones(2),)), tmp_path / "m.pt2", torch.ones(2))
    found = read.module()(torch.ones(2))
    assert isinstance(found, expected)
    assert type(found).__module__ in ("builtins", "collections")
    if expected is dict:
        assert list(found) == list(output(torch.ones(2)))


def test_keyword_inputs_and_infinite_constants_are_read(tmp_path: Path) -> None:
    """Keyword inputs keep their names; -inf as in attention masks is a number."""

    class Masked(nn.Module):
        def forward(self, x: Tensor, *, mask: Tensor, scale: float = 2.0) -> Tensor:
            return x.masked_fill(mask, float("-inf")).softmax(-1) * scale

    mask = torch.tensor([[False, True, False]])
    program = torch.export.export(Masked(), (torch.ones(1, 3),), {"mask": mask})
    read = read_exported(save(program, tmp_path / "m.pt2"))
    assert read.module()(torch.ones(1, 3), mask=mask).tolist() == [[1.0, 0.0, 1.0]]


def test_accelerators_are_replaced_by_the_processor(tmp_path: Path) -> None:
    """A model exported on a GPU is read where there is none."""
    path = residual_archive(tmp_path / "m.pt2", train=False)
    entries = read_entries(path)
    entries = {
        name: data.replace(b'{"type": "cpu", "index": null}', b'{"type": "cuda", "index": 0}')
        for name, data in entries.items()
    }
    assert b"cuda" in entries["models/model.json"]
    module = read_exported(write_entries(path, entries)).module()
    assert module(*residual_inputs())["logits"].device.type == "cpu"


def test_weights_are_mapped_and_the_file_stays_as_it_is(tmp_path: Path) -> None:
    """Training changes the program's weights in memory, never the file."""
    path = residual_archive(tmp_path / "m.pt2")
    before = path.read_bytes()
    read = read_exported(path)
    weight = read.state_dict["conv1.weight"]
    with torch.no_grad():
        weight.fill_(1.0)
    assert path.read_bytes() == before
    path.unlink()
    del read
    gc.collect()
    assert float(weight.detach().sum()) == weight.numel()


def test_source_lines_and_module_paths_are_kept(tmp_path: Path) -> None:
    """Stack traces and module paths pass as text; all other metadata is dropped."""
    path = residual_archive(tmp_path / "m.pt2")
    node = next(n for n in read_exported(path).graph.nodes if n.name == "conv2d_1")
    assert "self.conv2(y)" in node.meta["stack_trace"]
    assert [path for path, _ in node.meta["nn_module_stack"].values()] == ["", "conv2"]
    assert not {"torch_fn", "source_fn_stack", "custom", "from_node"} & set(node.meta)


def test_unused_records_are_dropped(tmp_path: Path) -> None:
    """Files that users add, and guards, change nothing and are not read."""
    path = residual_archive(tmp_path / "m.pt2", train=False)
    entries = read_entries(path) | {"extra/notes.txt": b"\xff\x00"}
    edit_model(write_entries(path, entries), lambda document: document.update(guards_code=["1 / 0"]))
    read = read_exported(path)
    assert read._guards_code == []
    assert read.module()(*residual_inputs())["logits"].shape == (4, 5)


def test_unknown_fields_of_a_later_version_are_ignored(tmp_path: Path) -> None:
    """A later minor version of the schema may add fields."""
    path = residual_archive(tmp_path / "m.pt2")

    def later(document: Any) -> None:
        document["schema_version"]["minor"] = 99
        document["new_field"] = {"a": 1}
        graph_of(document)["nodes"][0]["also_new"] = "x"

    assert read_exported(edit_model(path, later)).graph_signature.user_inputs == ("x",)


def test_operator_in_a_refusal_is_named_with_its_line(tmp_path: Path) -> None:
    """A user finds the place in their own source."""

    class Conditional(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.cond(x.sum() > 0, lambda x: x + 1, lambda x: x - 1, (x,))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = export(Conditional(), (torch.ones(2),))
    with pytest.raises(InvalidInput, match=r"higher_order\.cond.*run_decompositions") as caught:
        read_exported(save(program, tmp_path / "m.pt2"))
    assert (caught.value.field, caught.value.reason) == ("model.uri", "MODEL_OPERATOR")

    path = residual_archive(tmp_path / "m.pt2")
    nodes = graph_of(json.loads(read_entries(path)["models/model.json"]))["nodes"]
    index = next(i for i, node in enumerate(nodes) if node["name"] == "mean")
    edit_model(
        path, lambda document: graph_of(document)["nodes"][index].update(target="torch.ops.mine.mean.dim")
    )
    with pytest.raises(
        InvalidInput, match=r"'torch\.ops\.mine\.mean\.dim'.*exported_samples\.py:\d+: .*y\.mean"
    ):
        read_exported(path)
