"""A lifted module computes what the user's module computes, and trains as it does."""

import copy

import pytest
import torch
from lift_networks import NETWORKS, WAYS, TwoInputs, exported, lifted, outputs
from torch import Tensor, fx, nn
from torch.export import Dim, export

from npn_core.errors import InvalidInput
from npn_core.lift import lift


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", NETWORKS)
def test_a_lifted_module_agrees_with_the_users(name: str, way: str) -> None:
    """Outputs at batch sizes 1 and 3, and in train mode also running statistics and gradients, are the same."""
    torch.manual_seed(0)
    make, inputs = NETWORKS[name]
    module = make()
    graph = lifted(module, inputs(2), way)
    _keeps_the_contract(graph)
    assert list(graph.state_dict()) == list(module.state_dict())
    for batch in (1, 3):
        example = inputs(batch)
        with torch.no_grad():
            _close(outputs(graph.eval(), example), outputs(module.eval(), example))
    example = inputs(3)
    _train_once(module, example)
    _train_once(graph, example)
    for path, buffer in module.named_buffers(remove_duplicate=False):
        _close([graph.get_buffer(path)], [buffer])
    theirs = dict(module.named_parameters(remove_duplicate=False))
    for path, parameter in graph.named_parameters(remove_duplicate=False):
        grad, expected = parameter.grad, theirs[path].grad
        assert (grad is None) == (expected is None), path
        if grad is not None and expected is not None:
            torch.testing.assert_close(
                grad, expected, rtol=1e-4, atol=1e-5, msg=lambda text, at=path: f"{at}: {text}"
            )


def _train_once(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    torch.stack([(value**2).sum() for value in outputs(module.train(), inputs)]).sum().backward()


def _close(ours: list[Tensor], theirs: list[Tensor]) -> None:
    assert len(ours) == len(theirs)
    for our, their in zip(ours, theirs, strict=True):
        torch.testing.assert_close(our, their, rtol=1e-5, atol=1e-6)


def _keeps_the_contract(graph: fx.GraphModule) -> None:
    """No in-place operator, no view, no literal batch in a reshape, a source for each node, dropout at attentions."""
    for node in graph.graph.nodes:
        attention = node.target is torch.ops.aten.scaled_dot_product_attention.default
        assert set(node.meta) == ({"source", "dropout_p"} if attention else {"source"}), node
        if node.op == "call_function" and isinstance(node.target, torch._ops.OpOverload):
            assert not node.target._schema.is_mutable, node
            assert str(node.target) not in ("aten.view.default", "aten.transpose.int", "aten.t.default"), node
        if node.target is torch.ops.aten.reshape.default and _reads_an_input(node):
            sizes = node.args[1]
            assert -1 in sizes or any(isinstance(size, fx.Node) for size in sizes), node


def _reads_an_input(node: fx.Node) -> bool:
    return node.op == "placeholder" or any(_reads_an_input(source) for source in node.all_input_nodes)


def test_inputs_and_outputs_keep_the_users_names() -> None:
    """Inputs are in the user's order, outputs in plain containers."""
    graph = lifted(TwoInputs(), (torch.randn(2, 4), torch.randn(2, 3)))
    assert [node.target for node in graph.graph.nodes if node.op == "placeholder"] == ["input", "extra"]
    result = graph(torch.randn(3, 4), torch.randn(3, 3))
    assert list(result) == ["heads", "both"]
    assert type(result["heads"]) is list


def test_weights_are_the_programs_own() -> None:
    """Nothing is copied: a lifted module's tensors lie where the program's do."""
    make, inputs = NETWORKS["residual block"]
    program = exported(make(), inputs(2), "train")
    graph = lift(program)
    for name, tensor in graph.state_dict().items():
        assert tensor.data_ptr() == program.state_dict[name].data_ptr(), name


def test_a_program_without_data_is_lifted() -> None:
    """Parameters on the meta device are enough for the graph."""
    with torch.device("meta"):
        module = NETWORKS["vision transformer"][0]()
    program = exported(module, (torch.randn(2, 3, 8, 8, device="meta"),), "train")
    graph = lift(program)
    assert graph.get_parameter("head.weight").is_meta


def test_a_kept_output_may_be_none() -> None:
    """A None among the outputs keeps its place."""

    class Optional(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(2, 2)

        def forward(self, x: Tensor) -> tuple[None, Tensor]:
            return None, self.fc(x)

    x = torch.randn(2, 2)
    assert lifted(Optional(), (x,))(x)[0] is None


class Counter(nn.Module):
    """Counts its calls in a buffer, which BatchNorm alone may do."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))
        self.fc = nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        """Features."""
        self.calls += 1
        return self.fc(x)


@pytest.mark.parametrize("way", ["train", "decomposed"])
def test_a_buffer_that_changes_is_refused(way: str) -> None:
    """State that a forward pass changes is named, with the line that changes it."""
    with pytest.raises(InvalidInput, match=r"aten\.add_? at .*self\.calls \+= 1.*'calls' in place") as caught:
        lifted(Counter(), (torch.randn(2, 2),), way)
    assert (caught.value.field, caught.value.reason) == ("model.uri", "MODEL_OPERATOR")


def test_an_input_that_changes_is_refused() -> None:
    """An input is the caller's."""

    class Changes(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.mul_(2) + 1

    for way in ("train", "decomposed"):
        with pytest.raises(InvalidInput, match="an input of the model in place"):
            lifted(Changes(), (torch.randn(2, 2),), way)


def test_lifting_leaves_the_program_alone() -> None:
    """The program can be lifted again, with the same result."""
    make, inputs = NETWORKS["dense block"]
    program = exported(make(), inputs(2), "fixed")
    before = str(program.graph)
    first, second = lift(program), lift(copy.copy(program))
    assert str(program.graph) == before
    assert str(first.graph) == str(second.graph)


class Scaled(nn.Module):
    """Inputs in a dict, and a number."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, parts: dict[str, Tensor], factor: int) -> Tensor:
        """Features."""
        return self.fc(parts["left"]) + parts["right"] * factor


def test_numbers_among_the_inputs_are_constants() -> None:
    """A dict of tensors is an input for each; a number is the example's."""
    parts = {"left": torch.randn(2, 4), "right": torch.randn(2, 4)}
    module = Scaled()
    graph = lift(export(module, (parts, 3)))
    assert [node.target for node in graph.graph.nodes if node.op == "placeholder"] == [
        "parts_left",
        "parts_right",
    ]
    torch.testing.assert_close(graph(*parts.values()), module(parts, 3))


def test_a_number_that_may_vary_is_refused() -> None:
    """Data have no such input."""
    parts = {"left": torch.randn(2, 4), "right": torch.randn(2, 4)}
    program = export(Scaled(), (parts, 3), dynamic_shapes=({"left": None, "right": None}, Dim.DYNAMIC))
    with pytest.raises(InvalidInput, match="'factor' is no tensor"):
        lift(program)


def test_a_graph_that_torch_never_makes_is_refused() -> None:
    """A call of anything but operators, and a graph without shapes, end in a refusal."""
    program = exported(nn.Linear(4, 4), (torch.randn(2, 4),), "train")
    called: list[object] = []
    node = next(node for node in program.graph.nodes if node.op == "call_function" and node.users)
    node.target = called.append
    with pytest.raises(InvalidInput):
        lift(program)
    assert called == []
    program = exported(nn.Linear(4, 4), (torch.randn(2, 4),), "train")
    for node in program.graph.nodes:
        node.meta.pop("val", None)
    with pytest.raises(InvalidInput):
        lift(program)
