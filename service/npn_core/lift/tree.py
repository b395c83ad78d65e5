"""The lifted module's tree: the user's state under the user's names, standard modules where they fit."""

from collections.abc import Sequence
from typing import Any

from torch import fx, nn

from npn_core.errors import InvalidInput

from .weights import Weights


class Tree:
    """Builds submodules into `module`; a path asked for twice with the same settings is one module."""

    def __init__(self, weights: Weights, paths: Sequence[str]) -> None:
        """`paths` are the user's modules in their order, which the state dict follows."""
        self.module = fx.GraphModule(nn.Module(), fx.Graph())
        self._own = set(dir(self.module))  # a user's name must not hide what the class itself needs
        self._settings: dict[str, tuple[type[nn.Module], dict[str, Any]]] = {}
        for name in weights:
            self._check_name(name)
        used = {name.rpartition(".")[0] for name in weights}
        for path in paths:
            if path in used:
                self._holder(path)
        for name in weights:
            path, _, leaf = name.rpartition(".")
            holder = self._holder(path)
            tensor = weights[name].tensor
            if isinstance(tensor, nn.Parameter):
                holder.register_parameter(leaf, tensor)
            else:
                holder.register_buffer(leaf, tensor, persistent=name in weights.persistent)

    def install(self, path: str, kind: type[nn.Module], settings: dict[str, Any]) -> bool:
        """Put a module of that kind at `path`, with the state that is there; False if the place is taken."""
        if not path:
            return False
        if path in self._settings:
            return self._settings[path] == (kind, settings)
        old = self._holder(path)
        new = kind(**settings)
        for leaf, parameter in old._parameters.items():
            new.register_parameter(leaf, parameter)
        for leaf, buffer in old._buffers.items():
            new.register_buffer(leaf, buffer, persistent=leaf not in old._non_persistent_buffers_set)
        for leaf, child in old._modules.items():
            new.add_module(leaf, child)
        parent, _, leaf = path.rpartition(".")
        self._holder(parent)._modules[leaf] = new
        self._settings[path] = (kind, settings)
        return True

    def free(self, path: str) -> str:
        """`path`, or the first of path_1, path_2, ... that nothing has yet."""
        candidate, number = path, 0
        while self._taken(candidate):
            number += 1
            candidate = f"{path}_{number}"
        return candidate

    def has(self, path: str) -> bool:
        """Is a standard module at `path`?"""
        return path in self._settings

    def remove(self, path: str) -> None:
        """Take away a module without state that nothing calls any more."""
        parent, _, leaf = path.rpartition(".")
        del self._holder(parent)._modules[leaf]
        del self._settings[path]

    def _check_name(self, name: str) -> None:
        first = name.split(".")[0]
        if first in self._own:
            what = (
                f"the model has a part called {first!r}, which is a name of torch.fx.GraphModule; rename it"
            )
            raise InvalidInput("model.uri", what, reason="MODEL_OPERATOR")

    def _taken(self, path: str) -> bool:
        parent, _, leaf = path.rpartition(".")
        node: nn.Module = self.module
        for part in parent.split(".") if parent else ():
            child = node._modules.get(part)
            if child is None:
                return False
            node = child
        return hasattr(node, leaf)

    def _holder(self, path: str) -> nn.Module:
        node: nn.Module = self.module
        for part in path.split(".") if path else ():
            child = node._modules.get(part)
            if child is None:
                child = nn.Module()
                node.add_module(part, child)
            node = child
        return node
