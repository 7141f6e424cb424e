"""From the parser's reductions to nodes: one method for each rule (or alias) of grammar.lark, named as it is.

In: a rule's children (nodes, tokens, None for an absent `[…]`) and its span. Out: a node of syntax.py, or a
tuple for a rule that is a mere list. What the grammar cannot say (a number's range) is reported here.
"""

import math
import re
from typing import Any, cast

from ..base.diagnostic import Diagnostics
from ..base.span import Span
from . import syntax as s
from .lexer import Token

MAX_DIGITS = 30
_ESCAPE = re.compile(r"\\(.)")
_ESCAPED = {"n": "\n", "t": "\t"}
RESERVED = frozenset(("if", "then", "else", "and", "or", "not", "when", "true", "false", "none"))
_LITERALS = {"true": True, "false": False}


class Builder:
    """The semantic actions. Children are typed `Any`: the grammar, not the type checker, says what they are."""

    def __init__(self, span: Span, diagnostics: Diagnostics) -> None:
        self.whole = span
        self.diagnostics = diagnostics

    # ---- tokens

    def _span(self, token: Token) -> Span:
        return Span(self.whole.source, token.start, token.end)

    def _name(self, token: Token) -> s.Name:
        if token.text in RESERVED:
            title = f"`{token.text}` is a word of the language"
            self.diagnostics.error(
                "E0013", title, self._span(token), "a name is wanted here", hint="choose another name"
            )
        return s.Name(self._span(token), token.text)

    def _maybe_name(self, token: Token | None) -> s.Name | None:
        return None if token is None else self._name(token)

    def _string(self, token: Token) -> s.String:
        value = _ESCAPE.sub(lambda found: _ESCAPED.get(found[1], found[1]), token.text[1:-1])
        return s.String(self._span(token), value)

    def _maybe_string(self, token: Token | None) -> s.String | None:
        return None if token is None else self._string(token)

    def _number_value(self, token: Token) -> int | float:
        digits = token.text.replace("_", "")
        if len(digits) <= MAX_DIGITS:
            whole = digits.isdecimal()
            value = int(digits) if whole else float(digits)
            if whole or math.isfinite(value):
                return value
        text = f"more than {MAX_DIGITS} digits" if len(digits) > MAX_DIGITS else "larger than 1.8e308"
        self.diagnostics.error("E0009", "a number out of range", self._span(token), text)
        return 0

    # ---- lists

    def _listed(self, span: Span, *items: Any) -> tuple[Any, ...]:
        return tuple(item for item in items if item is not None)

    options = formals = ins = outs = dims = paths = args = _listed

    def axes(self, span: Span, dims: Any) -> tuple[s.Dim, ...]:
        return dims or ()

    def label(self, span: Span, token: Token) -> s.Name:
        return self._name(token)

    # ---- declarations

    def start(self, span: Span, *declarations: Any) -> s.File:
        return s.File(self.whole, self._listed(span, *declarations))

    def use(self, span: Span, name: s.QName) -> s.Use:
        return s.Use(span, name)

    def qname(self, span: Span, *parts: Token) -> s.QName:
        return s.QName(span, tuple(self._name(part) for part in parts))

    def fn(self, span: Span, name: Token, formals: Any, options: Any, outs: Any, kernel: Any, body: Any) -> s.Fn:
        return s.Fn(span, self._name(name), formals or (), options or (), outs, kernel, body)

    def fn_expr(self, span: Span, value: s.Expr) -> s.Expr:
        return value

    def kernel(self, span: Span, forward: Token | None, backward: Token | None) -> s.Kernel:
        return s.Kernel(span, self._maybe_string(forward), self._maybe_string(backward))

    def block(self, span: Span, name: Token, formals: Any, options: Any, sig: Any, body: Any) -> s.Block:
        return s.Block(span, self._name(name), formals or (), options or (), sig, body)

    def model(self, span: Span, name: Token, options: Any, sig: Any, body: Any) -> s.Model:
        return s.Model(span, self._name(name), options or (), sig, body)

    def derived(self, span: Span, name: Token, options: Any, base: Any, body: Any) -> s.Derived:
        return s.Derived(span, self._name(name), options or (), base, body)

    def formal(self, span: Span, name: Token, default: Any) -> s.Formal:
        return s.Formal(span, self._name(name), default)

    def option(self, span: Span, name: Token, dims: Any, type: Token | None, default: Any) -> s.Option:
        return s.Option(span, self._name(name), dims, self._maybe_name(type), default)

    def sig(self, span: Span, ins: Any, outs: Any) -> s.Signature:
        return s.Signature(span, ins or (), outs)

    def port(self, span: Span, name: Token, dims: Any, domain: Token | None, default: Any) -> s.Port:
        return s.Port(span, self._name(name), dims, self._maybe_name(domain), default)

    def out(self, span: Span, name: Token | None, dims: Any, domain: Token | None) -> s.Out:
        return s.Out(span, self._maybe_name(name), dims, self._maybe_name(domain))

    # ---- statements

    def body(self, span: Span, *statements: Any) -> s.Body:
        return s.Body(span, self._listed(span, *statements))

    def dimdef(self, span: Span, *bindings: Any) -> s.DimDef:
        return s.DimDef(span, bindings)

    def dimbind(self, span: Span, name: Token, dim: s.Dim) -> s.DimBind:
        return s.DimBind(span, self._name(name), dim)

    def check(self, span: Span, condition: s.Expr, message: Token) -> s.Check:
        return s.Check(span, condition, self._string(message))

    def param(self, span: Span, name: Token, dims: Any, init: s.Expr, condition: Any) -> s.Param:
        return s.Param(span, self._name(name), dims, init, condition)

    def state(self, span: Span, name: Token, dims: Any, init: s.Expr, condition: Any) -> s.State:
        return s.State(span, self._name(name), dims, init, condition)

    def inst(self, span: Span, name: Token, repeat: Any, constructor: Any, condition: Any) -> s.Instance:
        return s.Instance(span, self._name(name), repeat, constructor, condition)

    def rep(self, span: Span, kind: Token, index: Token | None, count: s.Dim) -> s.Repeat:
        return s.Repeat(span, "chain" if kind.text == "chain" else "bank", self._maybe_name(index), count)

    def ctor(self, span: Span, name: s.QName, *rest: Any) -> s.Constructor:
        *dims, args = rest
        return s.Constructor(span, name, self._listed(span, *dims), args or ())

    def ctor_at(self, span: Span, name: Token, dim: s.Dim) -> s.DimBind:
        return s.DimBind(span, self._name(name), dim)

    def init(self, span: Span, paths: Any, value: s.Expr) -> s.Init:
        return s.Init(span, paths, value)

    def adapt(self, span: Span, paths: Any, constructor: s.Constructor) -> s.Adapt:
        return s.Adapt(span, paths, constructor)

    def path(self, span: Span, *steps: Token) -> s.Path:
        return s.Path(span, tuple(self._name(step) for step in steps))

    def assign(self, span: Span, *parts: Any) -> s.Assign:
        *targets, value = parts
        return s.Assign(span, tuple(self._name(target) for target in targets), value)

    def scan(self, span: Span, index: Token, dim: Token, *rest: Any) -> s.Scan:
        *carries, body = rest
        return s.Scan(span, self._name(index), self._name(dim), tuple(carries), body)

    def carry(self, span: Span, name: Token, value: s.Expr) -> s.Carry:
        return s.Carry(span, self._name(name), value)

    def next(self, span: Span, name: Token, value: s.Expr) -> s.Next:
        return s.Next(span, self._name(name), value)

    def emit(self, span: Span, name: Token, value: s.Expr) -> s.Emit:
        return s.Emit(span, self._name(name), value)

    def tap(self, span: Span, name: Token, value: s.Expr) -> s.Tap:
        return s.Tap(span, self._name(name), value)

    def ret(self, span: Span, *values: Any) -> s.Return:
        return s.Return(span, values)

    def sizes(self, span: Span, *parts: Any) -> s.Sizes:
        columns = tuple(part for part in parts if isinstance(part, s.Name))
        return s.Sizes(span, columns, tuple(part for part in parts if isinstance(part, s.SizeRow)))

    def row(self, span: Span, label: s.Name, *cells: Token) -> s.SizeRow:
        return s.SizeRow(span, label, tuple(self._cell(cell) for cell in cells))

    def _cell(self, token: Token) -> s.Cell:
        if token.kind == "NUMBER":
            return s.Number(self._span(token), self._number_value(token), None, token.text)
        if token.kind == "STRING":
            return self._string(token)
        if token.text in _LITERALS:
            return s.Bool(self._span(token), _LITERALS[token.text])
        if token.text == "none":
            return s.NoneLit(self._span(token))
        return s.Ref(self._span(token), token.text)

    # ---- expressions

    def ite(self, span: Span, condition: Any, then: Any, otherwise: Any) -> s.IfThenElse:
        return s.IfThenElse(span, condition, then, otherwise)

    def pipe(self, span: Span, left: Any, right: Any) -> s.Pipe:
        return s.Pipe(span, left, right)

    def or_(self, span: Span, left: Any, right: Any) -> s.BoolOp:
        return s.BoolOp(span, "or", left, right)

    def and_(self, span: Span, left: Any, right: Any) -> s.BoolOp:
        return s.BoolOp(span, "and", left, right)

    def not_(self, span: Span, operand: Any) -> s.Unary:
        return s.Unary(span, "not", operand)

    def minus(self, span: Span, operand: Any) -> s.Unary:
        return s.Unary(span, "-", operand)

    def cmp(self, span: Span, left: Any, op: Token, right: Any) -> s.Compare:
        return s.Compare(span, cast(Any, op.text), left, right, self._span(op))

    def binop(self, span: Span, left: Any, op: Token, right: Any) -> s.Binary:
        return s.Binary(span, cast(Any, op.text), left, right, self._span(op))

    def pow(self, span: Span, left: Any, op: Token, right: Any) -> s.Binary:
        return s.Binary(span, "^", left, right, self._span(op))

    def view(self, span: Span, target: Any, *items: Any) -> s.View:
        return s.View(span, target, self._listed(span, *items))

    def call(self, span: Span, callee: Any, args: Any) -> s.Call:
        return s.Call(span, callee, args or ())

    def member(self, span: Span, target: Any, name: s.Name) -> s.Member:
        return s.Member(span, target, name)

    def ref(self, span: Span, token: Token) -> s.Ref:
        return s.Ref(span, token.text)

    def number(self, span: Span, token: Token, unit: Token | None) -> s.Number:
        return s.Number(span, self._number_value(token), unit.text if unit else None, token.text)

    def string(self, span: Span, token: Token) -> s.String:
        return self._string(token)

    def true(self, span: Span) -> s.Bool:
        return s.Bool(span, True)

    def false(self, span: Span) -> s.Bool:
        return s.Bool(span, False)

    def none(self, span: Span) -> s.NoneLit:
        return s.NoneLit(span)

    def tuple_(self, span: Span, *items: Any) -> s.TupleLit:
        return s.TupleLit(span, items)

    def list_(self, span: Span, *items: Any) -> s.ListLit:
        return s.ListLit(span, self._listed(span, *items))

    def kwarg(self, span: Span, name: Token, value: s.Expr) -> s.KwArg:
        return s.KwArg(span, self._name(name), value)

    def arrow(self, span: Span, source: Any, target: Any) -> s.Arrow:
        return s.Arrow(span, source, target)

    def at(self, span: Span, name: Token, value: s.Expr) -> s.At:
        return s.At(span, self._name(name), value)

    # ---- dims

    def dim_arrow(self, span: Span, source: Any, target: Any) -> s.DimArrow:
        return s.DimArrow(span, source, target)

    def dim_binop(self, span: Span, left: Any, op: Token, right: Any) -> s.DimBinary:
        return s.DimBinary(span, cast(Any, op.text), left, right)

    def dim_ref(self, span: Span, token: Token) -> s.DimRef:
        return s.DimRef(span, token.text)

    def dim_number(self, span: Span, token: Token) -> s.DimNumber:
        return s.DimNumber(span, self._number_value(token), token.text)

    def group(self, span: Span, *parts: Any) -> s.DimGroup:
        return s.DimGroup(span, parts)

    # ---- weight maps

    def weights(self, span: Span, model: Token, size: Any, source: Token, base: Any, *entries: Any) -> s.Weights:
        return s.Weights(span, self._name(model), size, self._string(source), base, self._listed(span, *entries))

    def wbase(self, span: Span, model: Token, size: Any) -> s.WeightBase:
        return s.WeightBase(span, self._name(model), size)

    def wfor(self, span: Span, index: Token, dim: s.Dim, *entries: Any) -> s.WeightFor:
        return s.WeightFor(span, self._name(index), dim, self._listed(span, *entries))

    def wskip(self, span: Span, pattern: Token) -> s.WeightSkip:
        return s.WeightSkip(span, self._string(pattern))

    def wmap(self, span: Span, name: Token, layout: Any, source: Any, condition: Any) -> s.WeightMap:
        return self._weight_map(span, name, layout, source, condition, tied=False)

    def wtied(self, span: Span, name: Token, layout: Any, source: Any, condition: Any) -> s.WeightMap:
        return self._weight_map(span, name, layout, source, condition, tied=True)

    def _weight_map(
        self, span: Span, name: Token, layout: Any, source: Any, condition: s.Expr | None, *, tied: bool
    ) -> s.WeightMap:
        paths = (source,) if isinstance(source, s.WeightPath) else source
        return s.WeightMap(span, self._string(name), layout, paths, tied, condition)

    def wconfig(self, span: Span, entries: Any) -> s.WeightConfig:
        return s.WeightConfig(span, entries)

    wpaths = _listed

    def wpath(self, span: Span, root: Token, *steps: Any) -> s.WeightPath:
        return s.WeightPath(span, self._name(root), steps)

    def wstep(self, span: Span, step: Any) -> s.Name | s.WeightIndex:
        return self._name(step) if isinstance(step, Token) else s.WeightIndex(span, step)

    # ---- records

    def record(self, span: Span, kind: Token, name: Token, base: Token | None, entries: Any) -> s.Record:
        return s.Record(span, self._name(kind), self._name(name), self._maybe_name(base), entries)

    rbody = _listed

    def rsep(self, span: Span) -> None:
        return None

    def rset(self, span: Span, key: s.Name | s.String, value: s.Expr) -> s.RecordSet:
        return s.RecordSet(span, key, value)

    def rsub(self, span: Span, key: Token, argument: Any, entries: Any) -> s.RecordSub:
        return s.RecordSub(span, self._name(key), argument, entries)

    def rkey(self, span: Span, token: Token) -> s.Name | s.String:
        return self._string(token) if token.kind == "STRING" else self._name(token)
