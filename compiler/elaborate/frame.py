"""The state of an elaboration: one `Context` for the run, one `Frame` for each body that is being read.

A frame holds the names and dims of one function, block or model, where it writes, and the calls that led there. Rules
stand in files of their own and reach each other through the context's `Rules`, so that the files do not import in
circles. A fault is reported once and then thrown as `Fault`, which the next statement's reader catches.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ..base.diagnostic import Diagnostic, Diagnostics, Label, SpecError
from ..base.span import Span
from ..ir.types import Attr, Dim, Dims, DType, Layer, Origin, Use
from ..language import syntax as s
from ..ops.definition import TypeRuleError
from .load import Module, Spec
from .trace import Trace
from .values import Absent, Chain, Function, Instance, Value, show_dims
from .writer import DimNames, Output, Place, ScaledDims

MAX_STEPS = 40_000  # of about 10 us each: what an answer within a second can afford
MAX_NODES = 60_000
MAX_DEPTH = 120  # expressions and calls within each other
STEPS_OF_A_NODE = 4  # what it costs to write one, in expressions evaluated
STEPS_OF_AN_APPLICATION = 10  # of a block or a function


class Fault(Exception):
    """Something was reported; what depends on it is skipped."""


@dataclass(frozen=True, slots=True)
class Arguments:
    """What stands in the parentheses of a call, evaluated: (value, where) each."""

    positional: tuple[tuple[Value, Span], ...] = ()
    named: Mapping[str, tuple[Value, Span]] = field(default_factory=dict[str, "tuple[Value, Span]"])


Evaluate = Callable[["Frame", Any, str | None], Value]
CallFunction = Callable[["Frame", Function, Arguments, Span, str | None], Value]
CallInstance = Callable[["Frame", "Instance | Chain", tuple[s.ViewItem, ...], Arguments, Span], Value]
CallPrimitive = Callable[["Frame", str, tuple[s.ViewItem, ...] | None, Arguments, Span, str | None], Value]
ReadScan = Callable[["Frame", s.Scan], None]
Make = Callable[["Frame", s.Instance], "Instance | Chain | Absent"]


@dataclass(frozen=True, slots=True)
class Rules:
    """How each kind of expression is evaluated, and how each kind of value is applied."""

    expressions: Mapping[type[s.Node], Evaluate]
    function: CallFunction
    instance: CallInstance
    primitive: CallPrimitive
    make: Make
    scan: ReadScan
    primitives: frozenset[str]


@dataclass(slots=True)
class Budget:
    """What a run has spent. Several elaborations of one run share it: a hostile spec has many models."""

    steps: int = 0
    nodes: int = 0

    @property
    def exhausted(self) -> bool:
        return self.steps > MAX_STEPS or self.nodes > MAX_NODES


@dataclass(slots=True)
class Context:
    """What one elaboration shares."""

    spec: Spec
    rules: Rules
    training: bool
    dtype: DType
    probing: bool = False  # a block is looked at without sizes: what only sizes decide is let through
    sink: Diagnostics = field(default_factory=Diagnostics)
    dims: DimNames = field(default_factory=DimNames)
    scaled: ScaledDims = field(default_factory=ScaledDims)
    inits: list[tuple[s.Path, tuple[str, ...], Value, Frame]] = field(default_factory=list[Any])
    kernels: dict[Any, Any] = field(default_factory=dict[Any, Any])  # kernels.py's memory of bodies
    meetings: dict[str, tuple[Span, Dims, Dims]] = field(default_factory=dict[str, "tuple[Span, Dims, Dims]"])
    made: set[int] = field(default_factory=set[int])  # ids of the blocks and functions in use
    making: list[s.Block | s.Model] = field(default_factory=list[Any])  # what is being made, outermost first
    states: set[str] = field(default_factory=set[str])  # ids of the states that blocks declare
    advanced: set[str] = field(default_factory=set[str])  # ids of the states that `next` has changed
    budget: Budget = field(default_factory=Budget)
    trace: Trace | None = None
    ragged: str | None = None  # the tokens' axis, where rows hold documents of several lengths
    depth: int = 0

    def spend(self, frame: Frame, span: Span, steps: int = 1) -> None:
        """Count an expression; hostile specs end here."""
        self.budget.steps += steps
        if self.budget.steps > MAX_STEPS:
            frame.report("E0311", "the spec grows without end", span, f"after {MAX_STEPS:,} steps still here")
            raise SpecError(self.sink.items)

    def spend_nodes(self, frame: Frame, count: int, span: Span) -> None:
        """Count nodes before they are made."""
        self.budget.nodes += count
        if self.budget.nodes > MAX_NODES:
            title = f"the model has more than {MAX_NODES:,} operators"
            frame.report("E0311", title, span, f"{count:,} of them are made here")
            raise SpecError(self.sink.items)


@dataclass(frozen=True, slots=True)
class CallSite:
    """A call or constructor that led to a frame."""

    span: Span
    in_std: bool
    what: str


@dataclass(slots=True)
class Loop:
    """What the body of a scan says: what comes next, by carry, and what is emitted."""

    carries: frozenset[str]
    dim: Dim
    index: str = ""  # the placeholder that the scan's index is
    nexts: dict[str, tuple[Use, Span]] = field(default_factory=dict[str, "tuple[Use, Span]"])
    emits: dict[str, Use] = field(default_factory=dict[str, Use])
    broken: bool = False  # a statement of it was reported


@dataclass(slots=True)
class Frame:
    """One body being read.

    title    what it is, for messages: "block Attention"
    names    options, tensors, instances
    dims     what each dim's name stands for here
    carried  axes that values bring along and that cannot be named
    calls    how this was reached, innermost first; origins: the same as places
    open     every axis may be named and reduced: true of a recipe's loss
    loop     the scan whose body this is
    """

    context: Context
    output: Output
    module: Module
    title: str
    path: str = ""
    names: dict[str, Value] = field(default_factory=dict[str, "Value"])
    dims: dict[str, Dims] = field(default_factory=dict[str, Dims])
    carried: list[Dim] = field(default_factory=list[Dim])
    unnamed: dict[s.Node, Dim] = field(default_factory=dict[s.Node, Dim])
    calls: tuple[CallSite, ...] = ()
    origins: tuple[Origin, ...] = ()
    bank: Dims = ()
    layer: Layer | None = None
    open: bool = False
    loop: Loop | None = None

    def inside(self, module: Module, title: str, span: Span, **changes: Any) -> Frame:
        """A frame for what is called or made at a place of this one; names and dims start empty."""
        calls = (CallSite(span, self.module.is_std, self.title), *self.calls)
        origins = (_origin(span), *self.origins)
        fresh: dict[str, Any] = {"names": {}, "dims": {}, "carried": [], "unnamed": {}, "open": False, "loop": None}
        fresh.update(changes)
        return replace(self, module=module, title=title, calls=calls, origins=origins, **fresh)

    # ---- evaluation

    def evaluate(self, expr: s.Node, hint: str | None = None) -> Value:
        """The value of an expression. Raises Fault if it has none."""
        context = self.context
        context.spend(self, expr.span)
        context.depth += 1
        try:
            if context.depth > MAX_DEPTH:
                self.report("E0311", f"calls and expressions are nested more than {MAX_DEPTH} deep", expr.span)
                raise SpecError(context.sink.items)
            rule = context.rules.expressions[type(expr)]
            if context.trace is not None:
                return context.trace.watched(self, expr.span, lambda: rule(self, expr, hint))
            return rule(self, expr, hint)
        finally:
            context.depth -= 1

    def note(self, span: Span, value: Value) -> None:
        """Tell an editor, if one listens, what a declaration or a port turned out to be."""
        if self.context.trace is not None:
            self.context.trace.note(self, span, value)

    # ---- nodes

    def emit(
        self, op: str, *uses: Use, span: Span, hint: str | None = None, body: str | None = None, **attrs: Attr
    ) -> tuple[Use, ...]:
        """Write a node. Operands that do not fit are reported."""
        self.context.spend(self, span, STEPS_OF_A_NODE)
        self.context.spend_nodes(self, 1, span)
        try:
            return self.output.write(op, uses, attrs, hint, body, self.place(span))
        except TypeRuleError as error:
            found = " and ".join(show_dims(dims) for dims in error.found) or None
            raise self.fault("E0210", error.message, span, found=found) from None

    def emit1(self, op: str, *uses: Use, span: Span, hint: str | None = None, **attrs: Attr) -> Use:
        """Write a node that has one result."""
        (use,) = self.emit(op, *uses, span=span, hint=hint, body=None, **attrs)
        return use

    def place(self, span: Span) -> Place:
        return Place(self.path, (_origin(span), *self.origins), self.layer)

    # ---- faults

    def report(self, code: str, title: str, span: Span, text: str = "", **more: Any) -> None:
        """Add a diagnostic; one inside std also shows the place outside that led there."""
        others: Sequence[Label] = more.pop("others", ())
        labels = [Label(span, text), *others]
        caller = next((call for call in self.calls if not call.in_std), None)
        if self.module.is_std and caller is not None:
            labels.append(Label(caller.span, "from here"))
        self.context.sink.add(Diagnostic(code, title, tuple(labels), **more))
        if self.context.sink.full:
            raise SpecError(self.context.sink.items)

    def fault(self, code: str, title: str, span: Span, text: str = "", **more: Any) -> Fault:
        """Report, and give what to raise."""
        self.report(code, title, span, text, **more)
        return Fault()


def _origin(span: Span) -> Origin:
    return Origin(span.source.path, span.line)
