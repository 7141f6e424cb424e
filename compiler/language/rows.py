"""Statements, declarations and entries as rows: what `format` lines up and puts comments between.

In: a node and the text it stands in. Out: a `Row`: the part before the sign that columns align at, the rest, and for
whatever has braces the rows inside. Knows how each kind of statement reads, not how rows are placed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from . import syntax as s
from . import text as t

INLINE_ENTRIES = 4  # of a record's part that may stand on one line
_BRACE = re.compile(r'"(?:[^"\\\n]|\\.)*"|#[^\n]*|(\{)')

Rest = Callable[[int, int], str]  # (column, indent) -> the text that begins at the column


@dataclass(frozen=True, slots=True)
class Row:
    """A statement: `head`, padding to align with its neighbours of the same kind, `rest`; then `inner` in braces."""

    node: s.Node
    kind: str | None
    head: str
    rest: Rest
    inner: tuple[Row, ...] | None = None
    opened: int = 0  # offset of its `{`
    inline: str | None = None  # the braces and all on one line, if it may be


def row(node: s.Node) -> Row:
    """The row of a declaration, a statement, or an entry of a record or weight map."""
    match node:
        case s.Fn() | s.Block() | s.Model() | s.Derived():
            return _definition(node)
        case s.Weights() | s.WeightMap() | s.WeightSkip() | s.WeightFor() | s.WeightConfig():
            return _weights(node)
        case s.Record() | s.RecordSet() | s.RecordSub():
            return _record(node)
        case s.Use():
            return _plain(node, f"use {node.name}")
        case s.Instance() | s.Adapt() | s.Param() | s.State() | s.Init():
            return _member(node)
        case s.Sizes():
            return _sizes(node)
        case s.Scan():
            carries = ", ".join(f"{carry.name} = {t.flat(carry.value)}" for carry in node.carries)
            return _braces(node, f"scan {node.index} in {node.dim} carry {carries}", node.body.statements, node.body)
        case _:
            return _statement(node)


# ---- the rest of a row


def _nothing(column: int, indent: int) -> str:
    return ""


def _value(sign: str, value: s.Expr, condition: s.Expr | None = None) -> Rest:
    """`= value`, `~ value when condition`"""
    tail = f" when {t.flat(condition)}" if condition else ""
    lead = f"{sign} " if sign else ""

    def rest(column: int, indent: int) -> str:
        return lead + t.wrap(value, column + len(lead), indent + t.STEP, room=len(tail)) + tail

    return rest


def _constructor(lead: str, node: s.Constructor, tail: str) -> Rest:
    """`: chain L of Block[D](drop) when deep`"""

    def rest(column: int, indent: int) -> str:
        head = f"{lead}{t.constructor_head(node)}"
        if not node.args:
            return head + tail
        args = t.fill(node.args, column + len(head) + 1, indent + t.STEP, room=1 + len(tail))
        return f"{head}({args}){tail}"

    return rest


def _values(lead: str, values: Sequence[s.Expr]) -> Rest:
    def rest(column: int, indent: int) -> str:
        if len(values) == 1:
            return lead + t.wrap(values[0], column + len(lead), indent + t.STEP)
        return lead + t.fill(values, column + len(lead), indent + t.STEP)

    return rest


def _plain(node: s.Node, text: str) -> Row:
    return Row(node, None, text, _nothing)


# ---- statements


def _statement(node: s.Node) -> Row:
    match node:
        case s.DimDef():
            return _plain(node, "dim " + ", ".join(f"{item.name} = {t.dim(item.dim)}" for item in node.bindings))
        case s.Check():
            text = f", {t.quoted(node.message.value)}"
            check = _value("", node.condition)
            return Row(node, None, "check", lambda column, indent: check(column, indent) + text)
        case s.Assign():
            targets = ", ".join(str(target) for target in node.targets)
            kind = "assign" if len(node.targets) == 1 else None
            return Row(node, kind, targets, _value("=", node.value))
        case s.Next() | s.Emit() | s.Tap():
            word = type(node).__name__.lower()
            return Row(node, word, f"{word} {node.name}", _value("=", node.value))
        case s.Return():
            return Row(node, None, "return", _values("", node.values))
        case _:
            raise AssertionError(f"no text for {type(node).__name__}")


def _member(node: s.Instance | s.Adapt | s.Param | s.State | s.Init) -> Row:
    match node:
        case s.Instance():
            tail = f" when {t.flat(node.condition)}" if node.condition else ""
            return Row(
                node, "instance", f"{node.name}", _constructor(f": {_repeat(node.repeat)}", node.constructor, tail)
            )
        case s.Adapt():
            return Row(node, "adapt", f"adapt {_paths(node.paths)}", _constructor(": ", node.constructor, ""))
        case s.Init():
            return Row(node, "init", f"init {_paths(node.paths)}", _value("~", node.value))
        case s.Param():
            return Row(node, "param", f"param {node.name}{t.axes(node.dims)}", _value("~", node.init, node.condition))
        case s.State():
            return Row(node, "state", f"state {node.name}{t.axes(node.dims)}", _value("=", node.init, node.condition))


def _paths(paths: Sequence[s.Path]) -> str:
    return ", ".join(path.text for path in paths)


def _repeat(node: s.Repeat | None) -> str:
    if node is None:
        return ""
    index = f"{node.index} in " if node.index else ""
    return f"{node.kind} {index}{t.dim(node.count, 2)} of "


def _sizes(node: s.Sizes) -> Row:
    """Cells of a column begin in the same place, two spaces apart."""
    lines = [["", *(str(column) for column in node.columns)]]
    lines += [[str(line.label), *(t.flat(cell) for cell in line.cells)] for line in node.rows]
    widths = [max(len(line[i]) for line in lines if i < len(line)) for i in range(max(map(len, lines)))]
    texts = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=False)).rstrip() for line in lines]
    inner = (*(_plain(part, text) for part, text in zip((_header(node), *node.rows), texts, strict=True)),)
    return Row(node, None, "sizes", _nothing, inner, node.span.source.text.find("{", node.span.start))


def _header(node: s.Sizes) -> s.Node:
    """The columns as one node, so that the row of names has a place in the text."""
    return s.Path(node.columns[0].span.to(node.columns[-1].span), node.columns)


# ---- declarations


def _definition(node: s.Fn | s.Block | s.Model | s.Derived) -> Row:
    if isinstance(node, s.Fn):
        return _function(node)
    word = "block" if isinstance(node, s.Block) else "model"
    formals = node.formals if isinstance(node, s.Block) else ()
    meaning = (
        _constructor("= ", node.base, "")(0, 0) if isinstance(node, s.Derived) else f": {t.signature(node.signature)}"
    )
    head = _header_text(f"{word} {node.name}{_formals(formals)}", node.options, "", f" {meaning}")
    return _braces(node, head, node.body.statements, node.body)


def _function(node: s.Fn) -> Row:
    outs = f" -> {', '.join(map(t.out, node.outs))}" if node.outs else ""
    head = _header_text(f"fn {node.name}{_formals(node.formals)}", node.options, outs + t.kernel(node.kernel), "")
    if node.body is None:
        return _plain(node, head)
    if isinstance(node.body, s.Body):
        return _braces(node, head, node.body.statements, node.body)
    return Row(node, "fn", head, _value("=", node.body))


def _formals(formals: Sequence[s.Formal]) -> str:
    return t.bracketed("[", map(t.formal, formals), "]")


def _header_text(name: str, nodes: Sequence[s.Option], tail: str, line: str) -> str:
    """A header on one line; else the options on their own lines, then ` : signature` on one."""
    options = [t.option(option) for option in nodes]
    text = name + t.bracketed("(", options, ")") + tail
    if len(text) + len(line) + 2 <= t.WIDTH:
        return text + line
    if len(text) + 2 > t.WIDTH:
        text = f"{name}(\n{_filled(options, t.STEP)}){tail}"
    return f"{text}\n {line}" if line else text


def _filled(items: list[str], indent: int) -> str:
    """Items, as many to a line as go, every line indented."""
    lines = [" " * indent]
    for index, item in enumerate(items):
        text = item + ("," if index < len(items) - 1 else "")
        if len(lines[-1]) + len(text) + 1 > t.WIDTH and lines[-1].strip():
            lines.append(" " * indent)
        lines[-1] += text if not lines[-1].strip() else f" {text}"
    return "\n".join(lines)


def _braces(node: s.Node, head: str, entries: Sequence[s.Node], after: s.Node | int) -> Row:
    """A row with rows inside; its `{` is the first of the body, or the first behind an offset."""
    opened = after.span.start if isinstance(after, s.Node) else _brace(node.span.source.text, after)
    return Row(node, None, head, _nothing, tuple(row(entry) for entry in entries), opened)


def _brace(text: str, after: int) -> int:
    for found in _BRACE.finditer(text, after):
        if found[1]:
            return found.start()
    return after


# ---- weight maps and records


def _weights(node: s.Weights | s.WeightMap | s.WeightSkip | s.WeightFor | s.WeightConfig) -> Row:
    match node:
        case s.Weights():
            size = f".{node.size}" if node.size else ""
            base = f" extends {node.base.text}" if node.base else ""
            head = f"weights {node.model}{size} {t.quoted(node.source.value)}{base}"
            return _braces(node, head, node.entries, (node.base or node.source).span.end)
        case s.WeightConfig():
            return _braces(node, "config", node.entries, node.span.start)
        case s.WeightFor():
            return _braces(node, f"for {node.index} in {t.dim(node.dim)}", node.entries, node.dim.span.end)
        case s.WeightSkip():
            return _plain(node, f"skip {t.quoted(node.pattern.value)}")
        case s.WeightMap():
            paths = ", ".join(t.weight_path(path) for path in node.paths)
            tail = f" when {t.flat(node.condition)}" if node.condition else ""
            value = (f"= ({paths})" if len(node.paths) > 1 else f"= {paths}") + tail
            head = f"{'tied ' if node.tied else ''}{t.quoted(node.name.value)}{t.axes(node.layout)}"
            return Row(node, "weight", head, _own_line(value))


def _own_line(value: str) -> Rest:
    """A value that moves to a line of its own where it does not fit."""

    def rest(column: int, indent: int) -> str:
        return value if column + len(value) <= t.WIDTH else "\n" + " " * (indent + 2) + value

    return rest


def _record(node: s.Record | s.RecordSet | s.RecordSub) -> Row:
    if isinstance(node, s.RecordSet):
        key = t.quoted(node.key.value) if isinstance(node.key, s.String) else f"{node.key}"
        return Row(node, "set", key, _value("=", node.value))
    if isinstance(node, s.Record):
        base = f" extends {node.base}" if node.base else ""
        return _braces(node, f"{node.kind} {node.name}{base}", node.entries, (node.base or node.name).span.end)
    head = f"{node.key} {t.flat(node.argument)}" if node.argument else f"{node.key}"
    made = _braces(node, head, node.entries, (node.argument or node.key).span.end)
    kind = f"part {node.key}" if node.argument else "part"
    return Row(node, kind, head, _nothing, made.inner, made.opened, _inline(made.inner or ()))


def _inline(rows: Sequence[Row]) -> str | None:
    """`{ a = 1, b = 2 }`, if that is short and holds no further braces."""
    if len(rows) > INLINE_ENTRIES or any(inner.inner is not None for inner in rows):
        return None
    entries = [f"{inner.head} {inner.rest(-t.WIDTH * 8, 0)}" for inner in rows]
    return f"{{ {', '.join(entries)} }}" if entries else "{}"
