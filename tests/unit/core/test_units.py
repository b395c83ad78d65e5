"""Disjoint sets of atoms: what is merged leaves together, what is pinned never leaves, and says why."""

import numpy as np

from npn_core.units import Atoms, Kind, Labels


def same(atoms: Atoms, one: Labels, other: Labels) -> list[bool]:
    """Whether the axes are one, position by position."""
    return [a == b for a, b in zip(atoms.roots(one.tolist()), atoms.roots(other.tolist()), strict=True)]


def test_fresh_atoms_are_sets_of_their_own() -> None:
    """They are numbered on, and remember where they come from."""
    atoms = Atoms()
    one, other = atoms.fresh("a", 3, Kind.CHANNEL), atoms.fresh("b", 2, None)
    assert [*one, *other] == [0, 1, 2, 3, 4]
    assert atoms.roots(range(5)) == [0, 1, 2, 3, 4]
    assert [(o.name, o.kind, o.first, o.size) for o in atoms.origins] == [
        ("a", Kind.CHANNEL, 0, 3),
        ("b", None, 3, 2),
    ]
    assert not any(atoms.is_pinned(atom) for atom in range(5))


def test_merging_joins_position_by_position() -> None:
    """And what two axes were merged with before comes along."""
    atoms = Atoms()
    a, b, c = (atoms.fresh(name, 3, Kind.CHANNEL) for name in "abc")
    atoms.merge(a, b, "")
    atoms.merge(c, b[::-1], "")
    assert same(atoms, a, b) == [True] * 3
    assert same(atoms, a, c[::-1]) == [True] * 3
    assert same(atoms, a, c) == [False, True, False]


def test_merging_with_what_never_changes_pins() -> None:
    """The result never changes either, and the reason is the one given."""
    atoms = Atoms()
    a, b = atoms.fresh("a", 2, Kind.CHANNEL), atoms.fresh("b", 2, Kind.CHANNEL)
    assert atoms.merge(a, None, "meets the input") is None
    assert atoms.merge(None, b, "meets another") is None
    assert [atoms.pinned[atom] for atom in (*a.tolist(), *b.tolist())] == ["meets the input"] * 2 + [
        "meets another"
    ] * 2


def test_axes_of_different_lengths_pin_each_other() -> None:
    """There is no position for each of the other."""
    atoms = Atoms()
    a, b = atoms.fresh("a", 2, Kind.CHANNEL), atoms.fresh("b", 3, Kind.CHANNEL)
    assert atoms.merge(a, b, "broadcast") is None
    assert all(atoms.is_pinned(atom) for atom in range(5))
    assert set(atoms.pinned.values()) == {"broadcast"}


def test_merging_within_makes_one_of_each_row() -> None:
    """The first of each row stands for it."""
    atoms = Atoms()
    labels = atoms.merge_within(atoms.fresh("a", 6, Kind.CHANNEL).reshape(2, 3))
    assert labels.tolist() == [0, 3]
    assert atoms.roots(range(6)) == [0, 0, 0, 3, 3, 3]


def test_a_pin_spreads_to_whatever_is_merged() -> None:
    """Before the merge or after it; the first reason stays."""
    atoms = Atoms()
    a, b = atoms.fresh("a", 2, Kind.CHANNEL), atoms.fresh("b", 2, Kind.CHANNEL)
    atoms.pin(b[1:], "first")
    atoms.merge(a, b, "")
    atoms.pin(a, "second")
    assert {atom: atoms.pinned[atoms.find(atom)] for atom in range(4)} == {
        0: "second",
        1: "first",
        2: "second",
        3: "first",
    }
    atoms.pin(None, "no axis")
    assert set(atoms.pinned.values()) == {"first", "second"}


def test_pinned_is_the_set_not_the_atom() -> None:
    """An atom merged with a pinned one is pinned, and its neighbours are not."""
    atoms = Atoms()
    labels = atoms.fresh("a", 3, Kind.NEURON)
    atoms.pin(np.asarray(labels[2:]), "why")
    atoms.merge(labels[:1], labels[2:], "")
    assert [atoms.is_pinned(atom) for atom in range(3)] == [True, False, True]


def test_a_layer_may_claim_what_was_a_raw_parameter() -> None:
    """Its atoms are then units that a layer makes; what a layer made keeps its kind."""
    atoms = Atoms()
    raw, made = atoms.fresh("a", 2, None), atoms.fresh("b", 2, Kind.CHANNEL)
    atoms.make(int(raw[0]), Kind.NEURON)
    atoms.make(int(made[0]), Kind.EMBEDDING)
    assert [origin.kind for origin in atoms.origins] == [Kind.NEURON, Kind.CHANNEL]
