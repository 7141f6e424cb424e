"""Models made of others: `model Wide = GPT2.small[D = 1024](drop = 0) { … }`.

In: the name of a model as it is written somewhere. Out: the model at the bottom, the derived ones above it, the row of
sizes that the way there names. A derived body adds to its base: a table of sizes replaces the base's; dims, checks,
parameters, instances, `init` and `adapt` come after the base's; statements run when the base has returned, see all its
names and what it returned under the names of its signature; `return` replaces that.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TypeAlias

from ..base.diagnostic import Diagnostic, SpecError
from ..language import syntax as s
from .adapt import adapt
from .blocks import declarations
from .frame import Frame
from .load import Module
from .values import Extension, Instance

Layers: TypeAlias = list[tuple[s.Derived, Module]]


@dataclass(frozen=True, slots=True)
class Named:
    """A model that a name leads to. `missing` is the base that was not found, written in the last of `layers`."""

    decl: s.Model | None
    module: Module
    layers: Layers
    row: str | None
    missing: str = ""

    @property
    def sized(self) -> s.Model | s.Derived:
        """Whose table of sizes counts: the outermost that has one."""
        assert self.decl is not None, "a model that was found"
        tables = (derived for derived, _ in self.layers if _has_sizes(derived))
        return next(tables, self.decl)

    @property
    def name(self) -> s.Name:
        assert self.decl is not None, "a model that was found"
        return self.layers[0][0].name if self.layers else self.decl.name


def _has_sizes(decl: s.Derived) -> bool:
    return any(isinstance(statement, s.Sizes) for statement in decl.body.statements)


def named(module: Module, name: s.QName) -> Named | None:
    """What `GPT2`, `GPT2.small` or `file.GPT2` means in a file, if it is a model. Raises SpecError for a circle."""
    parts = [part.text for part in name.parts]
    used = module.used(parts[0]) if len(parts) == 2 else None
    if used is not None and _model(used, parts[1]) is not None:
        return _resolved(used, parts[1], None)
    if _model(module, parts[0]) is None or len(parts) > 2:
        return None
    return _resolved(module, parts[0], parts[1] if len(parts) == 2 else None)


def _model(module: Module, name: str) -> tuple[s.Model | s.Derived, Module] | None:
    found = ((decl, home) for decl, home in module.find(name) if isinstance(decl, s.Model | s.Derived))
    return next(found, None)


def _resolved(module: Module, name: str, row: str | None) -> Named:
    layers: Layers = []
    sized = False
    decl, module = _model(module, name) or (None, module)
    while isinstance(decl, s.Derived):
        if any(decl is known for known, _ in layers):
            raise SpecError(Diagnostic("E0312", f"{name} is derived from itself"))
        layers.append((decl, module))
        sized = sized or _has_sizes(decl)  # from here on, a row would be one of another table
        parts = [part.text for part in decl.base.name.parts]
        home = module.used(parts[0]) if len(parts) == 2 else None
        below = _model(home, parts[1]) if home is not None else None
        if below is None:
            below = _model(module, parts[0])
            row = row or (parts[1] if len(parts) == 2 and not sized else None)
        if below is None:
            return Named(None, module, layers, row, parts[0])
        decl, module = below
    return Named(decl, module, layers, row, "" if decl is not None else name)


def extend(frame: Frame, derived: s.Derived, home: Module, instance: Instance) -> None:
    """Read a derived body into its base's instance, whose frame this is."""
    base = [instance.decl.body.statements, *(more.statements for more in instance.extensions)]
    late = {name.text for body in base for st in body if isinstance(st, s.Assign) for name in st.targets}
    title = f"model {derived.name}"
    own = replace(frame, module=home, title=title)
    kept: list[s.Statement] = []
    for statement in declarations(own, instance, derived.body, late):
        if isinstance(statement, s.Adapt):
            adapt(own, statement, instance)
        else:
            kept.append(statement)
    if kept:
        instance.extensions.append(Extension(home, title, tuple(kept)))
