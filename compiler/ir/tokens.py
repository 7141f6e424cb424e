"""The tokens of a graph's text, and a cursor over them.

In: a source. Out: names, numbers, texts in quotes, marks and line ends, each with its place; blanks and comments are
passed over. The cursor takes one after another and says (E0901, with the place) where another was expected.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NoReturn, TypeVar

from ..base.diagnostic import Diagnostic, Label, SpecError
from ..base.span import Source

MAX_DIGITS = 400  # of a number

_TOKEN = re.compile(
    r"""(?P<space>[ \t\r]+|\#[^\n]*)
      | (?P<line>\n)
      | (?P<name>[A-Za-z_][A-Za-z0-9_'.]*(?:/[A-Za-z0-9_'.]+)*)
      | (?P<number>-inf|-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)
      | (?P<string>"(?:[^"\\\n]|\\.)*")
      | (?P<mark>[()\[\]{}=,:@?])
    """,
    re.VERBOSE | re.ASCII,
)
_Item = TypeVar("_Item")


@dataclass(frozen=True, slots=True)
class Token:
    """kind: name, number, string, mark, line or end."""

    kind: str
    text: str
    start: int


def tokens(source: Source) -> Iterator[Token]:
    """The tokens of a text, `end` the last; raises SpecError (E0901) at a character that begins none."""
    at, text = 0, source.text
    while at < len(text):
        found = _TOKEN.match(text, at)
        if found is None:
            raise SpecError(
                Diagnostic("E0901", "no graph text", (Label(source.span(at, at + 1), "a stray character"),))
            )
        kind = found.lastgroup
        assert kind is not None, "every alternative has a name"
        if kind != "space":
            yield Token(kind, found.group(), at)
        at = found.end()
    yield Token("end", "", at)


@dataclass
class Cursor:
    """The place in the tokens. Every method that takes something goes past it, or raises SpecError (E0901)."""

    source: Source
    tokens: list[Token]
    at: int = 0

    @property
    def kind(self) -> str:
        return self.tokens[self.at].kind

    @property
    def text(self) -> str:
        return self.tokens[self.at].text

    def fail(self, title: str, hint: str | None = None, back: int = 0) -> NoReturn:
        token = self.tokens[max(self.at - back, 0)]
        span = self.source.span(token.start, token.start + max(len(token.text), 1))
        raise SpecError(Diagnostic("E0901", f"no graph text: {title}", (Label(span, "here"),), hint=hint))

    def take(self, mark: str) -> None:
        """Go past one mark or word."""
        if self.text != mark or self.kind == "string":
            self.fail(f"expected `{mark}`")
        self.at += 1

    def accept(self, mark: str) -> bool:
        """Go past a mark or word if it stands here."""
        here = self.text == mark and self.kind != "string"
        self.at += here
        return here

    def skip_lines(self) -> None:
        while self.kind == "line":
            self.at += 1

    def end_line(self) -> None:
        if self.kind != "line":
            self.fail("expected the end of the line")
        self.skip_lines()

    def name(self) -> str:
        """A plain or quoted name."""
        token = self.tokens[self.at]
        if token.kind == "string":
            return self.string()
        if token.kind != "name":
            self.fail("expected a name")
        self.at += 1
        return token.text

    def string(self) -> str:
        try:
            value = json.loads(self.text)
        except ValueError:
            self.fail("a quoted text with a wrong escape")
        self.at += 1
        return str(value)

    def integer(self, least: int = 0) -> int:
        token = self.tokens[self.at]
        if token.kind != "number" or not token.text.lstrip("-").isdigit() or len(token.text) > MAX_DIGITS:
            self.fail("expected a whole number")
        value = int(token.text)
        if value < least:
            self.fail(f"expected a number of {least} or more")
        self.at += 1
        return value

    def number(self) -> int | float:
        text = self.text
        if text.lstrip("-").isdigit():
            return self.integer(least=-(10**MAX_DIGITS))
        if len(text) > MAX_DIGITS:
            self.fail("a number of too many digits")
        self.at += 1
        return float(text)

    def sequence(self, opening: str, closing: str, item: Callable[[], _Item]) -> Iterator[_Item]:
        self.take(opening)
        while not self.accept(closing):
            yield item()
            if self.text != closing:
                self.take(",")

    def bracketed(self) -> str:
        self.take("(")
        name = self.name()
        self.take(")")
        return name
