"""Documents that several tests write."""

import pytest
import torch

from npn_core.config import Budget, Training
from npn_core.progress import Cost, DatasetInfo, InputInfo, Metric, Unpruned
from npn_core.report import (
    AppliedPreprocessing,
    ArchitectureDocument,
    Hardening,
    InputSpec,
    KeptUnits,
    Latencies,
    Latency,
    LayerWidths,
    OnnxCheck,
    Report,
    SparseWeight,
    Versions,
)

torch.set_num_threads(1)  # tiny tensors: more threads only wait for each other


@pytest.fixture(scope="session")
def report() -> Report:
    """A report with every field set."""
    return Report(
        budget=Budget(max_params=100),
        dense=Cost(params=200, macs=300, bytes=800),
        compact=Cost(params=100, macs=150, bytes=400),
        largest_difference=1e-7,
        relative_difference=1e-8,
        onnx=OnnxCheck(opset=25, largest_difference=1e-6, relative_difference=1e-7),
        latency=Latencies(
            threads=1,
            entries=(
                Latency(
                    batch=64,
                    dense_ms=1.5,
                    compact_ms=0.5,
                    dense_format="contiguous",
                    compact_format="channels_last",
                    runs=100,
                ),
            ),
        ),
        unpruned=(Unpruned(name="norm", size=8, reason="LayerNorm averages over it"),),
        metrics=(Metric(name="compact_test_accuracy", value=0.98, low=0.93, high=0.99),),
        hardening=Hardening(
            expected_cost={"params": 101.5},
            hard_cost_before_repair={"params": 102},
            gate_entropy={"fc1": 0.01},
            units_changed=1,
        ),
        preprocessing=AppliedPreprocessing(scale=1 / 255, mean=(0.13,), std=(0.31,)),
        dataset=DatasetInfo(
            train_samples=90,
            validation_samples=10,
            test_samples=10,
            inputs=(InputInfo(name="x", shape=(1, 4, 4), dtype="uint8"),),
            target="classes",
            classes=2,
        ),
        training=Training(seed=3),
        distillation=1.0,
        seeds={"training": 3},
        versions=Versions.current(),
        timings={"dense": 1.5},
    )


@pytest.fixture(scope="session")
def architecture() -> ArchitectureDocument:
    """A network of which three neurons stayed."""
    return ArchitectureDocument(
        name="mlp",
        params={"hidden": "8"},
        inputs=(InputSpec(name="x", shape=(1, 4, 4), dtype="float32"),),
        outputs=("output",),
        classes=2,
        groups=(KeptUnits(name="fc1", kind="neuron", size=8, kept=(0, 3, 7)),),
        layers=(
            LayerWidths(
                name="fc1",
                type="Linear",
                dense=(8, 16),
                compact=(3, 16),
                arguments={"in_features": 16, "out_features": 3},
            ),
            LayerWidths(name="gone", type="Linear", dense=(8, 8), compact=None, arguments={}),
        ),
        sparse=(SparseWeight(name="fc2.weight", shape=(2, 8), kept=5),),
    )
