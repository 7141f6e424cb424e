"""Quantities: numbers that carry a unit, and what the unit measures.

In: a number of the syntax tree (`80 GiB`, `3.35 TB/s`, `1000 steps`). Out: a `Quantity`, exact in its base unit
(bytes, seconds, FLOP/s, …), so that nobody ever adds GiB to GB. Prefixes are decimal (k = 1000); those with an i
are binary (Gi = 1024^3).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from enum import Enum
from types import MappingProxyType

from ..language import syntax as s

Exact = int | float
MAX_EXPONENT = 1000


class Dimension(Enum):
    """What a quantity measures; the value is the base unit in words."""

    NUMBER = "a plain number"
    BYTES = "bytes"
    BYTES_PER_S = "bytes a second"
    FLOP_PER_S = "FLOP/s"
    TOKENS = "tokens"
    STEPS = "steps"
    EPOCHS = "epochs"
    SECONDS = "seconds"


@dataclass(frozen=True, slots=True)
class Unit:
    """A unit and how many base units of its dimension it is."""

    name: str
    dimension: Dimension
    factor: Decimal


_DECIMAL = MappingProxyType({"k": 3, "M": 6, "G": 9, "T": 12, "P": 15})
_BINARY = MappingProxyType({"K": 1, "M": 2, "G": 3, "T": 4, "P": 5})


def _all_units() -> dict[str, Unit]:
    found: dict[str, Unit] = {}

    def put(name: str, dimension: Dimension, factor: Decimal) -> None:
        found[name] = Unit(name, dimension, factor)

    for prefix, power in _DECIMAL.items():
        decimal = Decimal(10) ** power
        put(f"{prefix}B", Dimension.BYTES, decimal)
        put(f"{prefix}B/s", Dimension.BYTES_PER_S, decimal)
        put(f"{prefix}bit/s", Dimension.BYTES_PER_S, decimal / 8)
        put(f"{prefix}FLOP/s", Dimension.FLOP_PER_S, decimal)
        put(f"{prefix}tokens", Dimension.TOKENS, decimal)
    for prefix, power in _BINARY.items():
        put(f"{prefix}iB", Dimension.BYTES, Decimal(1024) ** power)
        put(f"{prefix}iB/s", Dimension.BYTES_PER_S, Decimal(1024) ** power)
    put("bit/s", Dimension.BYTES_PER_S, Decimal(1) / 8)
    put("FLOP/s", Dimension.FLOP_PER_S, Decimal(1))
    put("tokens", Dimension.TOKENS, Decimal(1))
    put("steps", Dimension.STEPS, Decimal(1))
    put("epochs", Dimension.EPOCHS, Decimal(1))
    seconds = {"us": "1e-6", "ms": "1e-3", "seconds": "1", "minutes": "60", "hours": "3600", "days": "86400"}
    for name, factor in seconds.items():
        put(name, Dimension.SECONDS, Decimal(factor))
    return found


UNITS = MappingProxyType(_all_units())
_EXAMPLES = MappingProxyType(
    {
        Dimension.NUMBER: "a number without a unit",
        Dimension.BYTES: "an amount of memory such as `80 GiB`",
        Dimension.BYTES_PER_S: "a bandwidth such as `3.35 TB/s`",
        Dimension.FLOP_PER_S: "a rate such as `989 TFLOP/s`",
        Dimension.TOKENS: "a count such as `4 Mtokens`",
        Dimension.STEPS: "a count such as `1000 steps`",
        Dimension.EPOCHS: "a count such as `2 epochs`",
        Dimension.SECONDS: "a time such as `3 us`",
    }
)


def example(dimension: Dimension) -> str:
    """What is expected where this dimension is, with an example, for a message."""
    return _EXAMPLES[dimension]


@dataclass(frozen=True, slots=True)
class Quantity:
    """A number with its unit.

    value      as it was written
    unit       as it was written, None for a plain number
    dimension  what it measures
    """

    value: Exact
    unit: str | None
    dimension: Dimension

    @property
    def base(self) -> Exact:
        """In base units (bytes, seconds, …); a whole number where it comes out whole, exactly."""
        if self.unit is None:
            return self.value
        return _plain(Decimal(str(self.value)) * UNITS[self.unit].factor)

    def __str__(self) -> str:
        return f"{self.value}" if self.unit is None else f"{self.value} {self.unit}"


def _plain(value: Decimal) -> Exact:
    whole = value.to_integral_value()
    return int(whole) if whole == value else float(value)


def quantity(number: s.Number) -> Quantity:
    """The quantity that a number of the tree stands for."""
    if number.unit is None:
        return Quantity(number.value, None, Dimension.NUMBER)
    return Quantity(number.value, number.unit, UNITS[number.unit].dimension)


# ---- arithmetic on constants


_ARITHMETIC: Mapping[str, Callable[[Exact, Exact], Exact]] = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "/": lambda a, b: a / b,
    "%": lambda a, b: a % b,
    "^": lambda a, b: float(a) ** b if isinstance(b, float) or b < 0 else a**b,
}


def constant(expr: s.Node) -> Quantity | None:
    """The value of a number, or of arithmetic on plain numbers; None if it is neither."""
    match expr:
        case s.Number():
            return quantity(expr)
        case s.Unary(op="-"):
            inner = constant(expr.operand)
            return None if inner is None else Quantity(-inner.value, inner.unit, inner.dimension)
        case s.Binary():
            left, right = constant(expr.left), constant(expr.right)
            if left is None or right is None or left.unit is not None or right.unit is not None:
                return None
            return _operate(expr.op, left.value, right.value)
        case _:
            return None


def _operate(op: str, left: Exact, right: Exact) -> Quantity | None:
    if op == "^" and abs(right) > MAX_EXPONENT:
        return None
    try:
        value = _ARITHMETIC[op](left, right)
    except (ZeroDivisionError, OverflowError):
        return None
    if isinstance(value, complex):
        return None
    return Quantity(value, None, Dimension.NUMBER)
