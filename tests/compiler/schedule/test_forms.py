"""Schedules as they are written: every form is read, built and printed back; what cannot be says why."""

from __future__ import annotations

import pytest
from partita.compiler.schedule.forms import FORMS, FormFault, build, parse_form
from partita.compiler.schedule.verify import BUFFERS, verify

WRITTEN = ["gpipe", "1f1b", "interleaved(3)", "zero_bubble", "zero_bubble_v", "list(1)", "token_slices(4)"]


@pytest.mark.parametrize("text", [*WRITTEN, "token_slices(1024, 640, 384)"])
@pytest.mark.parametrize(("devices", "microbatches"), [(1, 1), (1, 3), (4, 1), (4, 3), (3, 8)])
def test_every_form_builds_and_holds(text: str, devices: int, microbatches: int) -> None:
    form = parse_form(text)
    assert str(form) == text
    assert verify(build(form, devices, microbatches), BUFFERS) == []


def test_every_schedule_has_a_form() -> None:
    assert {parse_form(text).name for text in WRITTEN} == set(FORMS)


@pytest.mark.parametrize(
    "text", ["", "2f2b", "gpipe(2)", "interleaved(0)", "interleaved(2, 3)", "token_slices", "1f1b(", "interleaved(-1)"]
)
def test_what_is_no_form_says_so(text: str) -> None:
    with pytest.raises(FormFault) as caught:
        parse_form(text)
    assert caught.value.hint


def test_too_large_is_refused_at_once() -> None:
    with pytest.raises(FormFault, match="are more than"):
        build(parse_form("token_slices(1000)"), 64, 1000)
