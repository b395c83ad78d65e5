"""Symbolic sizes, read by a grammar of their own: no text of an archive reaches sympy's parser, which evaluates.

Archives hold sympy's srepr, such as "Add(Mul(Integer(2), Symbol('s0', positive=True, integer=True)), Integer(1))".
Here that text becomes sympy objects by a table of constructors.  Sizes and powers are bounded, so that no
expression can be small to write and large to simplify.
"""

import re
import time
from collections.abc import Callable
from typing import Any

import sympy
from torch.utils._sympy import functions as torch_functions

from .refusal import HOW_TO_EXPORT, refuse, shown

MAX_CHARACTERS = 8000
MAX_TERMS = 80
MAX_DEPTH = 12
MAX_FUNCTIONS = 12  # besides sums and products: sympy's simplification of nested ones takes exponential time
MAX_NESTING = 4  # of those functions in each other
MAX_EXPRESSIONS = 2000
MAX_SECONDS = 10.0  # of the processor, for all expressions of an archive; usual ones take milliseconds
MAX_SYMBOLS = 200
MAX_POWER = 8
_INT64 = 1 << 63

_TOKEN = re.compile(
    r"\s*(?:([A-Za-z][A-Za-z0-9_]*)|(-?[0-9]{1,20})|'([A-Za-z0-9_.+-]{1,40})'|([(),=]))", re.ASCII
)
_SYMBOL = re.compile(r"(?:s|u|zf|zuf)[0-9]{1,5}", re.ASCII)
_FLOAT = re.compile(r"-?[0-9]{1,25}(?:\.[0-9]{0,40})?(?:e[+-]?[0-9]{1,3})?", re.ASCII)
_ASSUMPTIONS = frozenset({"integer", "positive", "nonnegative", "real", "finite"})

# name -> (constructor, fewest arguments, most arguments)
_FUNCTIONS: dict[str, tuple[Callable[..., Any], int, int]] = {
    "Add": (sympy.Add, 2, 20),
    "Mul": (sympy.Mul, 2, 20),
    "Max": (sympy.Max, 2, 4),
    "Min": (sympy.Min, 2, 4),
    "Pow": (sympy.Pow, 2, 2),
    "PowByNatural": (torch_functions.PowByNatural, 2, 2),
    "FloatPow": (torch_functions.FloatPow, 2, 2),
    "FloorDiv": (torch_functions.FloorDiv, 2, 2),
    "CeilDiv": (torch_functions.CeilDiv, 2, 2),
    "CleanDiv": (torch_functions.CleanDiv, 2, 2),
    "IntTrueDiv": (torch_functions.IntTrueDiv, 2, 2),
    "FloatTrueDiv": (torch_functions.FloatTrueDiv, 2, 2),
    "Mod": (torch_functions.Mod, 2, 2),
    "PythonMod": (torch_functions.PythonMod, 2, 2),
    "ModularIndexing": (torch_functions.ModularIndexing, 3, 3),
    "CeilToInt": (torch_functions.CeilToInt, 1, 1),
    "FloorToInt": (torch_functions.FloorToInt, 1, 1),
    "TruncToInt": (torch_functions.TruncToInt, 1, 1),
    "TruncToFloat": (torch_functions.TruncToFloat, 1, 1),
    "RoundToInt": (torch_functions.RoundToInt, 1, 1),
    "ToFloat": (torch_functions.ToFloat, 1, 1),
    "Identity": (torch_functions.Identity, 1, 1),
    "Where": (torch_functions.Where, 3, 3),
    "Equality": (sympy.Eq, 2, 2),
    "Unequality": (sympy.Ne, 2, 2),
    "StrictLessThan": (sympy.Lt, 2, 2),
    "StrictGreaterThan": (sympy.Gt, 2, 2),
    "LessThan": (sympy.Le, 2, 2),
    "GreaterThan": (sympy.Ge, 2, 2),
    "And": (sympy.And, 2, 20),
    "Or": (sympy.Or, 2, 20),
    "Not": (sympy.Not, 1, 1),
}
_LOGIC = frozenset({"And", "Or", "Not", "Where"})
_POWERS = frozenset({"Pow", "PowByNatural", "FloatPow"})


def check_symbol_name(name: str) -> str:
    """The name of a symbolic size, such as s0 or u1."""
    if not _SYMBOL.fullmatch(name):
        raise refuse("MODEL_UNSAFE", f"the archive has a symbolic size of the name {shown(name)}")
    return name


