"""The grammar of symbolic sizes: all that exports write, nothing that runs or explodes."""

import time

import pytest
import sympy
from torch.utils._sympy import functions

from npn_core.errors import InvalidInput
from npn_core.exported.symbols import Symbols

S0 = sympy.Symbol("s0", positive=True, integer=True)
S1 = sympy.Symbol("s1", positive=True, integer=True)
U0 = sympy.Symbol("u0", integer=True)


@pytest.mark.parametrize(
    "expression",
    [
        sympy.Integer(7),
        sympy.Integer(-7),
        S0,
        U0,
        2 * S0 + 1,
        sympy.Max(1, functions.FloorDiv(S0 - 1, 2)) * functions.FloorDiv(S1, 4),
        sympy.Min(S0, S1, 8),
        functions.Mod(S0, 3),
        functions.PythonMod(S0 - S1, 3),
        functions.ModularIndexing(S0, 2, 3),
        functions.CeilDiv(S0, 2),
        S0**2,
        functions.FloatPow(functions.ToFloat(S0), sympy.Float(0.5)),
        functions.IntTrueDiv(S0, S1),
        functions.TruncToInt(functions.IntTrueDiv(S0, S1)),
        sympy.Eq(S0, 3),
        sympy.And(S0 < S1, sympy.Ne(S1, 4)),
        sympy.Not(sympy.Eq(functions.Mod(S0, 2), 0)),
        sympy.true,
    ],
    ids=str,
)
def test_what_sympy_writes_is_read_back(expression: sympy.Basic) -> None:
    """srepr and this reader are inverse."""
    assert Symbols().read(sympy.srepr(expression)) == expression


@pytest.mark.parametrize(
    "text",
    [
        "",
        "s0",
        "1",
        "Integer",
        "Integer(1",
        "Integer(1))",
        "Integer(1) + Integer(2)",
        "Integer(0x10)",
        "Integer('1')",
        "Integer(99999999999999999999)",
        "Symbol('x')",
        "Symbol('s0; import os')",
        "Symbol('s0', positive=1)",
        "Symbol('s0', commutative=False)",
        "Symbol('s999999999')",
        "Float('1e5')",
        "Float('nan', precision=53)",
        "Float('0.5', precision=99999)",
        "Float(0.5, precision=53)",
        "Rational(1, 2)",
        "Function('f')",
        "Lambda(Integer(1))",
        "Add()",
        "Add(Integer(1))",
        "FloorDiv(Integer(1))",
        "FloorDiv(Integer(1), Integer(0))",
        "Pow(Integer(0), Integer(-1))",
        "Pow(Integer(-1), Float('0.5', precision=53))",
        "Mod(true, Integer(1))",
        "__import__('os').system('true')",
        "Integer.__class__(1)",
        "Add(Integer(1), Integer(1)).func",
        "oo",
        "zoo",
        "\x00",
        "\uff29nteger(1)",
    ],
)
def test_all_else_is_refused(text: str) -> None:
    """The grammar is closed."""
    with pytest.raises(InvalidInput) as caught:
        Symbols().read(text)
    assert (caught.value.field, caught.value.reason) == ("model.uri", "MODEL_UNSAFE")


@pytest.mark.parametrize(
    "text",
    [
        "Pow(Integer(10), Integer(1000000000))",
        "Pow(Pow(Pow(Integer(9), Integer(8)), Integer(8)), Integer(8))",
        "PowByNatural(Integer(2), Symbol('s0', integer=True))",
        "CeilDiv(" * 6 + "Symbol('s0', integer=True)" + ", Integer(2))" * 6,
        "Add(" * 3000 + "Integer(1)" + ")" * 3000,
        "Add(" * 60 + "Integer(1), Integer(1)" + ", Integer(1))" * 60,
        "Add(" + ", ".join(["Symbol('s0', integer=True)"] * 99_999) + ")",
        "Max(" + ", ".join(f"Symbol('s{index}', integer=True)" for index in range(90)) + ")",
    ],
)
def test_small_texts_cannot_become_large_expressions(text: str) -> None:
    """Powers, depth, length and arguments are bounded, so the refusal is quick."""
    start = time.perf_counter()
    with pytest.raises(InvalidInput):
        Symbols().read(text)
    assert time.perf_counter() - start < 5


def test_time_for_all_expressions_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """What passes the grammar and is still slow to simplify ends the reading."""
    monkeypatch.setattr("npn_core.exported.symbols.MAX_SECONDS", -1.0)
    with pytest.raises(InvalidInput) as caught:
        Symbols().read("Symbol('s0', integer=True)")
    assert caught.value.reason == "MODEL_TOO_LARGE"


def test_one_symbol_has_one_meaning() -> None:
    """A symbol of two assumptions would be two symbols of one name."""
    symbols = Symbols()
    symbols.read("Symbol('s0', positive=True, integer=True)")
    with pytest.raises(InvalidInput, match="other assumptions"):
        symbols.read("Symbol('s0', integer=True)")
