"""The verifier takes every schedule that we write, and refuses every one that is broken, naming device and action."""

from __future__ import annotations

import pytest
from generators.schedules import schedules, with_actions
from hypothesis import given, settings
from hypothesis import strategies as st
from partita.compiler.schedule.actions import SENDS, Action, Kind, Schedule, Shape, one_chunk_each
from partita.compiler.schedule.forms import build, parse_form
from partita.compiler.schedule.verify import least_buffers, most_in_flight, verify

ENOUGH = 1000  # buffers: what is looked at is not waiting


@settings(max_examples=150, deadline=None)
@given(schedules())
def test_every_schedule_holds(schedule: Schedule) -> None:
    assert verify(schedule, ENOUGH) == []
    need = least_buffers(schedule)
    assert verify(schedule, need) == []
    assert need == 1 or verify(schedule, need - 1)


@settings(max_examples=100, deadline=None)
@given(schedules(most_slices=1))
def test_without_slices_two_buffers_do(schedule: Schedule) -> None:
    assert least_buffers(schedule) <= 2


@settings(max_examples=150, deadline=None)
@given(schedules(), st.data())
def test_a_dropped_action_is_missed(schedule: Schedule, data: st.DataObject) -> None:
    device = data.draw(st.integers(0, schedule.shape.devices - 1))
    actions = schedule.actions[device]
    place = data.draw(st.integers(0, len(actions) - 1))
    faults = verify(with_actions(schedule, device, actions[:place] + actions[place + 1 :]), ENOUGH)
    lost = actions[place]
    named = {lost, lost._replace(kind=Kind.INPUT), lost._replace(kind=Kind.WEIGHT)}
    assert faults
    assert all(fault.device == device and fault.action in named and "missing" in fault.reason for fault in faults)


@settings(max_examples=150, deadline=None)
@given(schedules(), st.data())
def test_a_repeated_action_is_found(schedule: Schedule, data: st.DataObject) -> None:
    device = data.draw(st.integers(0, schedule.shape.devices - 1))
    actions = list(schedule.actions[device])
    twice = data.draw(st.sampled_from(actions))
    place = data.draw(st.integers(0, len(actions)))
    faults = verify(with_actions(schedule, device, [*actions[:place], twice, *actions[place:]]), ENOUGH)
    assert faults[0].device == device
    assert faults[0].action == twice
    assert "second time" in faults[0].reason


@settings(max_examples=150, deadline=None)
@given(schedules(), st.data())
def test_a_swap_is_refused_or_harmless(schedule: Schedule, data: st.DataObject) -> None:
    """Harmless exactly where an independent interpreter of values gets through."""
    device = data.draw(st.integers(0, schedule.shape.devices - 1))
    actions = list(schedule.actions[device])
    one, other = data.draw(st.integers(0, len(actions) - 1)), data.draw(st.integers(0, len(actions) - 1))
    actions[one], actions[other] = actions[other], actions[one]
    broken = with_actions(schedule, device, actions)
    faults = verify(broken, ENOUGH)
    assert bool(faults) == (not runs(broken))
    assert all(str(fault.action) in str(fault) for fault in faults)


Value = tuple[str, int, int, int]


def runs(schedule: Schedule) -> bool:
    """An independent interpreter: moves values, and complains of any that is not there."""
    here: list[set[Value]] = [set() for _ in schedule.actions]
    lines: dict[tuple[int, int], list[Value]] = {}
    left = [list(actions) for actions in schedule.actions]
    moved = True
    while moved:
        moved = False
        for device, actions in enumerate(left):
            if not actions:
                continue
            line, value = message(actions[0], device, schedule.shape)
            if value is not None and actions[0].kind not in SENDS:
                if not lines.get(line):
                    continue
                if lines[line].pop(0) != value:
                    return False
            elif not reads(actions[0], device, schedule.shape) <= here[device]:
                return False
            elif value is not None:
                lines.setdefault(line, []).append(value)
            here[device] |= writes(actions[0])
            moved = bool(actions.pop(0))
    return not any(left)


