"""Datasets: refusing bad ones early, reading good ones safely, and handing out batches."""

from .inspection import inspect_dataset
from .loading import Data, batches, check_preprocessing, load_dataset, load_test, steps_per_epoch

__all__ = [
    "Data",
    "batches",
    "check_preprocessing",
    "inspect_dataset",
    "load_dataset",
    "load_test",
    "steps_per_epoch",
]
