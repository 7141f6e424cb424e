"""The contextual lexer: which token stands at an offset, given what the parser can use there.

In: text, an offset and the parser's state. Out: a `Token`, or None where no token begins. Words of the language
are words only where the grammar asks for them (`state`, `next`, `dim` are fine names elsewhere), as in lark's own
contextual lexer, which the tests hold this one to.
"""

import re
from functools import cache
from typing import NamedTuple

from .tables import END, NEWLINE, Tables, tables


class Token(NamedTuple):
    """A piece of text and the terminal of the grammar that it is."""

    kind: str
    text: str
    start: int
    end: int


class Lexer:
    """The scanners of a grammar, compiled when first needed and shared by all states that allow the same tokens."""

    def __init__(self, tables: Tables) -> None:
        self.ignored = tables.ignored
        self.literals = {terminal.name: terminal.literal for terminal in tables.terminals if terminal.literal}
        self._terminals = tables.terminals
        self._words = {literal: name for name, literal in self.literals.items() if literal.isalpha()}
        self._states = tables.states
        self._of_state: list[frozenset[str] | None] = [None] * len(tables.states)
        self._compiled: dict[frozenset[str], re.Pattern[str]] = {}
        self._any = self._scanner(self._usable({terminal.name for terminal in tables.terminals}))

    def read(self, text: str, at: int, state: int) -> Token | None:
        """The next token that the state can use, else any token; END at the end.

        What is the first among all terminals is the first among the state's own, if it is one of them: most states then
        need no scanner of their own.
        """
        usable = self._of_state[state]
        if usable is None:
            usable = self._of_state[state] = self._usable(set(self._states[state]))
        while at < len(text):
            match = self._any.match(text, at)
            if match is None or match.lastgroup not in usable:
                match = self._scanner(usable).match(text, at) or match
            if match is None:
                return None
            kind, end = match.lastgroup or "", match.end()
            if kind not in self.ignored:
                word = match.group()
                if kind == "NAME" and word in self._words:
                    kind = self._word_kind(word, state)
                return Token(kind, word, at, end)
            at = end
        return Token(END, "", at, at)

    def _word_kind(self, word: str, state: int) -> str:
        """A word of the language where it can be one, else a name."""
        kind = self._words[word]
        return kind if kind in self._states[state] else "NAME"

    def _usable(self, accepted: set[str]) -> frozenset[str]:
        """What a scanner looks for where these terminals are accepted: words are read as names."""
        words = set(self._words.values())
        wanted = (accepted - words) | self.ignored | {NEWLINE} | ({"NAME"} if accepted & words else set[str]())
        return frozenset(terminal.name for terminal in self._terminals if terminal.name in wanted)

    def _scanner(self, usable: frozenset[str]) -> re.Pattern[str]:
        if usable not in self._compiled:
            groups = (
                f"(?P<{terminal.name}>{terminal.pattern})" for terminal in self._terminals if terminal.name in usable
            )
            self._compiled[usable] = re.compile("|".join(groups))
        return self._compiled[usable]


@cache
def lexer() -> Lexer:
    """The language's lexer."""
    return Lexer(tables())