def message(action: Action, device: int, shape: Shape) -> tuple[tuple[int, int], Value | None]:
    """The line that a message goes along, and it: `x` is a chunk's input, `g` the gradient of its output."""
    kind, m, c, s = action
    step = 1 if kind in (Kind.SEND_ACTIVATION, Kind.RECEIVE_GRADIENT) else -1
    name = "x" if kind in (Kind.SEND_ACTIVATION, Kind.RECEIVE_ACTIVATION) else "g"
    if kind in SENDS:
        return (device, shape.placement[c + step]), (name, m, c + step, s)
    if kind in (Kind.RECEIVE_ACTIVATION, Kind.RECEIVE_GRADIENT):
        return (shape.placement[c + step], device), (name, m, c, s)
    return (device, device), None


def reads(action: Action, device: int, shape: Shape) -> set[Value]:
    """`y`: a chunk's output, `h`: the gradient of its input, `w`: its weights' gradient is added up, `r`: reduced."""
    kind, m, c, s = action
    before, after = (shape.placement[k] == device if 0 <= k <= shape.last else False for k in (c - 1, c + 1))
    given: set[Value] = set()
    if kind is Kind.FORWARD:
        given = {("y", m, c - 1, s) if before else ("x", m, c, s)} if c else set()
        return given | ({("y", m, c, s - 1)} if s else set())
    if kind in (Kind.INPUT, Kind.BACKWARD):
        given = {("h", m, c + 1, s) if after else ("g", m, c, s)} if c < shape.last else set()
        return given | {("y", m, c, s)} | ({("h", m, c, s + 1)} if s + 1 < shape.slices[m] else set())
    if kind in (Kind.WEIGHT, Kind.SEND_GRADIENT):
        return {("h", m, c, s)}
    if kind is Kind.SEND_ACTIVATION:
        return {("y", m, c, s)}
    if kind is Kind.REDUCE:
        return {("w", one, c, part) for one, part in shape.units()}
    return {("r", 0, own, 0) for own in shape.chunks(device)}


def writes(action: Action) -> set[Value]:
    at = action[1:]
    made = {
        Kind.FORWARD: "y", Kind.INPUT: "h", Kind.WEIGHT: "w", Kind.BACKWARD: "hw", Kind.REDUCE: "r",
        Kind.RECEIVE_ACTIVATION: "x", Kind.RECEIVE_GRADIENT: "g",
    }  # fmt: skip
    return {(name, *at) for name in made.get(action.kind, "")}


@settings(max_examples=100, deadline=None)
@given(schedules(), st.data())
def test_memory_is_bounded_and_a_tighter_bound_refused(schedule: Schedule, data: st.DataObject) -> None:
    most = most_in_flight(schedule)
    assert verify(schedule, ENOUGH, most) == []
    device = data.draw(st.integers(0, schedule.shape.devices - 1))
    tight = [count - (d == device) for d, count in enumerate(most)]
    (fault,) = verify(schedule, ENOUGH, tight)
    assert (fault.device, fault.action.kind) == (device, Kind.FORWARD)
    assert f"{most[device]} are in flight" in fault.reason


def test_a_deadlock_names_who_waits_for_whom() -> None:
    shape = Shape(one_chunk_each(2), (1, 1, 1))
    gpipe = build(parse_form("gpipe"), 2, 3)
    assert gpipe.shape == shape
    late = [a for a in gpipe.actions[1] if a.kind not in SENDS]
    sends = [a for a in gpipe.actions[1] if a.kind in SENDS]
    faults = verify(with_actions(gpipe, 1, [*sends, *late]), ENOUGH)
    assert "stands before what it needs" in str(faults[0])
    first = gpipe.actions[0]
    waits = [a for a in first if a.kind is Kind.RECEIVE_GRADIENT]
    crossed = with_actions(gpipe, 0, [*waits, *[a for a in first if a not in waits]])
    assert [fault.device for fault in verify(crossed, ENOUGH)] == [0, 1]
    assert "waits for device 1 to send, for ever" in str(verify(crossed, ENOUGH)[0])


@pytest.mark.parametrize("action", [Action(Kind.FORWARD, 9, 0), Action(Kind.FORWARD, 0, 1), Action(Kind.FORWARD, 0, 7)])
def test_what_does_not_belong_says_why(action: Action) -> None:
    schedule = build(parse_form("1f1b"), 2, 4)
    (fault,) = verify(with_actions(schedule, 0, [action, *schedule.actions[0]]), ENOUGH)
    reasons = {9: "there are 4 microbatches", 1: "chunk 1 is on device 1", 7: "there are 2 chunks"}
    assert fault.reason == reasons[max(action.microbatch, action.chunk)]
