"""`partita fmt`: the one canonical form of a spec.

In: a text without syntax errors. Out: the same spec, laid out anew: existing line breaks do not count, except that one
empty line between statements stays; neighbours of one kind align; comments stay before the statement or at the end
of the line that they belong to. Formatting twice changes nothing, and the tree stays the same.
"""

import re
from collections.abc import Sequence

from ..base.span import Source
from . import syntax as s
from .parse import parse_or_raise
from .rows import Row, row

_MARK = "\0"  # stands between a line's code and its comment until comments are aligned
INLINE_WIDTH = 100  # of a record's part on one line
_BROKEN_APART = frozenset(("assign", "fn"))  # what follows one of these does not align with it if it is broken
_EMPTY_LINE = re.compile(r"\n[ \t\r]*\n")


def format(text: str, path: str = "<string>") -> str:
    """The canonical form of a text. Raises SpecError with its syntax errors."""
    file = parse_or_raise(Source(path, text))
    layout = _Layout(text, list(file.comments))
    rows = [row(declaration) for declaration in file.declarations]
    lines = layout.rows(rows, 0, len(text), 0)
    return "\n".join(_align_comments(lines)) + "\n" if lines else ""


class _Layout:
    """Places rows and the comments between them; comments are used up from the front."""

    def __init__(self, text: str, comments: list[s.Comment]) -> None:
        self.text = text
        self.comments = comments[::-1]

    def rows(self, rows: Sequence[Row], start: int, end: int, indent: int) -> list[str]:
        """The lines of all rows and comments between two offsets."""
        lines: list[str] = []
        at = start
        ends = iter([*(item.node.span.start for item in rows[1:]), end])
        for run in self._runs(rows):
            column = _column(run)
            for item in run:
                at = self._before(lines, at, item.node.span.start, indent)
                self._gap(lines, at, item.node.span.start)
                until = item.node.span.end if item.inner is None else item.opened
                self._before(lines, until, until, indent)  # comments amid a statement move before it
                lines += self._row(item, indent, column)
                at = item.node.span.end
                at = self._trailing(lines, at, next(ends))
        self._before(lines, at, end, indent)
        return lines

    def _runs(self, rows: Sequence[Row]) -> list[list[Row]]:
        """Neighbours of one kind with neither an empty line nor a comment between them."""
        runs: list[list[Row]] = []
        for item in rows:
            last = runs[-1][-1] if runs else None
            if last and item.kind and last.kind == item.kind and self._adjacent(last, item):
                runs[-1].append(item)
            else:
                runs.append([item])
        return runs

    def _adjacent(self, above: Row, below: Row) -> bool:
        between = self.text[above.node.span.end : below.node.span.start]
        own_lines = between.split("\n")[1:-1]
        broken = above.kind in _BROKEN_APART and not _is_short(above)
        return not own_lines and not broken and not self._is_open(above) and not self._is_open(below)

    def _is_open(self, item: Row) -> bool:
        """Whether its braces stand on lines of their own."""
        if item.inner is None:
            return False
        inside = (item.opened <= comment.span.start < item.node.span.end for comment in self.comments)
        return item.inline is None or len(item.head) + len(item.inline) > INLINE_WIDTH or any(inside)

    def _row(self, item: Row, indent: int, column: int) -> list[str]:
        margin = " " * indent
        if item.inner is None:
            return _with_rest(item, indent, column)
        if not self._is_open(item):
            return [f"{margin}{item.head.ljust(column)} {item.inline}"]
        lines = (margin + item.head + " {").split("\n")
        first = item.inner[0].node.span.start if item.inner else item.node.span.end
        at = self._trailing(lines, item.opened + 1, first)
        inside = self.rows(item.inner, at, item.node.span.end - 1, indent + 2)
        if not inside and _MARK not in lines[-1]:
            return [*lines[:-1], lines[-1] + "}"]
        return [*lines, *inside, margin + "}"]

    # ---- comments

    def _before(self, lines: list[str], at: int, until: int, indent: int) -> int:
        """Comments on lines of their own before an offset."""
        while self.comments and self.comments[-1].span.start < until:
            comment = self.comments.pop()
            self._gap(lines, at, comment.span.start)
            lines.append(" " * indent + comment.text)
            at = comment.span.end
        return at

    def _trailing(self, lines: list[str], at: int, until: int) -> int:
        """A comment between two offsets that begins on the line of the first; where the text goes on."""
        start = self.comments[-1].span.start if self.comments else until
        if start < until and "\n" not in self.text[at:start]:
            comment = self.comments.pop()
            lines[-1] += _MARK + comment.text
            return comment.span.end
        return at

    def _gap(self, lines: list[str], at: int, until: int) -> None:
        """An empty line where the text has one or more."""
        if lines and lines[-1] and _EMPTY_LINE.search(self.text, at, until):
            lines.append("")


def _is_short(item: Row) -> bool:
    """Whether a row stays on one line when nothing is aligned."""
    return item.inner is not None or "\n" not in item.rest(len(item.head) + 3, 2)


def _column(run: Sequence[Row]) -> int:
    """Where the rests of a run's rows begin."""
    wide = [len(item.head) for item in run if item.kind and (item.kind != "weight" or _is_short(item))]
    return max(wide, default=0)


def _with_rest(item: Row, indent: int, column: int) -> list[str]:
    """A row without braces, aligned unless that breaks a line that need not be broken."""
    margin = " " * indent
    last = item.head.rsplit("\n", 1)[-1]
    padded = last.ljust(column)
    rest = item.rest(indent + len(padded) + 1, indent)
    if "\n" in rest and padded != last:
        closer = item.rest(indent + len(last) + 1, indent)
        padded, rest = (last, closer) if closer.count("\n") < rest.count("\n") else (padded, rest)
    text = f"{margin}{item.head[: len(item.head) - len(last)]}{padded} {rest}"
    return [line.rstrip() for line in text.split("\n")]


def _align_comments(lines: Sequence[str]) -> list[str]:
    """Comments at the ends of neighbouring lines begin in one column, two spaces behind the longest."""
    done: list[str] = []
    run: list[tuple[str, str]] = []
    for line in (*lines, ""):
        code, mark, comment = line.partition(_MARK)
        if mark and not code.endswith("{"):
            run.append((code, comment))
            continue
        width = max((len(before) for before, _ in run), default=0)
        done += [f"{before.ljust(width)}  {after}" for before, after in run]
        run = []
        done.append(f"{code}  {comment}" if mark else line)
    return done[:-1]
