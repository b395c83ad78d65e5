"""Which couplings `torch_pruning.DependencyGraph` finds rightly, on the structures of the tests.

    python benchmarks/torch_pruning_coupling.py --out coupling.json

For every structure the dependency graph is built and each of its groups tried alone, on a copy: a third of the
group's units is removed, in several random ways, and the network run.  Where random units fail, the same units
of each channel group or head are tried, as the library's own pruners choose them, and then runs of
neighbours (whole heads, whole channels of a flatten).
The reference is the network as it was with the removed units silenced: their producers' rows and their readers'
columns set to zero, and norms over features taking their statistics from the units that stay.  A right group
gives the reference's outputs.  Verdicts of a group:

    equal       outputs agree with the reference
    aligned     they do when the same units of every channel group, or neighbours, are removed
    unties      they do, but a tensor that two modules shared is two tensors afterwards
    output      changes the size of an output: the user has to name the layer as ignored
    differs     runs, sizes stay, but the outputs are not the reference's
    raises      pruning or the forward pass raises
    no end      no answer within the limit of time
"""

import argparse
import copy
import json
import signal
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch_pruning as tp
from _machine import ROOT, machine
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils import _pytree as pytree

sys.path.insert(0, str(ROOT / "tests"))
from structures import STRUCTURES, Structure, transformers_structures

Choice = Callable[[list[int], int, torch.Generator], list[int]]
"""Which of a group's indices go."""

TRIES, TOLERANCE = 5, 1e-4
LIMIT = 60  # seconds for one structure
RIGHT = ("equal", "aligned", "unties")
ROOTS = (tp.ops.TORCH_CONV, tp.ops.TORCH_LINEAR, nn.Embedding, nn.MultiheadAttention)
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d)
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.LayerNorm, nn.GroupNorm)


