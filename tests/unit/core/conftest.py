"""Documents that several tests write."""

import pytest
import torch

from npn_core.config import Budget, Training
from npn_core.progress import Cost, DatasetInfo
from npn_core.report import (
    Accuracies,
    Accuracy,
    AppliedPreprocessing,
    ArchitectureDocument,
    Hardening,
    KeptUnits,
    Report,
    Versions,
)

torch.set_num_threads(1)  # tiny tensors: more threads only wait for each other


@pytest.fixture(scope="session")
def report() -> Report:
    """A report with every field set."""
    accuracy = Accuracy.of(98, 100)
    return Report(
        budget=Budget(max_params=100),
        dense=Cost(params=200, macs=300, bytes=800),
        compact=Cost(params=100, macs=150, bytes=400),
        largest_difference=1e-7,
        accuracies=Accuracies(
            dense_validation=accuracy,
            dense_test=accuracy,
            compact_validation=accuracy,
            compact_test=accuracy,
        ),
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
            input_shape=(1, 4, 4),
            classes=2,
            dtype="uint8",
        ),
        training=Training(seed=3),
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
        input_shape=(1, 4, 4),
        classes=2,
        groups=(KeptUnits(name="fc1", kind="neuron", size=8, kept=(0, 3, 7)),),
    )