class Symbols:
    """The symbolic expressions of one archive, each read once."""

    def __init__(self) -> None:
        self._symbols: dict[str, sympy.Symbol] = {}
        self._expressions: dict[str, Any] = {}
        self._seconds = 0.0

    def read(self, text: str) -> Any:
        """The sympy expression; raises InvalidInput where the text is outside of the grammar."""
        if text not in self._expressions:
            if len(self._expressions) == MAX_EXPRESSIONS:
                raise refuse(
                    "MODEL_TOO_LARGE", f"the archive has more than {MAX_EXPRESSIONS:,} symbolic sizes"
                )
            start = time.process_time()
            try:
                self._expressions[text] = self._parse(text)
            except _Bad as bad:
                raise refuse(
                    "MODEL_UNSAFE", f"the symbolic size {shown(text)} {bad}; {HOW_TO_EXPORT}"
                ) from None
            self._seconds += time.process_time() - start
            if self._seconds > MAX_SECONDS:
                raise refuse(
                    "MODEL_TOO_LARGE", f"the symbolic sizes take too long to simplify: {shown(text)}"
                )
        return self._expressions[text]

    def _parse(self, text: str) -> Any:
        if len(text) > MAX_CHARACTERS:
            raise _Bad("is too long")
        parser = _Parser(text, self._symbol)
        try:
            expression = parser.expression(0, 0, in_power=False)
            parser.expect_end()
            # 0/0 and the like; also of expressions that are no numbers at all
            if expression.has(sympy.zoo, sympy.nan, sympy.oo, -sympy.oo, sympy.I):
                raise _Bad("is no finite number")
        except (TypeError, ValueError, ArithmeticError, AttributeError, AssertionError, RecursionError):
            raise _Bad("is no valid expression") from None
        return expression

    def _symbol(self, name: str, assumptions: dict[str, bool]) -> sympy.Symbol:
        if not _SYMBOL.fullmatch(name):
            raise _Bad("has an unknown symbol")
        symbol = self._symbols.setdefault(name, sympy.Symbol(name, **assumptions))
        if symbol != sympy.Symbol(name, **assumptions):
            raise _Bad(f"has {name} with other assumptions than before")
        if len(self._symbols) > MAX_SYMBOLS:
            raise _Bad(f"is of more than {MAX_SYMBOLS} symbols")
        return symbol


class _Bad(Exception):
    """The text is outside of the grammar."""


class _Parser:
    """Recursive descent over srepr's calls."""

    def __init__(self, text: str, symbol: Callable[[str, dict[str, bool]], sympy.Symbol]) -> None:
        self._tokens = _tokenise(text)
        self._position = 0
        self._terms = 0
        self._functions = 0
        self._symbol = symbol

    def expression(self, depth: int, nesting: int, *, in_power: bool) -> Any:
        """One call, or true or false."""
        self._terms += 1
        if self._terms > MAX_TERMS or depth > MAX_DEPTH:
            raise _Bad("is too large")
        name = self._take("name")
        if name in ("true", "false"):
            return sympy.true if name == "true" else sympy.false
        self._take("(")
        if name == "Integer":
            return sympy.Integer(self._closing(self._integer()))
        if name == "Float":
            return self._float()
        if name == "Symbol":
            return self._symbol_call()
        if name not in _FUNCTIONS or (in_power and name in _POWERS):
            raise _Bad(f"has {name} where it may not be")
        return self._call(name, depth, nesting, in_power=in_power or name in _POWERS)

    def expect_end(self) -> None:
        """No text may follow."""
        if self._position != len(self._tokens):
            raise _Bad("has text behind its end")

    def _call(self, name: str, depth: int, nesting: int, *, in_power: bool) -> Any:
        constructor, fewest, most = _FUNCTIONS[name]
        if name not in ("Add", "Mul"):
            self._functions, nesting = self._functions + 1, nesting + 1
        if self._functions > MAX_FUNCTIONS or nesting > MAX_NESTING:
            raise _Bad("is too large")
        arguments = [self.expression(depth + 1, nesting, in_power=in_power)]
        while self._take(",", ")") == ",":
            arguments.append(self.expression(depth + 1, nesting, in_power=in_power))
        if not fewest <= len(arguments) <= most:
            raise _Bad(f"has {name} with {len(arguments)} arguments")
        if name not in _LOGIC and not all(isinstance(argument, sympy.Expr) for argument in arguments):
            raise _Bad(f"has {name} of what is no number")
        if name in _POWERS and not (arguments[1].is_number and abs(arguments[1]) <= MAX_POWER):
            raise _Bad("has a large power")
        return constructor(*arguments)

    def _integer(self) -> int:
        number = int(self._take("number"))
        if not -_INT64 <= number < _INT64:
            raise _Bad("has an integer of more than 64 bits")
        return number

    def _float(self) -> Any:
        text = self._take("text")
        for expected in (",", "precision", "=", "53"):
            if self._take(",", "name", "=", "number") != expected:
                raise _Bad("has a malformed Float")
        if not _FLOAT.fullmatch(text):
            raise _Bad("has a malformed Float")
        return sympy.Float(self._closing(float(text)))

    def _symbol_call(self) -> sympy.Symbol:
        name, assumptions = self._take("text"), {}
        while self._take(",", ")") == ",":
            assumption = self._take("name")
            self._take("=")
            value = self._take("name")
            if assumption not in _ASSUMPTIONS or value not in ("True", "False"):
                raise _Bad("has a symbol of an unknown assumption")
            assumptions[assumption] = value == "True"
        return self._symbol(name, assumptions)

    def _closing(self, value: Any) -> Any:
        self._take(")")
        return value

    def _take(self, *kinds: str) -> str:
        if self._position == len(self._tokens) or self._tokens[self._position][0] not in kinds:
            raise _Bad("is not of the form that torch.export writes")
        self._position += 1
        return self._tokens[self._position - 1][1]


def _tokenise(text: str) -> list[tuple[str, str]]:
    tokens, position = [], 0
    while match := _TOKEN.match(text, position):
        name, number, quoted, mark = match.groups()
        if name is not None:
            tokens.append(("name", name))
        elif number is not None:
            tokens.append(("number", number))
        elif quoted is not None:
            tokens.append(("text", quoted))
        else:
            tokens.append((mark, mark))
        position = match.end()
    if text[position:].strip():
        raise _Bad("is not of the form that torch.export writes")
    return tokens