def main() -> None:
    """Measure every structure and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--lifted", action="store_true", help="on the lifted exports, not on the modules")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    rows = [measure(s, lifted=arguments.lifted) for s in (*STRUCTURES, *transformers_structures())]
    print("| structure | groups | verdicts | share of parameters | first failure |", flush=True)
    print("|---|---|---|---|---|")
    for row in rows:
        verdicts = ", ".join(f"{count} {verdict}" for verdict, count in row["verdicts"].items())
        share = f"{100 * row['share']:.0f} %"
        print(f"| {row['name']} | {row['groups']} | {verdicts} | {share} | {row['failure'][:110]} |")
    if arguments.out:
        document = {"machine": machine(), "torch_pruning": tp.__version__, "rows": rows}
        arguments.out.write_text(json.dumps(document, indent=2))


def measure(structure: Structure, *, lifted: bool) -> dict[str, Any]:
    """One row.  `share` is that of the parameters in a unit of a group with one of the verdicts RIGHT."""
    signal.signal(signal.SIGALRM, _out_of_time)
    signal.alarm(LIMIT)
    try:
        return judged(structure, lifted=lifted)
    except TimeoutError:
        return empty(structure) | {"verdicts": {"no end": 1}, "failure": f"no answer in {LIMIT} seconds"}
    except Exception as error:  # any failure of the library is a result
        return empty(structure) | {"verdicts": {"raises": 1}, "failure": f"building: {described(error)}"}
    finally:
        signal.alarm(0)


def _out_of_time(*_: object) -> None:
    raise TimeoutError


def empty(structure: Structure) -> dict[str, Any]:
    """The row of a structure of which nothing is known yet."""
    return {"name": structure.name, "groups": 0, "verdicts": {}, "share": 0.0, "failure": "", "failures": []}


def judged(structure: Structure, *, lifted: bool) -> dict[str, Any]:
    """The row of a structure whose groups are found."""
    network = subject(structure, lifted=lifted).eval()
    inputs = structure.inputs(2)
    groups = groups_of(graph_of(network, inputs))
    covered = {name: torch.zeros_like(p, dtype=torch.bool) for name, p in network.named_parameters()}
    verdicts, failures = [], []
    for number, group in enumerate(groups):
        verdict, failure = judge(network, inputs, number)
        verdicts.append(verdict)
        if verdict in RIGHT:
            mark(network, group, covered)
        elif verdict != "output":
            failures.append(f"{group_name(network, group)}: {failure}")
    return empty(structure) | {
        "groups": len(groups),
        "verdicts": dict(Counter(verdicts)),
        "share": sum(int(m.sum()) for m in covered.values()) / sum(m.numel() for m in covered.values()),
        "failure": "; ".join(failures[:1]),
        "failures": failures,
    }


def subject(structure: Structure, *, lifted: bool) -> nn.Module:
    """The module, or what its export is lifted to."""
    if not lifted:
        return structure.module()
    from npn_core.lift import lift

    return lift(structure.export())


def graph_of(network: nn.Module, inputs: tuple[Tensor, ...]) -> Any:
    """The dependency graph, outputs given as a list of tensors."""
    graph = tp.DependencyGraph()
    return graph.build_dependency(network, inputs, output_transform=pytree.tree_leaves, verbose=False)


def groups_of(graph: Any) -> list[Any]:
    """Every group that begins at a layer."""
    return list(graph.get_all_groups(root_module_types=ROOTS))


def judge(network: nn.Module, inputs: tuple[Tensor, ...], number: int) -> tuple[str, str]:
    """The verdict on one group and, where it is none of RIGHT, what happened with random units."""
    results = []
    choices: list[Choice] = [random_units, same_units, *(partial(neighbours, share) for share in (2, 3, 4))]
    for choice in choices:
        for attempt in range(TRIES):
            result = try_group(network, inputs, number, attempt, choice)
            if result[0] in ("raises", "differs"):
                results.append(result)
                break
        else:
            verdict = result[0]
            return ("aligned" if results and verdict == "equal" else verdict), ""
    return results[0]


def try_group(
    network: nn.Module,
    inputs: tuple[Tensor, ...],
    number: int,
    attempt: int,
    choice: Choice,
) -> tuple[str, str]:
    """Remove a third of the units of group `number` from a copy and compare."""
    pruned = copy.deepcopy(network)
    graph = graph_of(pruned, inputs)
    whole = groups_of(graph)[number]
    root = whole[0].dep
    size = len(whole[0].idxs)
    if size == 1:
        return "output", ""  # a single unit that no group may lose
    generator = torch.Generator().manual_seed(attempt)
    try:
        idxs = choice(channel_groups(whole, size), size, generator)
        group = graph.get_pruning_group(root.target.module, root.handler, idxs)
        reference = silenced(network, pruned, group)
        shared = tied(pruned)
        group.prune()
        with torch.no_grad():
            outputs = pytree.tree_leaves(pruned(*inputs))
            expected = pytree.tree_leaves(reference(*inputs))
    except TimeoutError:
        raise
    except Exception as error:  # any failure of the library is a result
        return "raises", described(error)
    if any(one.shape != other.shape for one, other in zip(outputs, expected, strict=True)):
        return "output", ""
    worst = max(
        float((one - other).abs().max() / other.abs().max().clamp_min(1e-12))
        for one, other in zip(outputs, expected, strict=True)
    )
    if worst > TOLERANCE:
        return "differs", f"outputs differ by {worst:.0%}"
    return ("unties" if tied(pruned) < shared else "equal"), ""


def tied(network: nn.Module) -> int:
    """How many names of parameters are second names."""
    return len(list(network.named_parameters(remove_duplicate=False))) - len(list(network.parameters()))


def channel_groups(group: Any, size: int) -> list[int]:
    """Into how many equal parts the layers of the group divide its units."""
    found = {1}
    for dep, _ in group:
        layer = dep.target.module
        parts = getattr(layer, "groups", getattr(layer, "num_groups", getattr(layer, "num_heads", 1)))
        if isinstance(parts, int) and 1 < parts < size and size % parts == 0:
            found.add(parts)
    return sorted(found)


def random_units(parts: list[int], size: int, generator: torch.Generator) -> list[int]:
    """A third of the units, any."""
    return sorted(torch.randperm(size, generator=generator)[: max(1, size // 3)].tolist())


def same_units(parts: list[int], size: int, generator: torch.Generator) -> list[int]:
    """A third of the units, the same ones in each channel group."""
    each = size // parts[-1]
    chosen = torch.randperm(each, generator=generator)[: max(1, each // 3)].tolist()
    return sorted(part * each + unit for part in range(parts[-1]) for unit in chosen)


def neighbours(share: int, parts: list[int], size: int, generator: torch.Generator) -> list[int]:
    """One `share`-th of the units in a row: whole heads, or whole channels after a flatten."""
    run = max(1, size // share)
    start = int(torch.randint(size // run, (1,), generator=generator)) * run
    return list(range(start, start + run))


def silenced(network: nn.Module, pruned: nn.Module, group: Any) -> nn.Module:
    """A copy of `network` where every unit of the group gives nothing and none of its readers reads it."""
    reference = copy.deepcopy(network)
    names = {id(module): name for name, module in pruned.named_modules()}
    with torch.no_grad():
        for dep, idxs in group:
            name = names.get(id(dep.target.module))
            if name is None:
                continue
            twin = reference.get_submodule(name)
            for piece in slices(twin, dep, list(idxs)):
                piece.zero_()
            if isinstance(twin, (nn.LayerNorm, nn.GroupNorm)):
                reference.set_submodule(name, KeptNorm(twin, list(idxs)))
    return reference


class KeptNorm(nn.Module):
    """A norm over features whose statistics leave out those that were removed; gives zeros there."""

    def __init__(self, norm: nn.LayerNorm | nn.GroupNorm, removed: list[int]) -> None:
        super().__init__()
        self.norm = norm
        self.kept = torch.tensor(sorted(set(range(len(norm.weight))) - set(removed)))

    def forward(self, x: Tensor) -> Tensor:
        """The normed units that stay, in their places."""
        norm, kept = self.norm, self.kept
        if isinstance(norm, nn.LayerNorm):
            normed = F.layer_norm(x[..., kept], kept.shape, norm.weight[kept], norm.bias[kept], norm.eps)
            return torch.zeros_like(x).index_copy(-1, kept, normed)
        normed = F.group_norm(x[:, kept], norm.num_groups, norm.weight[kept], norm.bias[kept], norm.eps)
        return torch.zeros_like(x).index_copy(1, kept, normed)


def slices(module: nn.Module, dep: Any, idxs: list[int]) -> Iterator["Slice"]:
    """What of a layer's parameters belongs to units: rows where they are made, columns where they are read."""
    if isinstance(module, nn.MultiheadAttention):  # its width, the same for its input, heads and output
        thirds = [part * module.embed_dim + index for part in range(3) for index in idxs]
        for parameter, rows in (
            (module.in_proj_weight, thirds),
            (module.in_proj_bias, thirds),
            (module.out_proj.weight, idxs),
            (module.out_proj.bias, idxs),
        ):
            yield Slice(parameter, 0, rows)
        yield Slice(module.in_proj_weight, 1, idxs)
        yield Slice(module.out_proj.weight, 1, idxs)
        return
    if not isinstance(module, (*CONVOLUTIONS, nn.Linear, nn.Embedding, *NORMS)):
        return
    reads = dep.handler.__name__ == "prune_in_channels" and not isinstance(module, (*NORMS, nn.Embedding))
    inputs_first = isinstance(module, (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.Embedding))
    if reads and not is_depthwise(module):
        yield Slice(module.weight, 0 if inputs_first else 1, idxs)
        return
    yield Slice(module.weight, 1 if inputs_first else 0, idxs)
    bias = getattr(module, "bias", None)
    if bias is not None:
        yield Slice(bias, 0, idxs)


