"""Safe reading of `torch.export` archives: nothing in a foreign file can run."""

from .reading import read_exported

__all__ = ["read_exported"]
