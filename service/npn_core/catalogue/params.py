"""The parameters of an architecture and the readers of their text.  No torch here."""

import re
from collections.abc import Callable
from dataclasses import dataclass

from npn_core.errors import InvalidInput

MAX_WIDTH = 65_536
MAX_LAYERS = 64

Value = tuple[int, ...] | float | bool


@dataclass(frozen=True, kw_only=True, slots=True)
class ArchitectureParam:
    """A parameter of an architecture.  `parse` reads its value and raises ValueError saying what is right."""

    name: str
    description: str
    default_value: str
    parse: Callable[[str], Value]

    def read(self, text: str) -> Value:
        """The value in `text`; raises InvalidInput naming the parameter."""
        try:
            return self.parse(text)
        except ValueError as error:
            raise InvalidInput(
                f"model.architecture.params[{self.name}]",
                f"{self.name} is {text!r:.80}; {error}",
                reason="ARCHITECTURE_PARAM_INVALID",
            ) from None


def numbers(
    count: int | None, *, noun: str = "widths", largest: int = MAX_WIDTH
) -> Callable[[str], tuple[int, ...]]:
    """A reader of whole numbers with commas between: exactly `count`, or 1 to MAX_LAYERS of them."""

    def parse(text: str) -> tuple[int, ...]:
        parts = [part.strip() for part in text.split(",")] if len(text) <= 10 * MAX_LAYERS else []
        how_many = str(count) if count else f"1 to {MAX_LAYERS}"
        fits = len(parts) == count if count else 1 <= len(parts) <= MAX_LAYERS
        found = [int(part) if re.fullmatch("[0-9]{1,5}", part, re.ASCII) else 0 for part in parts]
        if not fits or not all(1 <= number <= largest for number in found):
            raise ValueError(f"it must be {how_many} {noun} from 1 to {largest}, separated by commas")
        return tuple(found)

    return parse


def whole(low: int, high: int) -> Callable[[str], int]:
    """A reader of one whole number from `low` to `high`."""

    def parse(text: str) -> int:
        if not re.fullmatch("[0-9]{1,5}", text, re.ASCII) or not low <= int(text) <= high:
            raise ValueError(f"it must be a whole number from {low} to {high}")
        return int(text)

    return parse


def depth(text: str) -> int:
    """The layers of a network of three stages: a stem, two layers a block or bottleneck, a head."""
    if not re.fullmatch("[0-9]{1,3}", text, re.ASCII) or not 10 <= int(text) <= 250 or int(text) % 6 != 4:
        raise ValueError("it must be 6 n + 4 for a whole n, from 10 to 250, for example 28")
    return int(text)


def decimal(low: float, high: float) -> Callable[[str], float]:
    """A reader of one decimal number from `low` to `high`."""

    def parse(text: str) -> float:
        if not re.fullmatch(r"[0-9]{1,3}(\.[0-9]{1,6})?", text, re.ASCII) or not low <= float(text) <= high:
            raise ValueError(f"it must be a decimal number from {low:g} to {high:g}")
        return float(text)

    return parse


def probability(text: str) -> float:
    """A decimal number from 0 to below 1."""
    if not re.fullmatch(r"(0(\.[0-9]{0,6})?|\.[0-9]{1,6})", text, re.ASCII):
        raise ValueError("it must be a decimal number from 0 to below 1, for example 0.5")
    return float(text)


def flag(text: str) -> bool:
    """True or false."""
    if text not in ("true", "false"):
        raise ValueError("it must be true or false")
    return text == "true"
