"""Reads the precision of a recipe: `f32`, `mixed(compute = bf16)`, or a section with types by path.

In: the checked section of a `train` record. Out: a `Precision`. float16 has too short a range for gradients, so where
it computes, the loss is scaled unless the recipe says `scale = none`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import cast

from ..base.diagnostic import Diagnostic, Diagnostics, Label
from ..ir.types import DType
from .kinds import Applied, Setting, Word
from .recipe import LossScale, Precision
from .records import Section
from .units import Quantity

_TYPES = frozenset(dtype.value for dtype in DType)
_WIDE = (DType.F32, DType.F64)


def read_precision(section: Section, sink: Diagnostics) -> Precision:
    """The types of a recipe; parameters that are low are reported as not built (E0416)."""
    form, inner = section.values.get("precision"), section.section("precision")
    if inner is not None:
        named = ((item.key, cast(Applied, item.value).name) for item in inner.patterns)
        overrides = tuple((key, DType(name)) for key, name in named if name in _TYPES)
        found = _types(inner.values, overrides)
    elif not isinstance(form, Applied) or form.name not in (*_TYPES, "mixed"):  # fp8 is refused as not built
        return Precision()
    elif form.name == "mixed":
        found = _types({"compute": Word("bf16", form.span), **form.arguments}, ())
    else:
        whole = DType(form.name)
        found = Precision(whole, whole, whole)
    if found.params not in _WIDE:
        span = section.spans.get("precision", section.span)
        title = f"parameters in {found.params.value} are not built yet"
        hint = f"precision = mixed(compute = {found.params.value}) keeps them in f32"
        sink.add(Diagnostic("E0416", title, (Label(span, ""),), expected="`f32` or `f64` parameters", hint=hint))
    return found


def _types(values: Mapping[str, Setting], overrides: tuple[tuple[str, DType], ...]) -> Precision:
    found = {key: DType(value.text) for key, value in values.items() if isinstance(value, Word)}
    params = found.get("params", DType.F32)
    compute = found.get("compute", params)
    halves = DType.F16 in (compute, *(dtype for _, dtype in overrides))
    scale = values.get("scale")
    unscaled = "scale" in values and not isinstance(scale, Applied) and scale is None
    scaled = None if unscaled else _scale(scale) if isinstance(scale, Applied) else LossScale() if halves else None
    return Precision(compute, params, found.get("reduce", params), overrides, scaled)


def _scale(form: Applied) -> LossScale:
    """`dynamic(…)`, with the defaults of what is not written."""
    found = LossScale()
    for key, value in form.arguments.items():
        number = value.base if isinstance(value, Quantity) else value
        if key == "every" and isinstance(number, int | float):
            found = replace(found, every=int(number))
        elif isinstance(number, int | float):
            found = replace(found, **{key: float(number)})
    return found
