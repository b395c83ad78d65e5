"""What can be known of a dataset before training: headers, names, shapes and labels, never the samples."""

from pathlib import Path

from npn_core.errors import InvalidInput
from npn_core.progress import DatasetInfo

from .archive import Archive
from .contents import Contents, find_contents
from .opening import open_archive
from .targets import inspect_targets

VALIDATION_FRACTION = 10  # one in ten training samples, where there is no x_val


def inspect_dataset(path: Path, *, layout: str = "") -> DatasetInfo:
    """Check a dataset's headers and labels in bounded time and memory.

    Raises InvalidInput with field "dataset.uri" or "dataset.layout" and a reason DATASET_*.
    """
    return examine(open_archive(path), layout)[0]


def examine(archive: Archive, layout: str) -> tuple[DatasetInfo, Contents]:
    """What `inspect_dataset` tells, and which arrays it is of."""
    if layout and not archive.layouts:
        raise InvalidInput(
            "dataset.layout",
            "encoded images have no layout; leave it out for Parquet",
            reason="DATASET_LAYOUT",
        )
    contents = find_contents(archive.headers, layout)
    target = inspect_targets(archive, contents)
    train, validation = contents.samples["train"], contents.samples.get("val")
    held = held_out(train) if validation is None else 0
    info = DatasetInfo(
        train_samples=train - held,
        validation_samples=held or validation or 0,
        test_samples=contents.samples["test"],
        inputs=contents.inputs,
        target=target.kind,
        classes=target.classes,
        target_shape=target.shape,
        notes=_notes(archive, contents, layout),
    )
    return info, contents


def held_out(samples: int) -> int:
    """How many of `samples` training samples become the validation split, where the dataset has none."""
    return max(1, samples // VALIDATION_FRACTION)


def _notes(archive: Archive, contents: Contents, layout: str) -> tuple[str, ...]:
    notes = list(archive.notes)
    if archive.ignored:
        shown = ", ".join(f"{name!r:.40}" for name in archive.ignored[:5])
        more = len(archive.ignored) - 5
        things = "arrays" if archive.layouts else "columns"
        notes.append(f"ignored {things}: {shown}" + (f" and {more} more" if more > 0 else ""))
    for name, array in contents.x("train").items():
        sample = archive.headers[array].shape[1:]
        if archive.layouts and len(sample) == 3 and not layout and sample[2] in (1, 3, 4) and sample[0] > 4:
            of = f" of {name}" if contents.named else ""
            notes.append(
                f"samples{of} of shape {sample} are read as C,H,W; if they are H,W,C set layout NHWC"
            )
    return tuple(notes)
