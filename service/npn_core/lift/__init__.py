"""An exported program as a module that trains: `lift` and `reinitialise`."""

from .lifting import lift
from .reinitialise import reinitialise

__all__ = ["lift", "reinitialise"]
