"""rpc/access.py: the table of scopes against the interface."""

import pytest

from npn_service.access.identity import Identity, Scope
from npn_service.errors import PermissionDenied
from npn_service.rpc.access import DOWNLOADS, SCOPES, require
from npn_service.rpc.server import SERVICE


def test_every_method_asks_for_a_scope() -> None:
    """A method that is added to the interface says who may call it, or this fails."""
    assert set(SCOPES) == {method.name for method in SERVICE.methods}
    assert set(SCOPES) >= DOWNLOADS


@pytest.mark.parametrize("scope", Scope)
def test_a_missing_scope_is_named(scope: Scope) -> None:
    """The refusal says what is needed, by what, and what the token has."""
    others = frozenset(Scope) - {scope, Scope.ADMIN}
    caller = Identity(owner="a", subject="b", scopes=others)
    with pytest.raises(PermissionDenied, match=f"CreateJob needs the scope {scope.value}; this token has "):
        require(caller, scope, "CreateJob")
    require(Identity(owner="a", subject="b", scopes=frozenset({Scope.ADMIN})), scope, "CreateJob")
