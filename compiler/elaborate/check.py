"""Everything that is wrong with a spec, without building anything from it.

Each model of the main file is elaborated with the first row of its sizes, and made with every other row (so that the
`check`s of its blocks see them); what no model makes or applies is looked at without sizes; each recipe's loss is
elaborated on its model. Several faults are reported in one run. What only records and weight maps need is loaded where
a spec has some: the answer is awaited.
"""

from __future__ import annotations

from dataclasses import replace

from ..base.diagnostic import Diagnostic, Diagnostics, SpecError
from ..base.span import Source
from ..language import syntax as s
from .frame import Budget
from .load import Search, Spec, load
from .models import Request, make_model, open_model
from .probe import probe, probe_function


def check_text(text: str, path: str, search: Search | None = None) -> tuple[Diagnostic, ...]:
    """The diagnostics of a text that goes by a path (beside which it finds what it uses)."""
    spec, found = load(Source(path, text), search)
    return tuple(found) if spec is None else (*found, *check_spec(spec))


def check_spec(spec: Spec) -> tuple[Diagnostic, ...]:
    """The diagnostics of a spec that could be read."""
    sink, budget = Diagnostics(), Budget()
    made: set[int] = set()
    for decl in spec.main.own.values():
        if isinstance(decl, s.Model | s.Derived) and not budget.exhausted:
            made |= _check_model(spec, decl.name.text, sink, budget)
    if not sink.errors:
        for decl in spec.main.own.values():
            if budget.exhausted:
                break
            if isinstance(decl, s.Block) and id(decl) not in made:
                sink.extend(probe(spec, decl, budget))
            elif isinstance(decl, s.Fn) and id(decl) not in made:
                sink.extend(probe_function(spec, decl, budget))
        _check_weights(spec, sink, budget)
    if spec.records:
        _check_records(spec, sink, budget)
    return tuple(sink)


def _check_weights(spec: Spec, sink: Diagnostics, budget: Budget) -> None:
    if any(isinstance(decl, s.Weights) for decl in spec.main.file.declarations):
        from .weights import check_weights

        check_weights(spec, sink, budget)


def _check_records(spec: Spec, sink: Diagnostics, budget: Budget) -> None:
    from .recipes import check_records

    check_records(spec, sink)
    if not sink.errors:
        own = {id(decl) for decl in spec.main.file.declarations}
        for (kind, name), record in spec.records.items():
            if kind == "train" and id(record) in own and not budget.exhausted:
                _check_loss(spec, name, sink, budget)


def _check_model(spec: Spec, name: str, sink: Diagnostics, budget: Budget) -> set[int]:
    """Adds what is wrong; gives the blocks that the model makes."""
    request = Request(training=True, budget=budget)
    try:
        opened = open_model(spec, name, request)
        for size in opened.sizes[1:]:
            make_model(spec, name, replace(request, size=size))
    except SpecError as error:
        sink.extend(error.diagnostics)
        return set()
    return opened.context.made


def _check_loss(spec: Spec, name: str, sink: Diagnostics, budget: Budget) -> None:
    from .loss import elaborate_loss
    from .recipes import load_recipe

    try:
        for turn in load_recipe(spec, name).turns:
            elaborate_loss(spec, turn, budget=budget)
    except SpecError as error:
        sink.extend(error.diagnostics)
