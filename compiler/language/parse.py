"""Text to syntax tree.

In: a `Source`. Out: a `Parsed`: the tree and what is wrong with the text. Syntax errors do not end the parse: it
goes on at the next statement, so one run reports several. Whatever the text, nothing else than diagnostics comes back,
in bounded time, memory and depth. A newline ends a statement, except inside ( ) and [ ], after an operator or a comma,
and before a line that begins with an operator.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..base.diagnostic import Diagnostic, Diagnostics, SpecError
from ..base.span import Source, Span
from . import syntax_errors
from .build import Builder
from .lexer import Lexer, Token, lexer
from .machine import MAX_DEPTH, Machine, TooDeep, fits
from .syntax import Comment, File
from .tables import END, NEWLINE, Tables, tables

MAX_CHARACTERS = 100_000
MAX_ERRORS = 20
COMMENT = re.compile(r'"(?:[^"\\\n]|\\.)*"|(#[^\n]*)')
_CONTINUES = frozenset(
    ("COMMA", "ADD", "MUL", "POW", "CMP", "MINUS", "EQUAL", "TILDE", "COLON", "AND", "OR", "NOT", "THEN", "ELSE")
)
_OPEN = {"LPAR": ")", "LSQB": "]", "LBRACE": "}"}
_CLOSE = frozenset(("RPAR", "RSQB", "RBRACE"))
_SKIP = re.compile(r'"(?:[^"\\\n]|\\.)*"|#[^\n]*|[{}\n]')
_NO_TOKEN = re.compile(r'[ \t]*("[^\n]*|.)?')
_DECLARATION = re.compile(r"(?:use|fn|block|model|weights|cluster|train|plan)[ \t]+[A-Za-z_]")


@dataclass(frozen=True, slots=True)
class Parsed:
    """`file` holds whatever could be read; it is the whole text only if there are no diagnostics."""

    file: File
    diagnostics: tuple[Diagnostic, ...]


@dataclass(frozen=True, slots=True)
class Bracket:
    """An open bracket and the height of the automaton's stack below it."""

    token: Token
    height: int


def parse(source: Source) -> Parsed:
    """The tree of a text and its syntax errors."""
    problem = syntax_errors.unreadable(source, MAX_CHARACTERS)
    if problem is not None:
        return Parsed(File(source.span(), ()), (problem,))
    return _Parser(source, tables(), lexer()).run()


def parse_or_raise(source: Source) -> File:
    """The tree of a text. Raises SpecError with its syntax errors."""
    parsed = parse(source)
    if parsed.diagnostics:
        raise SpecError(parsed.diagnostics)
    return parsed.file


