"""The LALR automaton: shifts tokens, reduces rules, builds nodes on the way.

In: tokens. Out: a stack whose values are the nodes so far. It knows nothing of texts or messages: whether a token fits, which
ones would, and how far the stack must be cut back until one fits, is all that recovery needs to know.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..base.span import Source, Span
from .lexer import Token
from .tables import END, Rule, Tables

MAX_DEPTH = 100  # of the tree, so that whoever walks it may recurse
MAX_STACK = 1000  # of the automaton: brackets in brackets


class TooDeep(Exception):
    """The tree or the stack is deeper than the limits allow."""


@dataclass
class Machine:
    """The stacks. Entry i of each belongs to one symbol; `states` has one more, the start."""

    tables: Tables
    source: Source
    actions: dict[str, Callable[..., Any]]  # by rule label: (span, *children) -> value
    states: list[int]
    values: list[Any] = field(default_factory=list[Any])
    starts: list[int] = field(default_factory=list[int])
    ends: list[int] = field(default_factory=list[int])
    depths: list[int] = field(default_factory=list[int])

    def feed(self, token: Token) -> bool:
        """Take a token; False if it does not fit. Raises TooDeep."""
        rows, rules = self.tables.states, self.tables.rules
        while True:
            target = rows[self.states[-1]].get(token.kind)
            if target is None:
                return False
            if target > 0:
                self._push(target - 1, token, token.start, token.end, 0)
                return True
            self._reduce(rules[-target - 1], token.start)
            if token.kind == END and self.states[-1] == self.tables.end:
                return True

    def _push(self, state: int, value: Any, start: int, end: int, depth: int) -> None:
        if len(self.states) > MAX_STACK:
            raise TooDeep
        self.states.append(state)
        self.values.append(value)
        self.starts.append(start)
        self.ends.append(end)
        self.depths.append(depth)

    def _reduce(self, rule: Rule, at: int) -> None:
        """Replace the rule's symbols on the stack by its value."""
        size = rule.size
        if size == 0:
            parts, start, end, depth = [], at, at, 0
        else:
            parts, start, end = self.values[-size:], self.starts[-size], self.ends[-1]
            depth = max(self.depths[-size:])
            self.cut(len(self.states) - size)
        value, made = self._value(rule, parts, start, end)
        depth += made
        if depth > MAX_DEPTH:
            raise TooDeep
        target = self.tables.states[self.states[-1]][rule.origin]
        self._push(target - 1, value, start, end, depth)

    def _value(self, rule: Rule, parts: list[Any], start: int, end: int) -> tuple[Any, bool]:
        """The rule's value, and whether it is a node of its own."""
        children = shape(rule, parts)
        if rule.label.startswith("_"):
            return children, False
        if rule.unwrap and len(children) == 1:
            return children[0], False
        return self.actions[rule.label](Span(self.source, start, end), *children), True

    def cut(self, height: int) -> None:
        """Drop all states above a height (at least 1, the start)."""
        for stack, keep in ((self.states, height), (self.values, height - 1), (self.starts, height - 1)):
            del stack[keep:]
        del self.ends[height - 1 :]
        del self.depths[height - 1 :]

    def restore(self, states: Sequence[int]) -> None:
        """Undo what reductions made of the states of before; only for asking what fits, values stay behind."""
        self.states[:] = states

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


def shape(rule: Rule, parts: list[Any]) -> list[Any]:
    """The children of a rule: its kept symbols' values, lists spliced in, None for what is absent."""
    children: list[Any] = []
    for place, (index, splice, nones) in enumerate(rule.kept):
        if nones:
            children += [None] * nones
        if not splice:
            children.append(parts[index])
        elif place == 0 and not nones:
            children = parts[index]  # a list grows in place, or long ones would cost the square of their length
        else:
            children += parts[index]
    if rule.nones_after:
        children += [None] * rule.nones_after
    return children
