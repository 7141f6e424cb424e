"""Errors as data, and their printed form.

In: what is wrong (a code of the catalogue, a title), where (labels) and what would mend it (a hint). Out: text
in the manner of rustc, or JSON. A part of the compiler adds what it finds to a `Diagnostics` sink and goes on,
so one run reports several faults; `SpecError` carries them out when it cannot go on.
"""

import difflib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from .span import Source, Span

EXCERPT_WIDTH = 160  # columns of a source line that are shown
TITLE_WIDTH = 400  # characters of the user's text that may come back in a title


class Severity(StrEnum):
    """Whether a run can go on."""

    ERROR = "error"
    WARNING = "warning"


@dataclass(frozen=True, slots=True)
class Label:
    """A place and what is to be said of it."""

    span: Span
    text: str = ""


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """One fault. The first label is where it is; others show its causes, the caller when the fault is inside std."""

    code: str
    title: str
    labels: tuple[Label, ...] = ()
    notes: tuple[str, ...] = ()
    expected: str | None = None
    found: str | None = None
    hint: str | None = None
    severity: Severity = Severity.ERROR

    @property
    def span(self) -> Span | None:
        """Where it is, if it is anywhere in a text."""
        return self.labels[0].span if self.labels else None

    def to_json(self) -> dict[str, Any]:
        """Plain data for `--json` and editors. Lines and columns count from 1, offsets from 0."""
        return {
            "code": self.code,
            "severity": self.severity.value,
            "title": self.title,
            "labels": [_label_json(label) for label in self.labels],
            "notes": list(self.notes),
            "expected": self.expected,
            "found": self.found,
            "hint": self.hint,
        }


def _label_json(label: Label) -> dict[str, Any]:
    span = label.span
    end_line, end_column = span.source.position(span.end)
    return {
        "path": span.source.path,
        "start": {"offset": span.start, "line": span.line, "column": span.column},
        "end": {"offset": span.end, "line": end_line, "column": end_column},
        "text": label.text,
    }


@dataclass
class Diagnostics:
    """A sink that collects the diagnostics of one run, up to a limit, and drops repetitions."""

    limit: int = 50
    items: list[Diagnostic] = field(default_factory=list[Diagnostic])

    def add(self, diagnostic: Diagnostic) -> None:
        if len(self.items) < self.limit and diagnostic not in self.items:
            self.items.append(diagnostic)

    def error(self, code: str, title: str, span: Span, text: str = "", **more: Any) -> None:
        """Add an error with one label; `more` are further fields of `Diagnostic`, `others` further labels."""
        others: tuple[Label, ...] = tuple(more.pop("others", ()))
        self.add(Diagnostic(code, title, (Label(span, text), *others), **more))

    def extend(self, diagnostics: Iterable[Diagnostic]) -> None:
        for diagnostic in diagnostics:
            self.add(diagnostic)

    @property
    def errors(self) -> tuple[Diagnostic, ...]:
        return tuple(item for item in self.items if item.severity is Severity.ERROR)

    @property
    def full(self) -> bool:
        return len(self.items) >= self.limit

    def raise_if_errors(self) -> None:
        """Raises SpecError with all that was collected if there is an error among it."""
        if self.errors:
            raise SpecError(self.items)

    def __iter__(self) -> Iterator[Diagnostic]:
        return iter(self.items)

    def __len__(self) -> int:
        return len(self.items)


class SpecError(Exception):
    """The user's text or data is at fault; carries the diagnostics that say how."""

    def __init__(self, diagnostics: Diagnostic | Iterable[Diagnostic]) -> None:
        self.diagnostics = (diagnostics,) if isinstance(diagnostics, Diagnostic) else tuple(diagnostics)
        super().__init__(self.diagnostics)

    def __str__(self) -> str:
        return render_all(self.diagnostics)


def did_you_mean(word: str, candidates: Iterable[str]) -> str | None:
    """A hint that names the candidate most like the word, or None if none is like it."""
    known = {name for name in candidates if name != word and len(name) <= 100}
    if not known or len(word) > 100:
        return None
    same_letters = sorted(name for name in known if name.lower() == word.lower())
    parts = [name for name in sorted(known) if len(name) > 2 and name in word.split("_")]
    like = same_letters or parts or difflib.get_close_matches(word, sorted(known), n=1, cutoff=0.6)
    return f"did you mean `{like[0]}`?" if like else None


