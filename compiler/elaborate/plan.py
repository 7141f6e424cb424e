"""From a `plan` section to what a layout must keep to.

In: the section's checked values. Out: a `Plan`, or every fault that was found in it.
"""

from __future__ import annotations

from typing import cast

from ..base.diagnostic import Diagnostics
from ..language import syntax as s
from .kinds import Named
from .recipe import Plan
from .records import Section

_EXPECTED = "a list such as `[H -> tensor]`"


def read_plan(section: Section | None, sink: Diagnostics) -> Plan | None:
    """The plan of a section; None where there is none."""
    if section is None:
        return None
    mesh = section.values.get("mesh")
    axes = tuple((name, cast(int, size)) for name, size in mesh.items) if isinstance(mesh, Named) else ()
    if len({name for name, _ in axes}) < len(axes):
        sink.error("E0944", "an axis of the mesh is named twice", section.place("mesh"), "")
    zero, budget = section.values.get("zero"), section.values.get("budget")
    return Plan(
        axes,
        _pins(section, sink),
        zero if isinstance(zero, int) else None,
        int(budget) if isinstance(budget, int | float) else None,
    )


def _pins(section: Section, sink: Diagnostics) -> tuple[tuple[str, str | None], ...]:
    """`[H -> tensor, T -> none]`."""
    written = section.values.get("pin")
    found: list[tuple[str, str | None]] = []
    for item in written.items if isinstance(written, s.ListLit) else ():
        if isinstance(item, s.Arrow) and isinstance(item.source, s.Ref):
            target = item.target
            if isinstance(target, s.Ref):
                found.append((item.source.name, target.name))
                continue
            if isinstance(target, s.NoneLit):
                found.append((item.source.name, None))
                continue
        sink.error("E0402", "a pin cannot be this", section.place("pin"), "", expected=_EXPECTED)
    if written is not None and not isinstance(written, s.ListLit):
        sink.error("E0402", "`pin` cannot be this", section.place("pin"), "", expected=_EXPECTED)
    return tuple(found)
