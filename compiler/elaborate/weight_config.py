"""`config { n_embd = D, rope_parameters { rope_theta = theta } }` of a weight map as plain data.

Values are numbers, texts, true, false, none and lists of them, worked out where the model's dims and options are known.
A map that extends another changes what it names and keeps the rest.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TypeAlias

from ..language import syntax as s
from .frame import Frame
from .values import describe
from .weight_data import Plain

Tree: TypeAlias = "dict[str, s.Expr | Tree]"


def configuration(frame: Frame, parts: Iterable[s.WeightConfig]) -> dict[str, Plain]:
    """All `config` parts of a map, the later ones on top: what they replace is not evaluated. Raises Fault."""
    whole: Tree = {}
    for part in parts:
        _merge(whole, _tree(frame, part.entries))
    return _values(frame, whole)


def _tree(frame: Frame, entries: Iterable[s.RecordEntry]) -> Tree:
    found: Tree = {}
    for entry in entries:
        key = entry.key.value if isinstance(entry.key, s.String) else entry.key.text
        if key in found:
            raise frame.fault("E0803", f"`{key}` is set twice", entry.key.span)
        if isinstance(entry, s.RecordSub):
            if entry.argument is not None:
                raise frame.fault("E0805", f"`{key}` takes no argument here", entry.argument.span)
            found[key] = _tree(frame, entry.entries)
        else:
            found[key] = entry.value
    return found


def _merge(below: Tree, above: Tree) -> None:
    for key, value in above.items():
        known = below.get(key)
        if isinstance(known, dict) and isinstance(value, dict):
            _merge(known, value)
        else:
            below[key] = value


def _values(frame: Frame, tree: Tree) -> dict[str, Plain]:
    return {key: _values(frame, one) if isinstance(one, dict) else _plain(frame, one) for key, one in tree.items()}


def _plain(frame: Frame, expr: s.ListItem) -> Plain:
    if isinstance(expr, s.ListLit):
        return [_plain(frame, item) for item in expr.items]
    if isinstance(expr, s.Arrow | s.At):
        raise frame.fault("E0805", "a configuration has plain lists", expr.span)
    value = frame.evaluate(expr)
    if isinstance(value, float) and not math.isfinite(value):
        raise frame.fault("E0805", f"a configuration cannot hold {value}", expr.span)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise frame.fault(
        "E0805", f"this is {describe(value)}", expr.span, expected="a number, a text, true, false or none"
    )
