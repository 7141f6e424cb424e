"""Reading a node's attributes with their types.

In: the attribute mapping of a node. Out: the value as what the operator's declaration says it is. A wrong type is a
fault of the compiler, so it is asserted.
"""

from __future__ import annotations

from collections.abc import Mapping

from ..ir.types import Attr, Dim, Dims, DType


def dim(attrs: Mapping[str, Attr], name: str) -> Dim:
    """One dim."""
    value = attrs[name]
    assert isinstance(value, Dim), f"attribute {name} must be a dim, not {value!r}"
    return value


def dims(attrs: Mapping[str, Attr], name: str) -> Dims:
    """A tuple of dims."""
    value = attrs[name]
    assert isinstance(value, tuple), f"attribute {name} must be a tuple of dims, not {value!r}"
    found = tuple(d for d in value if isinstance(d, Dim))
    assert len(found) == len(value), f"attribute {name} must hold dims alone, not {value!r}"
    return found


def dtype(attrs: Mapping[str, Attr], name: str = "dtype") -> DType:
    """An element type."""
    value = attrs[name]
    assert isinstance(value, DType), f"attribute {name} must be a dtype, not {value!r}"
    return value


def number(attrs: Mapping[str, Attr], name: str) -> float:
    """A number, as a float."""
    value = attrs[name]
    assert isinstance(value, int | float), f"attribute {name} must be a number, not {value!r}"
    return float(value)


def flag(attrs: Mapping[str, Attr], name: str) -> bool:
    """True or false."""
    value = attrs[name]
    assert isinstance(value, bool), f"attribute {name} must be true or false, not {value!r}"
    return value


def text(attrs: Mapping[str, Attr], name: str) -> str:
    """A text."""
    value = attrs[name]
    assert isinstance(value, str), f"attribute {name} must be a text, not {value!r}"
    return value
