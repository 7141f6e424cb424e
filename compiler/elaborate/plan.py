"""From a `plan` section to what a layout must keep to.

In: the section's checked values. Out: a `Plan`, or every fault that was found in it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any, cast

from ..base.diagnostic import Diagnostics
from ..language import syntax as s
from .kinds import Applied, Named, Word
from .recipe import Pattern, Plan, Recompute, Rows
from .records import Section

PIPE = "pipe"  # the axis whose devices hold the stages of a pipeline
LAST_ZERO = 3  # the stage of ZeRO that cuts parameters
_CHUNKS = {"interleaved": 2, "zero_bubble_v": 2}  # of a device, where the schedule's argument does not say
_EXPECTED = "a list such as `[H -> tensor]`"


def read_plan(section: Section | None, rows: Rows | None, sink: Diagnostics) -> Plan | None:
    """The plan of a section, for such rows of ids; None where there is none."""
    if section is None:
        return None
    mesh = section.values.get("mesh")
    axes = tuple((name, cast(int, size)) for name, size in mesh.items) if isinstance(mesh, Named) else ()
    if len({name for name, _ in axes}) < len(axes):
        sink.error("E0944", "an axis of the mesh is named twice", section.place("mesh"), "")
    zero, budget = section.values.get("zero"), section.values.get("budget")
    if isinstance(zero, int) and zero > LAST_ZERO:
        expected = f"a whole number from 0 to {LAST_ZERO}"
        sink.error("E0412", "`zero` is out of range", section.place("zero"), "", expected=expected)
    plan = Plan(
        axes,
        _pins(section, sink),
        zero if isinstance(zero, int) else None,
        int(budget) if isinstance(budget, int | float) else None,
        _schedule(section, sink),
        cast("tuple[int, ...]", section.values.get("balance") or ()),
        _recompute(section),
        _offload(section),
    )
    written = [key for key in ("schedule", "balance") if key in section.spans]
    for key, title, hint in pipeline_faults(plan, written, rows):
        sink.error("E0420", title, section.place(key), "", hint=hint)
    return plan


def pipeline_faults(plan: Plan, written: Collection[str], rows: Rows | None) -> Iterator[tuple[str, str, str]]:
    """What of the keys `written` (schedule, balance) does not fit the mesh or the rows: (key, what is wrong, a hint).

    A plan without a mesh may get one from the command line, which asks again.
    """
    stages = dict(plan.mesh).get(PIPE)
    if plan.mesh and stages is None:
        for key in written:
            yield key, f"the mesh has no axis `{PIPE}` for a pipeline", f"for instance mesh = [{PIPE} = 2]"
    name, numbers = _parts(plan.schedule)
    if stages is not None and plan.balance:
        chunks = stages * (numbers[0] if numbers and name != "token_slices" else _CHUNKS.get(name, 1))
        if len(plan.balance) != chunks:
            said = f"{len(plan.balance)} numbers of blocks for the {chunks} chunks of `{plan.schedule}` on {stages}"
            yield "balance", f"{said} devices", "a number for each chunk, along the chain of blocks"
    if name == "token_slices" and rows is not None:
        if len(numbers) > 1 and sum(numbers) != rows.length:
            yield "schedule", f"slices of {sum(numbers)} tokens, but a row has {rows.length}", "lengths that add up"
        elif len(numbers) == 1 and numbers[0] > rows.length:
            yield "schedule", f"{numbers[0]} slices of a row of {rows.length} tokens", "fewer slices, or longer rows"


def _parts(schedule: str) -> tuple[str, tuple[int, ...]]:
    """`interleaved(2)`: the name and the numbers."""
    name, _, rest = schedule.partition("(")
    return name, tuple(int(number) for number in rest.rstrip(")").split(",") if number.strip())


def _schedule(section: Section, sink: Diagnostics) -> str:
    """The schedule as text: `1f1b`, `interleaved(2)`, `token_slices(512, 384, 128)`."""
    found = section.values.get("schedule")
    if found is None or found == "1f1b":
        return "1f1b"
    if not isinstance(found, Applied):
        hint = 'of the schedules only "1f1b" is a string: its name begins with a digit'
        sink.error("E0402", f'there is no schedule "{found}"', section.place("schedule"), "", hint=hint)
        return "1f1b"
    numbers = [found.arguments["chunks"]] if "chunks" in found.arguments else []
    numbers += [length for lengths in found.rest for length in cast("tuple[int, ...]", lengths)]
    if found.name == "token_slices" and not numbers:
        expected = "token_slices(4), or their lengths: token_slices(1024, 640, 384)"
        sink.error("E0404", "`token_slices` lacks a number", found.span, "", expected=expected)
        return "1f1b"
    return found.name + (f"({', '.join(map(str, numbers))})" if numbers else "")


def _recompute(section: Section) -> Recompute:
    """`none`, `full`, `selective`, `budget(24 GiB)`, `["blocks.*.mlp"]`."""
    if "recompute" not in section.spans:
        return Recompute()
    found = section.values.get("recompute")
    if isinstance(found, Applied):
        memory = found.arguments.get("memory")
        return Recompute(cast(Any, found.name), (), int(memory) if isinstance(memory, int | float) else None)
    if not isinstance(found, tuple):
        return Recompute("none")
    place = section.place("recompute")
    return Recompute("paths", tuple(Pattern(text, place) for text in cast("tuple[str, ...]", found)))


def _offload(section: Section) -> tuple[str, ...]:
    """`none`, `optimizer`, `[optimizer, activations]`."""
    found = section.values.get("offload")
    words = cast("tuple[Word, ...]", found) if isinstance(found, tuple) else (found,)
    return tuple(dict.fromkeys(word.text for word in words if isinstance(word, Word)))


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