class Slice:
    """Some indices of one dimension of a parameter."""

    def __init__(self, parameter: Tensor, dim: int, idxs: list[int]) -> None:
        self.parameter, self.dim = parameter, dim
        self.idxs = torch.tensor([index for index in idxs if index < parameter.shape[dim]], dtype=torch.long)

    def zero_(self) -> None:
        """Set them to zero."""
        self.parameter.index_fill_(self.dim, self.idxs, 0)


def is_depthwise(module: nn.Module) -> bool:
    """Whether each output channel reads an input channel of its own."""
    groups = getattr(module, "groups", 1)
    return groups > 1 and groups == getattr(module, "out_channels", 0)


def mark(network: nn.Module, group: Any, covered: dict[str, Tensor]) -> None:
    """Note which elements of the parameters belong to the group's units."""
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    for dep, idxs in group:
        module = dep.target.module
        if id(module) in names:  # a parameter of its own
            covered[names[id(module)]].fill_(True)
            continue
        for piece in slices(module, dep, list(idxs)):
            covered[names[id(piece.parameter)]].index_fill_(piece.dim, piece.idxs, True)


def group_name(network: nn.Module, group: Any) -> str:
    """The name of the layer that the group begins at."""
    root = group[0].dep.target.module
    return next((name for name, module in network.named_modules() if module is root), "?")


def described(error: Exception) -> str:
    """The error in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"


if __name__ == "__main__":
    main()