def read_source(path: str | Path) -> Source:
    """The text of a file. Raises SpecError if it cannot be read or is not UTF-8."""
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise SpecError(Diagnostic("E0012", f"cannot read {path}: {error.strerror}")) from None
    try:
        return Source(str(path), data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise SpecError(syntax_errors.not_utf8(str(path), data, error)) from None


class _Parser:
    """One parse: the automaton, the place in the text, the open brackets."""

    def __init__(self, source: Source, tables: Tables, lexer: Lexer) -> None:
        self.source = source
        self.text = source.text if source.text.endswith("\n") else source.text + "\n"
        self.diagnostics = Diagnostics(limit=MAX_ERRORS)
        self.tables = tables
        self.lexer = lexer
        builder = Builder(source.span(), self.diagnostics)
        actions: dict[str, Callable[..., Any]] = {
            rule.label: action for rule in tables.rules if (action := getattr(builder, rule.label, None)) is not None
        }
        self.machine = Machine(tables, source, actions, [tables.start])
        self.brackets: list[Bracket] = []
        self.previous = Token(NEWLINE, "", 0, 0)
        self.joined = self.previous  # the last token that a newline behind it did not end
        self.resumed = -1  # where the last recovery went on: the next must be further on

    def run(self) -> Parsed:
        at = 0
        while at >= 0 and not self.diagnostics.full:
            at = self._step(at)
        top = self.machine.entries[-1].value if self.machine.entries else None
        file = top if isinstance(top, File) else File(self.source.span(), ())
        comments = comments_of(self.source) if not self.diagnostics.items else ()
        return Parsed(replace(file, comments=comments), tuple(self.diagnostics))

    def _step(self, at: int) -> int:
        """Take the token at an offset; the offset to go on at, or -1 at the end."""
        machine = self.machine
        token = self.lexer.read(self.text, at, machine.states[-1])
        if token is None:
            return self._recover(syntax_errors.unknown_character(self.source, at), self._next_place(at))
        if token.kind == NEWLINE and self._dropped():
            self.joined = self.previous
            return token.end
        if token.start == self.previous.end and token.start > 0 and _glued(self.text, token.start):
            return self._recover(syntax_errors.glued(self.source, self.previous, token), token.start)
        before = machine.states[:]
        try:
            fed = machine.feed(token)
        except TooDeep:
            return self._recover(syntax_errors.too_deep(self.source, token, MAX_DEPTH), token.start)
        if not fed:
            return self._unexpected(token, before)
        self._track(token)
        self.previous = token
        return -1 if token.kind == END else token.end

    def _dropped(self) -> bool:
        """Inside ( ) and [ ] and after an operator or a comma a newline means nothing."""
        inside = bool(self.brackets) and self.brackets[-1].token.kind != "LBRACE"
        return inside or self.previous.kind in _CONTINUES or self.lexer.literals.get(self.previous.kind) in ("|>", "->")

    def _track(self, token: Token) -> None:
        if token.kind in _OPEN:
            self.brackets.append(Bracket(token, len(self.machine.states) - 1))
        elif token.kind in _CLOSE and self.brackets:
            self.brackets.pop()

    # ---- errors

    def _unexpected(self, token: Token, before: list[int]) -> int:
        line_start = self.text.rfind("\n", 0, token.start) + 1
        opening = self.brackets[-1].token if self.brackets else None
        before_line = opening is not None and opening.start < line_start
        new_declaration = before_line and _DECLARATION.match(self.text, line_start) is not None
        later = opening is not None and "\n" in self.text[opening.end : token.start]
        if opening is not None and (token.kind == END or new_declaration or (later and opening.kind != "LBRACE")):
            whole = self.text[line_start : token.end]
            found = Token(token.kind, whole, line_start, token.end) if new_declaration else token
            problem = syntax_errors.never_closed(self.source, opening, _OPEN[opening.kind], found)
        else:
            wanted, literals = self._wanted(before), self.lexer.literals
            problem = syntax_errors.unexpected(self.source, token, self.previous, wanted, literals)
            if self.text.count("\n", self.joined.end, token.start) == 1 and self.joined.end:
                problem = syntax_errors.continued(problem, Span(self.source, self.joined.start, self.joined.end))
            if self._brace_is_missing(token):
                return self._insert_brace(problem, token)
        return self._recover(problem, line_start if new_declaration else token.start, new_declaration)

    def _brace_is_missing(self, token: Token) -> bool:
        """A `{` fits before it, and before the next declaration a `}` closes what nothing has opened."""
        if not self.machine.accepts("LBRACE", token.kind):
            return False
        depth = sum(bracket.token.kind == "LBRACE" for bracket in self.brackets)
        for found in _SKIP.finditer(self.text, token.start):
            depth += {"{": 1, "}": -1}.get(found.group(), 0)
            if depth < 0:
                return True
            if found.group() == "\n" and _DECLARATION.match(self.text, found.end()):
                return False
        return False

    def _insert_brace(self, problem: Diagnostic, token: Token) -> int:
        """Report, and go on as if the `{` stood before the token: what follows is then read as it was meant."""
        self.diagnostics.add(problem)
        brace = Token("LBRACE", "{", self.previous.end, self.previous.end)
        fed = self.machine.feed(brace)
        assert fed, "it was asked for whether it fits"
        self._track(brace)
        self.previous = brace
        return token.start

    def _wanted(self, states: list[int]) -> set[str]:
        """The kinds of token that fit."""
        names = [name for name in self.tables.states[states[-1]] if name.isupper() or name in (NEWLINE, END)]
        return {name for name in names if fits(self.tables, states, (name,))}

    def _recover(self, problem: Diagnostic, at: int, new_declaration: bool = False) -> int:
        """Report, find where the next statement begins, cut the stack back to where one fits; where to go on."""
        self.diagnostics.add(problem)
        at, kind = (at, "USE") if new_declaration else self._next_statement(at)
        if kind == END or at <= self.resumed:
            return -1
        self.resumed = at
        wanted = (NEWLINE, "USE") if kind == "USE" else (kind,)
        machine = self.machine
        height = len(machine.states)
        while height > 1 and not fits(self.tables, machine.states[:height], wanted):
            height -= 1
        machine.cut(height)
        while self.brackets and self.brackets[-1].height >= height:
            self.brackets.pop()
        return self._resume(at, kind)

    def _resume(self, at: int, kind: str) -> int:
        """Feed the end of the broken statement, if it is more than a place, and go on behind it."""
        if kind == "RBRACE" and not self.machine.accepts(kind):
            return at + 1
        self.previous = Token(NEWLINE, "", at, at)
        if kind == "USE" and self.machine.accepts(NEWLINE):
            self.machine.feed(self.previous)
        return at

    def _next_statement(self, at: int) -> tuple[int, str]:
        """Where the broken statement ends: at a newline, before a `}`, or at a declaration (kind USE)."""
        depth = 0
        for found in _SKIP.finditer(self.text, at):
            start = found.start()
            if found.group() == "{":
                depth += 1
            elif found.group() == "}":
                depth -= 1
                if depth < 0:
                    return start, "RBRACE"
            elif found.group() == "\n" and found.end() < len(self.text):
                if _DECLARATION.match(self.text, found.end()):
                    return found.end(), "USE"
                after = self.lexer.read(self.text, start, self.tables.start)
                if depth == 0 and after is not None and after.kind == NEWLINE:
                    return start, NEWLINE
        return len(self.text), END

    def _next_place(self, at: int) -> int:
        """Past blanks and the character that begins no token (the rest of the line, if it is a quote)."""
        found = _NO_TOKEN.match(self.text, at)
        assert found is not None, "the pattern matches anything"
        return found.end()


def comments_of(source: Source) -> tuple[Comment, ...]:
    """All comments of a text without syntax errors, in order."""
    return tuple(
        Comment(Span(source, found.start(1), found.end(1)), found[1].rstrip())
        for found in COMMENT.finditer(source.text)
        if found[1] is not None
    )


def _glued(text: str, at: int) -> bool:
    """Whether two words meet at an offset without a space between them."""
    left, right = text[at - 1 : at], text[at : at + 1]
    return (left.isalnum() or left == "_") and (right.isalnum() or right == "_")
