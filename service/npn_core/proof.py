"""The proof: what the dense and the compact network were found to be, counted, compared and timed."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from .artifact import Exported
from .catalogue import resolve_params
from .config import CatalogueModel
from .copies import duplicate
from .data import Batch, Data, load_test
from .device import name_of
from .difference import Difference
from .gated import Network
from .job import CompressJob
from .latency import measure
from .objective import Outputs, named
from .outputs import output_tensors
from .prepare import Prepared
from .progress import Metric
from .recount import count
from .report import ArchitectureDocument, Hardening, KeptUnits, Report, SparseWeight, Versions
from .state import Trained
from .step import gated_outputs
from .surgery import compact, without_gates
from .units import Kind
from .widths import layer_widths

PROOF_SAMPLES = 1000


def measured(job: CompressJob, prepared: Prepared, data: Data, trained: Trained) -> tuple[Metric, ...]:
    """What the network said as it came, dense and compact; the one place that reads the test split."""
    dense = Network(duplicate(trained.dense.graph), trained.dense.coupling)
    dense.graph.load_state_dict(trained.state.dense)
    compacted = Network(trained.compact, without_gates(trained.compact))
    test = load_test(
        job.dataset,
        layout=job.layout,
        preprocessing=data.preprocessing,
        inputs=prepared.input_names,
        room=job.room,
        device=data.device,
    )
    objective, own_teacher = prepared.objective, prepared.objective.kind == "distill"

    def answers(network: Network, batches: Iterator[Batch]) -> Iterator[tuple[Outputs, Any]]:
        for batch in batches:
            outputs = network.evaluate(batch.x)
            if own_teacher:
                said = outputs if network is dense else dense.evaluate(batch.x)
                yield outputs, said[objective.output]
            else:
                yield outputs, batch.y

    found = [named("received", trained.state.received)] if trained.state.received else []
    for name, network in (("dense", dense), ("compact", compacted)):
        for split, batches in (("validation", data.validation_batches()), ("test", test.batches())):
            found.append(named(f"{name}_{split}", objective.measure(answers(network, batches))))
    return tuple(metric for metrics in found for metric in metrics)


def report_of(
    job: CompressJob,
    prepared: Prepared,
    data: Data,
    trained: Trained,
    metrics: tuple[Metric, ...],
    exported: Exported,
    *,
    ready: float,
    warnings: tuple[str, ...],
) -> Report:
    """report.json, with counts and differences of the compact network itself.

    `trained` is on the CPU; `ready` are the seconds until training began, `warnings` the plan's.
    """
    network, weights = trained.full, prepared.coupling.weights
    difference = Difference.worst(
        Difference.of(gated_outputs(network, x, trained.active), _outputs(trained.compact, x))
        for x in data.first(PROOF_SAMPLES)
    )
    whole = compact(trained.dense, trained.whole, data.info.inputs)
    return Report(
        budget=job.budget,
        dense=trained.first,
        compact=count(trained.compact, data.samples(1), weights),
        largest_difference=difference.largest,
        relative_difference=difference.relative,
        onnx=exported.onnx,
        latency=measure(whole.eval(), trained.compact, data.samples(64), job.training.threads),
        unpruned=prepared.coupling.unpruned,
        metrics=metrics,
        hardening=_hardening(trained),
        preprocessing=data.preprocessing,
        dataset=data.info,
        training=trained.training,
        distillation=trained.state.share,
        seeds={"training": job.training.seed},
        resumed=trained.state.resumed,
        trials=trained.trials,
        versions=Versions.current(name_of(data.device)),
        timings={"prepare": ready}
        | {stage.value: seconds for stage, seconds in trained.state.meter.seconds.items()},
        warnings=warnings + trained.state.warnings + exported.warnings,
    )


def architecture_of(
    job: CompressJob, prepared: Prepared, trained: Trained, exported: Exported
) -> ArchitectureDocument:
    """architecture.json: which units stayed, and the sizes that their layers have now."""
    mask, dense = trained.of_dense(trained.hardening.hardened.mask), trained.dense
    catalogue = job.model if isinstance(job.model, CatalogueModel) else None
    return ArchitectureDocument(
        name=catalogue.name if catalogue else "uploaded",
        params=resolve_params(catalogue.name, catalogue.params) if catalogue else {},
        inputs=exported.inputs,
        outputs=exported.outputs,
        classes=prepared.info.classes,
        groups=tuple(
            KeptUnits(
                name=group.name,
                kind=group.kind.value,
                size=group.size,
                kept=tuple(mask[group.slice].nonzero().flatten().tolist()),
            )
            for group in dense.coupling.groups
            if group.kind is not Kind.WEIGHT
        ),
        sparse=tuple(
            SparseWeight(
                name=name, shape=tuple(dense.parameters[name].shape), kept=int(mask[group.slice].sum())
            )
            for name, group in dense.coupling.weights.items()
        ),
        layers=layer_widths(dense.graph, trained.compact),
    )


def _hardening(trained: Trained) -> Hardening:
    hardening = trained.hardening
    before = hardening.hardened.before
    return Hardening(
        expected_cost=hardening.expected,
        hard_cost_before_repair={kind: getattr(before, kind) for kind in hardening.expected},
        gate_entropy=hardening.gate_entropy,
        units_changed=hardening.hardened.changed,
    )


def _outputs(module: nn.Module, x: tuple[Tensor, ...]) -> Outputs:
    with torch.no_grad():
        return output_tensors(module(*x))
