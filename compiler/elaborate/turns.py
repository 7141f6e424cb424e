"""What a `train` record updates: once a step, or in several turns (`update NAME { … }`), each with a loss of its own.

In: the record's section. Out: its turns; a single one without a name where the record has no `update`. A turn takes
from the record what it does not say itself, so that several may share an optimizer or a rate.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TypeVar

from ..base.diagnostic import Diagnostics
from ..language import syntax as s
from .groups import optimizer_groups
from .kinds import Word
from .load import Spec
from .rates import read_schedule
from .recipe import Pattern, Schedule, Turn
from .records import Section, lacking
from .schema import TRAIN, UPDATE, UPDATE_KEYS

T = TypeVar("T")
SHARED = tuple(key.name for key in UPDATE_KEYS)


def turns(spec: Spec, section: Section, steps: int, sink: Diagnostics) -> tuple[Turn, ...] | None:
    """The turns in the order in which they run; None if what is wrong was reported."""
    inner = [_shared(section, one) for one in section.sections.get("update", ())]
    found = [_turn(spec, one, steps, sink) for one in inner or [section]]
    whole = tuple(turn for turn in found if turn is not None)
    return whole if len(whole) == len(found) else None


def _shared(outer: Section, inner: Section) -> Section:
    """An update with the record's keys below its own."""
    keys = [key for key in SHARED if key not in inner.spans]
    return replace(
        inner,
        values={**_some(outer.values, keys), **inner.values},
        spans={**_some(outer.spans, keys), **inner.spans},
        sections={**_some(outer.sections, keys), **inner.sections},
    )


def _some(items: Mapping[str, T], keys: Iterable[str]) -> dict[str, T]:
    return {key: items[key] for key in keys if key in items}


def _turn(spec: Spec, section: Section, steps: int, sink: Diagnostics) -> Turn | None:
    schema = UPDATE if section.name == UPDATE.name else TRAIN
    schedule = read_schedule(section, steps, sink)
    absent = [lacking(schema, section, key, sink, section.span) for key in ("loss", "optimizer")]
    groups = optimizer_groups(spec, section, schedule or Schedule(()), steps, sink)
    if any(group.schedule is None for group in groups) or absent[1]:
        absent.append(lacking(schema, section, "lr", sink, section.span))
    loss, clip = section.values.get("loss"), section.values.get("clip")
    own = tuple(dict.fromkeys(group.schedule for group in groups))
    if any(absent) or not isinstance(loss, s.Expr) or not own:
        return None
    rate = own[0] or schedule if len(own) == 1 else schedule or own[0]  # the one that reports show
    if rate is None:
        return None
    name, repeat = section.values.get("name"), section.values.get("repeat")
    return Turn(
        name.text if isinstance(name, Word) else "", _patterns(section), loss, groups, rate,
        float(clip) if isinstance(clip, int | float) else None,
        repeat if isinstance(repeat, int) else 1,
    )  # fmt: skip


def _patterns(section: Section) -> tuple[Pattern, ...]:
    given = section.values.get("params")
    texts = [item for item in given if isinstance(item, str)] if isinstance(given, tuple) else ["*"]
    return tuple(Pattern(text, section.spans.get("params")) for text in texts)
