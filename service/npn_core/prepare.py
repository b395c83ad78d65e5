"""From what a job names to the lifted graph of its network.  Every network goes the same way: exported, lifted."""

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import fx, nn

from .catalogue import build
from .config import CatalogueModel, Model, ModelFile, Training
from .coupling import couple
from .data import arrange_inputs, check_augment, check_classifier, check_preprocessing, check_target
from .device import CPU
from .errors import InvalidInput
from .exported import read_exported
from .graph import NORMS, annotate, input_names
from .groups import Coupling
from .lift import lift, reinitialise
from .objective import Objective, check_output, objective_of
from .outputs import output_names, output_nodes
from .program import with_input_names
from .progress import DatasetInfo, InputInfo
from .weights import weight_coupling


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A network ready to be trained: its annotated graph, its coupling, what it is trained for.

    `info` has the dataset's inputs in the network's order.  `trained`: it came with weights that are kept.
    """

    graph: fx.GraphModule
    coupling: Coupling
    objective: Objective
    info: DatasetInfo
    trained: bool

    @property
    def input_names(self) -> tuple[str, ...]:
        """The names of the network's inputs."""
        return input_names(self.graph)


def prepare(model: Model, info: DatasetInfo, training: Training, *, weights: bool = True) -> Prepared:
    """The network of a job for a dataset; raises InvalidInput where one does not fit the other.

    Without `weights` a catalogue network has none, and its graph is shared: enough to plan with.
    """
    check_target(info, training.loss)
    trained = isinstance(model, ModelFile) and not training.from_scratch
    check_preprocessing(training.preprocessing, info, uploaded_trained=trained)
    check_augment(info, training.augment)
    if isinstance(model, ModelFile):
        graph, coupling = _coupled(_from_file(model, training), info, training.units)
    elif weights:
        graph, coupling = _coupled(_built(model, info, training.seed), info, training.units)
    else:
        graph, coupling = _sketch(model.name, tuple(sorted(model.params.items())), info, training.units)
    info = arrange_inputs(info, input_names(graph))
    _check_batch_size(graph, training)
    _check_groups(coupling)
    objective = objective_of(training, output_names(graph.graph.output_node().args[0]))
    check_output(objective, output_nodes(graph)[objective.output].meta["shape"], info)
    return Prepared(graph=graph, coupling=coupling, objective=objective, info=info, trained=trained)


def export_module(module: nn.Module, info: DatasetInfo) -> torch.export.ExportedProgram:
    """A module of one input in train mode, for any batch size."""
    device = next(module.parameters()).device
    example = torch.zeros(2, *info.input_shape, device=device)
    batch = torch.export.Dim("batch", min=1)
    return torch.export.export(module.train(), (example,), dynamic_shapes=({0: batch},))


def warm_up() -> None:
    """Import what torch imports when it first exports: seconds that the first question need not wait."""
    shape = InputInfo(name="x", shape=(2,), dtype="float32")
    info = DatasetInfo(
        train_samples=1, validation_samples=1, test_samples=1, inputs=(shape,), target="classes", classes=2
    )
    couple(lift(export_module(nn.Linear(2, 2), info)), info.inputs)


def _from_file(model: ModelFile, training: Training) -> fx.GraphModule:
    graph = lift(read_exported(model.path))
    if training.from_scratch:
        reinitialise(graph, training.seed)
    return graph


def _built(model: CatalogueModel, info: DatasetInfo, seed: int, device: torch.device = CPU) -> fx.GraphModule:
    check_classifier(info)
    shape, classes = info.input_shape, info.classes
    with device:
        module = build(model.name, model.params, input_shape=shape, classes=classes, seed=seed)
    return with_input_names(lift(export_module(module, info)), ("x",))


@lru_cache(maxsize=32)
def _sketch(
    name: str, params: tuple[tuple[str, str], ...], info: DatasetInfo, units: str
) -> tuple[fx.GraphModule, Coupling]:
    """A catalogue network without weights.  Kept: a sweep asks for the same one again and again, and export is slow."""
    model = CatalogueModel(name=name, params=dict(params))
    return _coupled(_built(model, info, 0, torch.device("meta")), info, units)


def _coupled(graph: fx.GraphModule, info: DatasetInfo, units: str) -> tuple[fx.GraphModule, Coupling]:
    inputs = arrange_inputs(info, input_names(graph)).inputs
    return graph, weight_coupling(annotate(graph, inputs)) if units == "weights" else couple(graph, inputs)


def _check_groups(coupling: Coupling) -> None:
    if not coupling.groups:
        reasons = "; ".join(f"{one.name}: {one.reason}" for one in coupling.unpruned[:3])
        raise InvalidInput(
            "model.uri",
            "no channel, neuron or head of the network can leave, so that there is nothing to compress "
            f"but its single weights (training.units weights): {reasons or 'it has no layers'}",
            reason="MODEL_NOT_PRUNABLE",
        )


def _check_batch_size(graph: fx.GraphModule, training: Training) -> None:
    if training.batch_size == 1 and any(isinstance(module, NORMS) for module in graph.modules()):
        raise InvalidInput(
            "training.batch_size", "batch_size is 1; BatchNorm needs at least 2 samples to train on"
        )
