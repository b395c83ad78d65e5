"""The JSON lines of `--json`: one object per line, each with a `type`.

    job           a job, whenever its state changes: the fields of `npn_client.JobSnapshot`
    progress      a report of the training loop: `job`, `sequence`, `time`, and `progress` with the fields of
                  `npn_client.Progress`
    plan          what a job would come to (`--dry-run`): the fields of `npn_client.Plan`
    artifact      downloaded files: `job`, `folder`, `paths`
    architecture  a network of the catalogue: the fields of `npn_client.ArchitectureInfo`
    logs          what is kept of an attempt: `job` and the fields of `npn_client.JobLogs`
    deleted       a job that was deleted: `job`
    error         why the command failed: `error` (class), `reason`, `message`, `violations`, `exit_code`

Names and meanings stay; fields and types may be added.  Times are ISO 8601 in UTC, durations seconds.
Numbers that are not finite (k in stages 1 and 3) are null.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from datetime import datetime
from enum import Enum
from pathlib import Path
from typing import Any

from npn_client.errors import ClientError
from npn_client.model import Event, StateChanged

from .exits import code_of


def line(kind: str, record: Any = None, **more: Any) -> str:
    """One document: the fields of a dataclass and more."""
    content = _plain(record) if record is not None else {}
    return json.dumps({"type": kind, **content, **_plain(more)}, allow_nan=False)


def event_line(job: str, event: Event) -> str:
    """The document of a watch's event."""
    if isinstance(event, StateChanged):
        return line("job", event.job)
    return line("progress", job=job, sequence=event.sequence, time=event.time, progress=event.progress)


def error_line(error: ClientError) -> str:
    """The document of a failure."""
    return line(
        "error",
        error=type(error).__name__,
        reason=error.reason,
        message=error.message,
        violations=error.violations,
        exit_code=int(code_of(error)),
    )


def _plain(value: Any) -> Any:
    match value:
        case float():
            return value if math.isfinite(value) else None
        case Enum():
            return value.value
        case datetime():
            return value.isoformat()
        case Path():
            return str(value)
        case Mapping():
            return {key: _plain(item) for key, item in value.items()}
        case list() | tuple():
            return [_plain(item) for item in value]
        case _ if is_dataclass(value):
            return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
        case _:
            return value
