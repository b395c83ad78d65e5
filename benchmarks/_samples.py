"""Datasets that exist in name alone, for benchmarks that train on nothing."""

from npn_core.progress import DatasetInfo, InputInfo


def samples_of(shape: tuple[int, ...], classes: int = 10) -> DatasetInfo:
    """Of float inputs of `shape`, in so many classes."""
    return DatasetInfo(
        train_samples=1,
        validation_samples=1,
        test_samples=1,
        inputs=(InputInfo(name="x", shape=shape, dtype="float32"),),
        target="classes",
        classes=classes,
    )
