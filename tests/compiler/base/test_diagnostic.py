"""Diagnostics as text and as JSON; hints; the sink."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from partita.compiler.base.diagnostic import Diagnostic, Diagnostics, Label, SpecError, did_you_mean, render
from partita.compiler.base.span import Source

SOURCE = Source("a.partita", "block A\n  y = x + up(x)\n\n  up : Linear[D, F]\n")


def span(text: str):
    start = SOURCE.text.index(text)
    return SOURCE.span(start, start + len(text))


def test_rendered_with_two_labels_and_hint():
    labels = (Label(span("+"), "the result has every axis of both"), Label(span("up :"), "made here"))
    text = render(
        Diagnostic("E0209", "here [D] met [F]", labels, notes=("a",), expected="[D]", found="[F]", hint="rename")
    )
    assert text.splitlines() == [
        "error[E0209]: here [D] met [F]",
        " --> a.partita:2:9",
        "  |",
        "2 |   y = x + up(x)",
        "  |         ^ the result has every axis of both",
        "...",
        "4 |   up : Linear[D, F]",
        "  |   ---- made here",
        "  = expected: [D]",
        "  = found: [F]",
        "  = note: a",
        "  = hint: rename",
    ]


def test_labels_in_another_file_come_after_the_primary():
    other = Source("std.partita", "return y\n")
    text = render(Diagnostic("E0001", "t", (Label(span("x"), ""), Label(other.span(0, 6), "inside"))))
    assert text.index("--> a.partita:2:7") < text.index("::: std.partita:1:1")


def test_json_is_plain_and_positions_count_from_one():
    data = Diagnostic("E0001", "t", (Label(span("+"), "here"),)).to_json()
    assert json.loads(json.dumps(data)) == data
    assert data["labels"][0]["start"] == {"offset": 16, "line": 2, "column": 9}


def test_positions_and_spans():
    assert SOURCE.position(0) == (1, 1)
    assert (span("up :").line, span("up :").column, span("up :").text) == (4, 3, "up :")
    assert span("up :").to(span("y")).start == span("y").start
    assert str(span("y")) == "a.partita:2:3"


@given(st.text(), st.integers(0, 60), st.integers(0, 60))
def test_rendering_takes_any_text(text: str, start: int, length: int):
    source = Source(text, text)
    start = min(start, len(text))
    here = source.span(start, min(start + length, len(text)))
    shown = render(Diagnostic("E0001", text, (Label(here, text),), hint=text))
    assert all(char.isprintable() or char == "\n" for char in shown)


def test_a_very_long_line_is_shown_in_part():
    source = Source("a", "x" * 10_000 + "!" + "y" * 10_000)
    shown = render(Diagnostic("E0001", "t", (Label(source.span(10_000, 10_001), ""),)))
    assert max(map(len, shown.splitlines())) < 200
    assert "!" in shown


def test_did_you_mean():
    assert did_you_mean("bais", ["bias", "drop"]) == "did you mean `bias`?"
    assert did_you_mean("d", ["D"]) == "did you mean `D`?"
    assert did_you_mean("zzz", ["bias"]) is None
    assert did_you_mean("bias", ["bias"]) is None
    assert did_you_mean("x" * 10_000, ["x" * 9_999]) is None


def test_the_sink_keeps_each_once_and_is_bounded():
    sink = Diagnostics(limit=3)
    for title in "aabcde":
        sink.error("E0001", title, span("x"))
    assert [item.title for item in sink] == ["a", "b", "c"]
    with pytest.raises(SpecError) as caught:
        sink.raise_if_errors()
    assert len(caught.value.diagnostics) == 3
    assert "error[E0001]: a" in str(caught.value)
