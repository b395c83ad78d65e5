"""Where nodes come from, in the user's own words."""

import torch
from lift_networks import ResidualBlock, lifted
from torch import fx

from npn_core.lift.source import describe, line, module_stack, refusal


def _node(trace: str | None = None, stack: dict[str, tuple[str, object]] | None = None) -> fx.Node:
    node = fx.Graph().call_function(torch.ops.aten.relu.default, ())
    node.meta = {key: value for key, value in (("stack_trace", trace), ("nn_module_stack", stack)) if value}
    return node


TRACE = """  File "/home/anna/secret/model.py", line 31, in forward
    x = self.conv1(x)
  File "/usr/lib/python3/site-packages/torch/nn/modules/conv.py", line 548, in forward
    return self._conv_forward(input, self.weight, self.bias)
"""


def test_the_last_line_of_the_user_is_named() -> None:
    """Torch's own frames are passed over, and of a path the file's name alone is shown."""
    assert line(_node(TRACE)) == "model.py:31: x = self.conv1(x)"


def test_a_trace_of_torch_alone_gives_its_last_line() -> None:
    """A model from torch's own library has no other line."""
    assert line(_node(TRACE.split("\n", 2)[2])).startswith("conv.py:548: return self._conv")


def test_lines_without_code_and_with_windows_paths() -> None:
    """The code is shown where the trace has it."""
    assert line(_node('  File "C:\\nets\\net.py", line 7, in forward')) == "net.py:7"
    assert line(_node()) == ""


def test_module_paths_are_checked() -> None:
    """A path that is none is passed over; classes are names or types."""
    stack: dict[str, tuple[str, object]] = {
        "a": ("", "user.Net"),
        "b": ("layers.0", torch.nn.ReLU),
        "c": ("x; import os", "user.Bad"),
    }
    node = _node(TRACE, stack)
    assert module_stack(node) == [("", "user.Net"), ("layers.0", "torch.nn.modules.activation.ReLU")]
    assert describe(node) == "layers.0 (model.py:31: x = self.conv1(x))"


def test_a_refusal_names_operator_place_and_reason() -> None:
    """The message is one sentence; the code is stable."""
    error = refusal(_node(TRACE), "is not supported")
    assert error.message == "operator aten.relu at (model.py:31: x = self.conv1(x)) is not supported"
    assert (error.field, error.reason) == ("model.uri", "MODEL_OPERATOR")


def test_every_lifted_node_says_where_it_comes_from() -> None:
    """Modules carry their path and the user's line."""
    graph = lifted(ResidualBlock(), (torch.randn(2, 3, 8, 8),))
    sources = {
        str(node.target): node.meta["source"] for node in graph.graph.nodes if node.op == "call_module"
    }
    assert sources["conv1"].startswith("conv1 (lift_networks.py:")
    assert "self.bn2(self.conv2(" in sources["conv1"]
