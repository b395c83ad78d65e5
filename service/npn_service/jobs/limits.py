"""What one owner may have at a time."""

from dataclasses import dataclass, fields


@dataclass(frozen=True, kw_only=True, slots=True)
class OwnerLimits:
    """Limits of each owner; 0 is no limit.

    `stored_bytes` counts uploaded objects, open uploads by what they announced, and artifacts.
    """

    running_jobs: int = 0
    queued_jobs: int = 0
    stored_bytes: int = 0

    def __post_init__(self) -> None:
        for field in fields(self):
            if getattr(self, field.name) < 0:
                raise ValueError(f"{field.name} is {getattr(self, field.name)}; it must not be negative")
