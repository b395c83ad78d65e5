"""Datasets: refusing bad ones early, reading good ones safely, and handing out batches."""

from .augment import at_last, check_augment
from .batches import Batch, Data, TestData, steps_per_epoch
from .inspection import inspect_dataset
from .loading import arrange_inputs, load_dataset, load_test
from .opening import open_archive
from .preprocessing import check_preprocessing
from .room import Room
from .splits import Split
from .targets import check_classifier, check_target

__all__ = [
    "Batch",
    "Data",
    "Room",
    "Split",
    "TestData",
    "arrange_inputs",
    "at_last",
    "check_augment",
    "check_classifier",
    "check_preprocessing",
    "check_target",
    "inspect_dataset",
    "load_dataset",
    "load_test",
    "open_archive",
    "steps_per_epoch",
]
