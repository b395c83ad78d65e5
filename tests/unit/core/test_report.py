"""The artifact's documents."""

import dataclasses
import json

import pytest

from npn_core.errors import InvalidInput
from npn_core.report import (
    FORMAT_VERSION,
    ArchitectureDocument,
    Report,
    read_document,
    wilson,
    write_document,
)
from npn_core.strict_json import DocumentError


@pytest.mark.parametrize(
    ("correct", "total", "low", "high"),
    [(0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (5, 10, 0.2366, 0.7634), (9890, 10000, 0.98676, 0.99086)],
)
def test_wilson(correct: int, total: int, low: float, high: float) -> None:
    """Published values of the Wilson interval."""
    assert wilson(correct, total) == pytest.approx((low, high), abs=1e-4)


@pytest.mark.parametrize(("correct", "total"), [(0, 0), (3, 2), (-1, 2)])
def test_wilson_of_no_proportion(correct: int, total: int) -> None:
    """Counts that are no proportion are a defect of the caller."""
    with pytest.raises(ValueError, match="no proportion"):
        wilson(correct, total)


def test_round_trip(report: Report, architecture: ArchitectureDocument) -> None:
    """A document is read as it was written, and says its version first."""
    assert read_document(Report, write_document(report)) == report
    assert read_document(ArchitectureDocument, write_document(architecture)) == architecture
    for document in (report, architecture):
        assert next(iter(json.loads(write_document(document)).items())) == ("format_version", FORMAT_VERSION)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"format_version": 1}, "format_version is 1"),
        ({"comment": "x"}, "unknown key 'comment'"),
        ({"timings": None}, "timings"),
    ],
)
def test_strict(report: Report, change: dict[str, object], words: str) -> None:
    """Another version, unknown keys and other types are refused."""
    with pytest.raises(DocumentError, match=words):
        read_document(Report, json.dumps(json.loads(write_document(report)) | change))


@pytest.mark.parametrize("text", ["", "[]", "{", "1"])
def test_no_document(text: str) -> None:
    """Text that is no document is refused as such."""
    with pytest.raises(DocumentError):
        read_document(Report, text)


def test_settings_are_checked_when_read(report: Report) -> None:
    """A report with settings that no job can have is refused."""
    raw = json.loads(write_document(report))
    raw["training"]["epochs"] = 0
    with pytest.raises(InvalidInput, match="epochs is 0"):
        read_document(Report, json.dumps(raw))


@pytest.mark.parametrize("kept", [(3, 0), (1, 1), (8,), (-1, 2)])
def test_kept_units_are_ascending_indices(architecture: ArchitectureDocument, kept: tuple[int, ...]) -> None:
    """Indices out of order or out of range are refused."""
    with pytest.raises(DocumentError, match="fc1"):
        dataclasses.replace(architecture.groups[0], kept=kept)
