"""Fresh initial values for a lifted module."""

import torch
from torch import Tensor, fx, nn


def reinitialise(graph: fx.GraphModule, seed: int) -> None:
    """Draw fresh values for every parameter, in graph order, and reset running statistics.

    A module that knows how to reset itself does so. A loose parameter (a class token, a position embedding, a
    scale) is drawn from a normal distribution with its own mean and deviation: a constant one stays constant.
    Tied parameters are drawn once, by their first module. The same seed and the same
    old values give the same new ones.
    """
    done: set[int] = set()
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        for module in _in_graph_order(graph):
            _reset(module, done)
        for parameter in graph.parameters():
            if id(parameter) not in done:
                done.add(id(parameter))
                _redraw(parameter)


def _in_graph_order(graph: fx.GraphModule) -> list[nn.Module]:
    paths = dict.fromkeys(str(node.target) for node in graph.graph.nodes if node.op == "call_module")
    return [graph.get_submodule(path) for path in paths]


def _reset(module: nn.Module, done: set[int]) -> None:
    reset = getattr(module, "reset_parameters", None)
    if reset is None:
        return
    kept = {id(p): p.detach().clone() for p in module.parameters(recurse=False) if id(p) in done}
    reset()
    for parameter in module.parameters(recurse=False):
        if id(parameter) in kept:
            parameter.copy_(kept[id(parameter)])
        done.add(id(parameter))


def _redraw(parameter: Tensor) -> None:
    if not parameter.is_floating_point():
        return
    mean = parameter.mean()
    deviation = parameter.std(correction=0) if parameter.numel() > 1 else torch.zeros_like(mean)
    parameter.copy_(torch.randn(parameter.shape) * deviation + mean)
