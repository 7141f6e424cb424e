"""The LALR automaton: shifts tokens, reduces rules, builds nodes on the way.

In: tokens. Out: a stack whose values are the nodes so far. It knows nothing of texts or messages: whether a token
fits, which ones would, and how far the stack must be cut back until one fits, is all that recovery needs to know.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ..base.span import Source, Span
from .lexer import Token
from .tables import END, Rule, Tables

MAX_DEPTH = 100  # of the tree, so that whoever walks it may recurse
MAX_STACK = 1000  # of the automaton: brackets in brackets


class TooDeep(Exception):
    """The tree or the stack is deeper than the limits allow."""


class Entry(NamedTuple):
    """A symbol on the stack: its value, the text that it covers, the depth of its tree."""

    value: Any
    start: int
    end: int
    depth: int


@dataclass
class Machine:
    """The stack. `states` has one more than `entries`, the start, below them."""

    tables: Tables
    source: Source
    actions: dict[str, Callable[..., Any]]  # by rule label: (span, *children) -> value
    states: list[int]
    entries: list[Entry] = field(default_factory=list[Entry])

    def feed(self, token: Token) -> bool:
        """Take a token; False if it does not fit. Raises TooDeep."""
        rows, rules, states = self.tables.states, self.tables.rules, self.states
        while True:
            target = rows[states[-1]].get(token.kind)
            if target is None:
                return False
            if target > 0:
                self._push(target - 1, Entry(token, token.start, token.end, 0))
                return True
            rule = rules[-target - 1]
            if rule.unit:
                states[-1] = rows[states[-2]][rule.origin] - 1
            else:
                self._reduce(rule, token.start)
            if token.kind == END and states[-1] == self.tables.end:
                return True

    def _push(self, state: int, entry: Entry) -> None:
        if len(self.states) > MAX_STACK:
            raise TooDeep
        self.states.append(state)
        self.entries.append(entry)

    def _reduce(self, rule: Rule, at: int) -> None:
        """Replace the rule's symbols on the stack by its value."""
        parts = self.entries[len(self.entries) - rule.size :]
        start, end = (parts[0].start, parts[-1].end) if parts else (at, at)
        self.cut(len(self.states) - rule.size)
        children = shape(rule, parts)
        depth = max([part.depth for part in parts], default=0)
        if rule.label.startswith("_"):
            value = children
        elif rule.unwrap and len(children) == 1:
            value = children[0]
        else:
            value, depth = self.actions[rule.label](Span(self.source, start, end), *children), depth + 1
            if depth > MAX_DEPTH:
                raise TooDeep
        target = self.tables.states[self.states[-1]][rule.origin]
        self._push(target - 1, Entry(value, start, end, depth))

    def cut(self, height: int) -> None:
        """Keep so many states (at least 1, the start)."""
        del self.states[height:]
        del self.entries[height - 1 :]

    def accepts(self, *kinds: str) -> bool:
        """Whether these tokens would fit, one after the other."""
        return fits(self.tables, self.states, kinds)


def fits(tables: Tables, states: Sequence[int], kinds: Sequence[str]) -> bool:
    """Whether tokens of these kinds fit onto a stack of states, which is left as it is."""
    below, top = len(states), list[int]()  # the real stack up to `below`, then what the simulation put on it
    for kind in kinds:
        while True:
            state = top[-1] if top else states[below - 1]
            target = tables.states[state].get(kind)
            if target is None:
                return False
            if target > 0:
                top.append(target - 1)
                break
            rule = tables.rules[-target - 1]
            dropped = min(rule.size, len(top))
            del top[len(top) - dropped :]
            below -= rule.size - dropped
            origin = top[-1] if top else states[below - 1]
            top.append(tables.states[origin][rule.origin] - 1)
            if kind == END and top[-1] == tables.end:
                return True
    return True


def shape(rule: Rule, parts: Sequence[Entry]) -> list[Any]:
    """The children of a rule: its kept symbols' values, lists spliced in, None for what is absent."""
    children: list[Any] = []
    for place, (index, splice, nones) in enumerate(rule.kept):
        if nones:
            children += [None] * nones
        if not splice:
            children.append(parts[index].value)
        elif place == 0 and not nones:
            children = parts[index].value  # a list grows in place, or long ones would cost the square of their length
        else:
            children += parts[index].value
    if rule.nones_after:
        children += [None] * rule.nones_after
    return children