# ---- printing

_COLOURS = {"error": "\033[1;31m", "warning": "\033[1;33m", "place": "\033[1;34m", "hint": "\033[1;32m"}


@dataclass(frozen=True, slots=True)
class _Paint:
    colour: bool

    def __call__(self, kind: str, text: str) -> str:
        return f"{_COLOURS[kind]}{text}\033[0m" if self.colour else text


def render_all(diagnostics: Iterable[Diagnostic], colour: bool = False) -> str:
    """Every diagnostic's text, an empty line between them."""
    return "\n\n".join(render(item, colour) for item in diagnostics)


def render(diagnostic: Diagnostic, colour: bool = False) -> str:
    """A diagnostic as text: title, the source lines with underlines, notes and hint; no line break at the end."""
    paint = _Paint(colour)
    severity = diagnostic.severity.value
    lines = [paint(severity, f"{severity}[{diagnostic.code}]") + f": {_clean(diagnostic.title)[:TITLE_WIDTH]}"]
    numbers = [label.span.line for label in diagnostic.labels]
    gutter = len(str(max(numbers, default=1)))
    for source, labels in _by_source(diagnostic.labels):
        lines += _render_labels(source, labels, diagnostic.labels[0], gutter, paint)
    for kind, text in _remarks(diagnostic):
        lines.append(f"{' ' * gutter} {paint('place', '=')} {paint('hint', kind)}: {text}")
    return "\n".join(lines)


def _remarks(diagnostic: Diagnostic) -> Iterator[tuple[str, str]]:
    if diagnostic.expected is not None:
        yield "expected", _clean(diagnostic.expected)
    if diagnostic.found is not None:
        yield "found", _clean(diagnostic.found)
    for note in diagnostic.notes:
        yield "note", _clean(note)
    if diagnostic.hint is not None:
        yield "hint", _clean(diagnostic.hint)


def _by_source(labels: tuple[Label, ...]) -> list[tuple[Source, list[Label]]]:
    """Labels grouped by text, the primary label's text first, each group in the order of lines."""
    sources = list(dict.fromkeys(label.span.source for label in labels))
    return [(source, sorted((at for at in labels if at.span.source is source), key=_start)) for source in sources]


def _start(label: Label) -> int:
    return label.span.start


def _render_labels(source: Source, labels: list[Label], primary: Label, gutter: int, paint: _Paint) -> Iterator[str]:
    margin = " " * gutter
    head = primary if primary in labels else labels[0]
    arrow = "-->" if head is primary else ":::"
    yield f"{margin}{paint('place', arrow)} {_clean(str(head.span))}"
    yield f"{margin} {paint('place', '|')}"
    previous: int | None = None
    for label in labels:
        number = label.span.line
        shown, underline = _excerpt(source, label, "^" if label is primary else "-")
        if previous is not None and number > previous + 1:
            yield paint("place", "...")
        if number != previous:
            yield f"{paint('place', f'{number:>{gutter}} |')} {shown}".rstrip()
        kind = "error" if label is primary else "place"
        yield f"{margin} {paint('place', '|')} {paint(kind, f'{underline} {_clean(label.text)}'.rstrip())}"
        previous = number


def _excerpt(source: Source, label: Label, mark: str) -> tuple[str, str]:
    """The label's first line and the marks below it; a window of the line where it is very long."""
    line, column = source.position(label.span.start)
    text = source.line(line)
    start = column - 1
    width = max(1, min(label.span.end, label.span.start + len(text) - start) - label.span.start)
    if len(text) > EXCERPT_WIDTH:
        left = max(0, start - EXCERPT_WIDTH // 3)
        text, start = text[left : left + EXCERPT_WIDTH], start - left
    return _clean(text), " " * start + mark * min(width, max(1, len(text) - start))


def _clean(text: str) -> str:
    """Control characters (tabs, escapes, line breaks, stray surrogates) would spoil the layout or the terminal."""
    return "".join(char if char.isprintable() else ("\\n" if char == "\n" else " ") for char in text)
