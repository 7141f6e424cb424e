"""Random pipelines: shapes, schedules of every form for them, prices in whole numbers, and ways to break a schedule."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from hypothesis import strategies as st
from partita.compiler.schedule.actions import Action, Schedule, Shape
from partita.compiler.schedule.forms import FORMS, TOKEN_SLICES
from partita.compiler.schedule.greedy import equal
from partita.compiler.schedule.simulate import Price
from partita.compiler.schedule.transfers import complete

NAMES = [name for name in FORMS if name != TOKEN_SLICES]


@st.composite
def schedules(draw: st.DrawFn, names: Sequence[str] = NAMES, most_slices: int = 4) -> Schedule:
    """1-5 devices, 1-3 chunks each, 1-12 microbatches of 1-4 slices, not all alike."""
    name = draw(st.sampled_from(names))
    devices, chunks = draw(st.integers(1, 5)), draw(st.integers(1, 3))
    slices = draw(st.lists(st.integers(1, most_slices), min_size=1, max_size=12))
    if draw(st.booleans()):
        slices = [slices[0]] * len(slices)
    shape = Shape(FORMS[name].placement(devices, chunks), tuple(slices))
    return complete(name, shape, FORMS[name].orders(shape, equal))


def with_actions(schedule: Schedule, device: int, actions: Sequence[Action]) -> Schedule:
    """The same with another list for one device."""
    lists = list(schedule.actions)
    lists[device] = tuple(actions)
    return Schedule(schedule.name, schedule.shape, tuple(lists))


def prices(chunks: int) -> st.SearchStrategy[list[Price]]:
    """A price for each chunk, in fractions."""
    times = st.fractions(Fraction(1, 4), 5, max_denominator=8)
    one = st.builds(
        Price, forward=times, input=times, weight=times, transfer=st.sampled_from([0, Fraction(1, 3)]),
        latency=st.sampled_from([0, Fraction(1, 7)]), kept_bytes=st.integers(1, 9), held_bytes=st.just(1),
    )  # fmt: skip
    return st.lists(one, min_size=chunks, max_size=chunks)
