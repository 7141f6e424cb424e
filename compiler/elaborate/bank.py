"""Applying a bank whose members differ: `experts : bank e in E of MLP[D, (e + 1) * F](act = …)`.

Each member reads its own slice of an argument that carries E, and the whole of any other; what they give is stacked
along E. A bank without an index never comes here: its parameters carry E, and everything else follows by name.
"""

from __future__ import annotations

from ..base.span import Span
from ..ir.types import Use
from ..language import syntax as s
from . import arithmetic as a
from .calls import Given, apply_instance
from .frame import Frame
from .structure import arranged
from .values import Chain, Value, show_dims


def apply_bank(frame: Frame, bank: Chain, items: tuple[s.ViewItem, ...], given: Given, span: Span) -> Value:
    """Every member on its share of the arguments; each result with the bank's dim in front. Raises Fault."""
    shares = {name: (_shares(frame, bank, value, at), at) for name, (value, at) in given.items()}
    found: list[tuple[Value, ...]] = []
    for index, kind in enumerate(bank.kinds):
        own: Given = {name: (values[index], at) for name, (values, at) in shares.items()}
        value = apply_instance(frame, bank.templates[kind], items, own, span)
        found.append(value if isinstance(value, tuple) else (value,))
    results = tuple(_stacked(frame, bank, parts, span) for parts in zip(*found, strict=True))
    return results[0] if len(results) == 1 else results


def _shares(frame: Frame, bank: Chain, value: Value, span: Span) -> list[Value]:
    if not isinstance(value, Use) or bank.dim not in value.dims or bank.dim.size is None:
        return [value] * len(bank.kinds)
    return list(frame.emit("unstack", value, span=span, dim=bank.dim))


def _stacked(frame: Frame, bank: Chain, parts: tuple[Value, ...], span: Span) -> Use:
    uses = [part for part in parts if isinstance(part, Use)]
    assert len(uses) == len(parts), "a block gives tensors"
    first = uses[0]
    other = next((use for use in uses if set(use.dims) != set(first.dims)), None)
    if other is not None:
        title = f"a member of the bank gives {show_dims(first.dims)}, another {show_dims(other.dims)}"
        raise frame.fault("E0314", title, span, hint="all members must give the same axes")
    dtype = a.common_dtype(frame, *uses)
    ready = [arranged(frame, a.tensor(frame, use, dtype, span), first.dims, span) for use in uses]
    if bank.dim.size is None:  # while a block is looked at without sizes: one member stands for all
        return frame.emit1("expand", first, span=span, dims=(bank.dim, *first.dims))
    return frame.emit1("stack", *ready, span=span, hint=bank.path.rpartition(".")[2], dim=bank.dim)
