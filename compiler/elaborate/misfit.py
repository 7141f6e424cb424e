"""Says why a result does not fit a signature.

The commonest reason is that two values met of which neither had all axes of the other: the result then has every axis
of both. Such meetings are remembered as they happen; from a misfit we walk back to the one that brought the axis in.
"""

from __future__ import annotations

from collections.abc import Iterable

from ..base.diagnostic import Label
from ..base.span import Span
from ..ir.types import Dim, Dims, Use
from ..language import syntax as s
from .frame import Fault, Frame
from .values import show_dims

MAX_WALK = 200


def layer_misfit(frame: Frame, taken: Dims, given: Use, others: Iterable[object], at: Span) -> Fault:
    """Report a chain whose layers give other axes than they take; such an axis may have come in before the chain."""
    title = f"a layer of the chain takes {show_dims(taken)} and gives {show_dims(given.dims)}"
    hint = "the next layer must take what this one gives"
    extra = next((dim for dim in given.dims if dim not in taken), None)
    for use in others if extra is not None else ():
        met = meeting(frame, use, extra, at) if isinstance(use, Use) and extra in use.dims else None
        if met is not None:
            span, left, right = met
            text = f"here {_shown(frame, left)} met {_shown(frame, right)}: the result has every axis of both"
            return frame.fault("E0314", title, at, others=(Label(span, text),), hint=hint)
    return frame.fault("E0314", title, at, hint=hint)


def result_misfit(frame: Frame, out: s.Out, use: Use, wanted: Dims, allowed: Iterable[Dim], at: Span) -> Fault:
    """Report a result that has other axes than its signature says."""
    extra = [dim for dim in use.dims if dim not in set(allowed)]
    lacking = [dim for dim in wanted if dim not in use.dims]
    named = tuple(dim for dim in use.dims if dim not in frame.carried)
    labels = [Label(out.span, "the signature")]
    title = f"{frame.title} returns {show_dims(named)}, its signature says {show_dims(wanted)}"
    if extra:
        met = meeting(frame, use, extra[0], at)
        if met is not None:
            span, left, right = met
            text = f"here {_shown(frame, left)} met {_shown(frame, right)}: the result has every axis of both"
            return frame.fault("E0212", title, span, text, others=(Label(at, "returned here"), *labels))
    if lacking and not extra:
        return frame.fault("E0212", title, at, f"no axis {', '.join(dim.name for dim in lacking)}", others=labels)
    names = ", ".join(dim.name for dim in extra)
    return frame.fault("E0212", title, at, f"the axis {names} is too much", others=labels)


def _shown(frame: Frame, dims: Dims) -> str:
    return show_dims(tuple(dim for dim in dims if dim not in frame.carried))


def meeting(frame: Frame, use: Use, extra: Dim, at: Span) -> tuple[Span, Dims, Dims] | None:
    """The first node on the way back at which the axis came together with others, still in this frame's text."""
    queue, seen = [use.node], {use.node}
    while queue and len(seen) < MAX_WALK:
        name = queue.pop(0)
        met = frame.context.meetings.get(name)
        if met is not None and met[0].source is at.source and (extra in met[1]) != (extra in met[2]):
            return met
        node = frame.output.find(name)
        for operand in node.uses if node is not None and node.path.startswith(frame.path) else ():
            if operand.node not in seen:
                seen.add(operand.node)
                queue.append(operand.node)
    return None
