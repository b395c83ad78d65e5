"""Torch-Pruning's magnitude and group-norm pruners on CIFAR-10, from one dense network, to a budget of multiply-adds.

    python benchmarks/cifar_plain.py --epochs 20 --keep dense20.pt --out cifar_dense20.json
    python benchmarks/cifar_pruners.py --dense dense20.pt --max-macs 20000000 10203296 --out cifar_pruners.json

"magnitude" prunes the dense network and fine-tunes it for `--epochs`.  "group-norm" first trains it with that
library's group sparsity for `--sparse-epochs` of them, half as its authors do, without weight decay and by the
importance that they take for CIFAR.  Both prune globally, in small steps until a budget is met, on from there to the
next smaller one, and are trained as in `cifar_plain.py`, from a fifth of its rate, as is usual for a network that is
trained already.  The test images are read once for each network.
"""

import argparse
import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch_pruning as tp
from _cifar import Fit, Images, place, test_accuracy, training_images
from _results import save
from torch import Tensor, nn

from npn_core.catalogue import build
from npn_core.progress import Cost
from npn_core.recount import count

STEPS = 400  # of pruning, from nothing to everything


class SparseFit(Fit):
    """With the pruner's group sparsity in the gradients in place of weight decay, as in the library's own loop."""

    pruner: Any

    def regularise(self) -> None:
        """Add to the gradients of the step that is to be taken."""
        self.optimizer.param_groups[0]["weight_decay"] = 0.0
        self.pruner.regularize(self.module)


def magnitude(module: nn.Module, example: Tensor) -> Any:
    """By the L2 norm of a group's weights."""
    importance = tp.importance.GroupMagnitudeImportance(p=2)
    return tp.pruner.MagnitudePruner(module, example, importance, **_options(module))


def group_norm(module: nn.Module, example: Tensor) -> Any:
    """By the same norm, after training that drives whole groups to zero (Fang et al., arXiv:2301.12900)."""
    importance = tp.importance.GroupMagnitudeImportance(p=2, normalizer="max")
    return tp.pruner.GroupNormPruner(module, example, importance, reg=5e-4, **_options(module))


def _options(module: nn.Module) -> dict[str, Any]:
    head = [layer for layer in module.modules() if isinstance(layer, nn.Linear)]
    return {
        "global_pruning": True,
        "iterative_steps": STEPS,
        "pruning_ratio": 1.0,
        "max_pruning_ratio": 0.95,
        "ignored_layers": head,
    }


PRUNERS: dict[str, Callable[[nn.Module, Tensor], Any]] = {"magnitude": magnitude, "group-norm": group_norm}


def prune(pruner: Any, module: nn.Module, example: Tensor, limit: int) -> Cost:
    """Step by step until the network has at most `limit` multiply-adds; what it costs then."""
    for _ in range(STEPS):
        cost = count(module, (example,))
        if cost.macs <= limit:
            return cost
        pruner.step()
    raise SystemExit(f"the pruner stops at {cost.macs:,} multiply-adds, above {limit:,}")


def run(name: str, arguments: argparse.Namespace, data: Images) -> Iterator[dict[str, Any]]:
    """From the dense network to each pruned one's test accuracy."""
    device, shape = torch.device(arguments.device), (3, 32, 32)
    module = build(arguments.model, {}, input_shape=shape, classes=10, seed=arguments.seed)
    module.load_state_dict(torch.load(arguments.dense, weights_only=True))
    place(module, device)
    example = torch.zeros(1, *shape, device=device)
    pruner = PRUNERS[name](module, example)
    options = {"optimizer": "sgd", "lr": arguments.lr}
    sparse, seconds = arguments.sparse_epochs if name == "group-norm" else 0, 0.0
    if sparse:
        generator = torch.Generator().manual_seed(arguments.seed)
        fit = SparseFit(module, data, generator, epochs=sparse, **options)
        fit.pruner = pruner
        seconds = fit.run()
    options["epochs"], options["uncropped"] = arguments.epochs - sparse, arguments.uncropped
    for limit in sorted(arguments.max_macs, reverse=True):
        cost = prune(pruner, module.eval(), example, limit)
        pruned = copy.deepcopy(module)
        tuning = Fit(pruned, data, torch.Generator().manual_seed(arguments.seed), **options)
        tuned = tuning.run()
        yield {
            "run": name,
            "model": arguments.model,
            "limits": {"macs": limit},
            "macs": cost.macs,
            "params": cost.params,
            "seed": arguments.seed,
            "sparse_epochs": sparse,
            **options,
            "precision": tuning.precision,
            "test": test_accuracy(pruned, data, arguments.dataset),
            "seconds": seconds + tuned,
        }


def main() -> None:
    """Run, print a line each, save JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dataset", type=Path, default=Path("../shared/data/cifar10"))
    parser.add_argument("--dense", type=Path, required=True)
    parser.add_argument("--model", default="resnet20")
    parser.add_argument("--runs", nargs="+", choices=PRUNERS, default=list(PRUNERS))
    parser.add_argument("--max-macs", type=int, nargs="+", required=True)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--sparse-epochs", type=int, default=10)
    parser.add_argument("--uncropped", type=int, default=0, help="The last epochs, with flips alone.")
    parser.add_argument("--lr", type=float, default=0.02)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--samples", type=int, help="Train on so many images alone, to try it.")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    generator, device = torch.Generator().manual_seed(arguments.seed), torch.device(arguments.device)
    data, results = training_images(arguments.dataset, generator, device, arguments.samples), []
    for name in arguments.runs:
        for found in run(name, arguments, data):
            results.append(found)
            save(arguments.out, results)


if __name__ == "__main__":
    main()
