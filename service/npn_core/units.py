"""Identities of units while they are being found: disjoint sets of atoms.

An atom is one position of one axis.  Atoms that can only leave together are merged; an atom that can never
leave is pinned, with the reason.  What remains at the end, set by set, are the units.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from enum import Enum

import numpy as np
from numpy.typing import NDArray

Labels = NDArray[np.int64]
"""The atom of every position of an axis, (n,)."""


class Kind(Enum):
    """What a unit is."""

    CHANNEL = "channel"
    NEURON = "neuron"
    FEATURE = "feature"
    HEAD = "head"
    EMBEDDING = "embedding"
    WEIGHT = "weight"


@dataclass(frozen=True, kw_only=True, slots=True)
class Origin:
    """Where atoms come from: axis `dim` of the tensor, or of the selection, `name`.

    `kind` is that of the units that a layer makes; None for an axis that no layer makes (a raw parameter, padding).
    """

    name: str
    kind: Kind | None
    first: int
    size: int


@dataclass(kw_only=True, slots=True)
class Atoms:
    """All atoms of a network, and which of them are one."""

    parent: list[int] = field(default_factory=list)
    pinned: dict[int, str] = field(default_factory=dict)
    origins: list[Origin] = field(default_factory=list)

    def fresh(self, name: str, size: int, kind: Kind | None) -> Labels:
        """`size` new atoms, each a set of its own."""
        first = len(self.parent)
        self.parent.extend(range(first, first + size))
        self.origins.append(Origin(name=name, kind=kind, first=first, size=size))
        return np.arange(first, first + size)

    def make(self, first: int, kind: Kind) -> None:
        """A layer makes the atoms that begin at `first`; they may have been met before as a raw parameter."""
        for place, origin in enumerate(self.origins):
            if origin.first == first and origin.kind is None:
                self.origins[place] = replace(origin, kind=kind)

    def find(self, atom: int) -> int:
        """The representative of the atom's set."""
        parent = self.parent
        while parent[atom] != atom:
            parent[atom] = parent[parent[atom]]
            atom = parent[atom]
        return atom

    def merge(self, one: Labels | None, other: Labels | None, reason: str) -> Labels | None:
        """Make two axes one, position by position; None is an axis that never changes.

        `reason` is why the units stay where one of the two never changes.
        """
        if one is None or other is None:
            self.pin(other if one is None else one, reason)
            return None
        if len(one) != len(other):
            self.pin(one, reason)
            self.pin(other, reason)
            return None
        for a, b in zip(one.tolist(), other.tolist(), strict=True):
            if a != b:
                self._join(a, b)
        return one

    def merge_within(self, rows: Labels) -> Labels:
        """Merge each row of `rows` (n, m); returns the first of each row (n,)."""
        for row in rows.tolist():
            for atom in row[1:]:
                self._join(row[0], atom)
        return rows[:, 0].copy()

    def pin(self, labels: Labels | None, reason: str) -> None:
        """Units of the axis never leave."""
        if labels is not None:
            for atom in labels.tolist():
                self.pinned.setdefault(self.find(atom), reason)

    def is_pinned(self, atom: int) -> bool:
        """Whether the atom's set never leaves."""
        return self.find(atom) in self.pinned

    def roots(self, labels: Iterable[int]) -> list[int]:
        """The representative of each atom's set."""
        return [self.find(atom) for atom in labels]

    def _join(self, a: int, b: int) -> None:
        a, b = self.find(a), self.find(b)
        if a == b:
            return
        low, high = min(a, b), max(a, b)
        self.parent[high] = low
        if high in self.pinned:
            self.pinned.setdefault(low, self.pinned.pop(high))
