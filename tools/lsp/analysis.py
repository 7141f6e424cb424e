"""One state of a text: what is wrong with it, its tree and, when asked for, what each expression turned out to be.

In: a source and where it finds what it uses. Out: an `Analysis`, from which hover, definition and completion answer.
Half-typed text has a tree as far as it could be read; its models are elaborated as far as they go.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property

from ...compiler.base.diagnostic import Diagnostic, SpecError
from ...compiler.base.span import Source
from ...compiler.elaborate.check import check_spec
from ...compiler.elaborate.frame import Budget
from ...compiler.elaborate.load import Module, Search, Spec, load, std_parsed
from ...compiler.elaborate.loss import elaborate_loss
from ...compiler.elaborate.models import Request, elaborate_model, open_model
from ...compiler.elaborate.probe import probe, probe_function
from ...compiler.elaborate.recipes import load_recipe
from ...compiler.elaborate.trace import Trace
from ...compiler.language import syntax as s
from ...compiler.language.parse import parse
from ..specs import default_size

WORD = re.compile(r"[A-Za-z_]\w*")
Body = s.Fn | s.Block | s.Model | s.Derived


@dataclass(frozen=True)
class Analysis:
    """A text as it stands. `spec` is None where it, or what it uses, cannot be read."""

    source: Source
    spec: Spec | None
    diagnostics: tuple[Diagnostic, ...]

    @cached_property
    def file(self) -> s.File:
        """The tree, as far as the text could be read."""
        return self.spec.main.file if self.spec is not None else parse(self.source).file

    @cached_property
    def traced(self) -> tuple[Trace, dict[str, int]]:
        """What was seen in the text's models, functions, blocks and losses; and the sizes that nobody said."""
        trace, assumed = Trace(), dict[str, int]()
        if self.spec is not None:
            _look(self.spec, trace, assumed)
        return trace, assumed

    @property
    def trace(self) -> Trace:
        return self.traced[0]

    def declared(self) -> Iterator[Body | s.Record]:
        """Every declaration that the text can name: its own, then those of the files that it uses and of std."""
        modules = self.spec.modules if self.spec is not None else ()
        files = [self.file, *(module.file for module in modules[1:] if not module.is_std)]
        std = [parsed.file for parsed in std_parsed()] if self.uses_std else []
        for file in (*files, *std):
            yield from (decl for decl in file.declarations if isinstance(decl, Body | s.Record))

    @property
    def uses_std(self) -> bool:
        return any(isinstance(decl, s.Use) and decl.name.text == "std" for decl in self.file.declarations)

    def find(self, name: str) -> Body | None:
        """A function, block or model by the name that the text calls it."""
        last = name.rpartition(".")[2]
        return next((decl for decl in self.declared() if isinstance(decl, Body) and decl.name.text == last), None)

    def enclosing(self, offset: int) -> Body | s.Record | None:
        """The declaration that an offset lies in; for half-typed text the last one that begins before it."""
        before = [d for d in self.file.declarations if isinstance(d, Body | s.Record) and d.span.start <= offset]
        return before[-1] if before else None

    def path(self, offset: int) -> tuple[s.Node, ...]:
        """The nodes that an offset lies in, the outermost first."""
        found: list[s.Node] = [self.file]
        while True:
            inner = [node for node in s.children(found[-1]) if node.span.start <= offset <= node.span.end]
            if not inner or inner[-1] is found[-1]:
                return tuple(found)
            found.append(min(inner, key=lambda node: node.span.end - node.span.start))

    def word(self, offset: int) -> str:
        """The name that an offset lies in or behind."""
        line = self.source.position(offset)[0]
        start = self.source.line_starts[line - 1]
        words = WORD.finditer(self.source.line(line))
        return next((w[0] for w in words if start + w.start() <= offset <= start + w.end()), "")


def analyse(source: Source, search: Search | None = None) -> Analysis:
    """Reads and checks a text."""
    spec, found = load(source, search)
    return Analysis(source, spec, tuple(found) if spec is None else (*found, *check_spec(spec)))


# ---- elaborating with a trace


def _look(spec: Spec, trace: Trace, assumed: dict[str, int]) -> None:
    """The losses of recipes first: their sizes are those that are meant."""
    budget = Budget()
    own = spec.main.file.declarations
    for decl in own:
        with suppress(SpecError):
            if isinstance(decl, s.Record) and decl.kind.text == "train":
                elaborate_loss(spec, load_recipe(spec, decl.name.text), budget=budget, trace=trace)
    for decl in own:
        with suppress(SpecError):
            if isinstance(decl, s.Model | s.Derived):
                _look_at_model(spec, decl.name.text, trace, assumed, budget)
    for decl in own:
        if isinstance(decl, s.Block):
            list(probe(spec, decl, budget, trace))
        elif isinstance(decl, s.Fn):
            list(probe_function(spec, decl, budget, trace))


def _look_at_model(spec: Spec, name: str, trace: Trace, assumed: dict[str, int], budget: Budget) -> None:
    """With every free dim at the size that `partita show` gives it, so that everything can be counted."""
    dims: dict[str, int] = {}
    with suppress(SpecError):
        _, facts = elaborate_model(spec, name)
        dims = {dim: default_size(dim, facts) for dim, value in facts.dims.items() if value.size is None}
    assumed.update(dims)
    open_model(spec, name, Request(dims=dims, training=True, budget=budget, trace=trace))


# ---- names


@dataclass(frozen=True, slots=True)
class Local:
    """A name that a declaration makes, and what it is: `dim`, `input`, `option`, `value`, `instance`, `parameter`."""

    name: s.Name
    kind: str
    node: s.Node


def locals_of(decl: s.Node) -> Iterator[Local]:
    """The names within a declaration, in the order of the text."""
    for node in s.walk(decl):
        match node:
            case s.Formal(name=name):
                yield Local(name, "dim", node)
            case s.DimBind(name=name):
                yield Local(name, "dim", node)
            case s.Option(name=name):
                yield Local(name, "option", node)
            case s.Port(name=name, dims=dims):
                yield Local(name, "input", node)
                refs = (part for dim in dims or () for part in s.walk(dim) if isinstance(part, s.DimRef))
                yield from (Local(s.Name(ref.span, ref.name), "dim", node) for ref in refs)
            case s.Sizes(columns=columns):
                yield from (Local(column, "dim", node) for column in columns)
            case s.Instance(name=name):
                yield Local(name, "instance", node)
            case s.Param(name=name) | s.State(name=name):
                yield Local(name, "parameter", node)
            case s.Assign(targets=targets):
                yield from (Local(target, "value", node) for target in targets)
            case s.Tap(name=name) | s.Emit(name=name) | s.Carry(name=name):
                yield Local(name, "value", node)
            case s.Scan(index=index):
                yield Local(index, "value", node)
            case _:
                pass


__all__ = ["Analysis", "Local", "Module", "analyse", "locals_of"]
