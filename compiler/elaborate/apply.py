"""Functions of a spec applied by name, for passes: optimizers, schedules.

The nodes are written with the pass's own `Build`; the bodies of kernel functions are put where the pass keeps them. One
`Functions` serves a whole pass, so that a body is elaborated once for all parameters that are alike.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ..base.diagnostic import Diagnostic, SpecError, did_you_mean
from ..ir.graph import Graph
from ..ir.types import DType, Use
from ..language import syntax as s
from ..ops.definition import Build
from .frame import Arguments, Budget, Context, Fault, Frame
from .load import Module, Spec
from .models import RULES
from .values import Function, Value
from .writer import BuildWriter


@dataclass
class Functions:
    """The functions that a spec's main file sees. Applied as `f(build, bodies, name, operands, options)`."""

    spec: Spec
    context: Context = field(init=False)

    def __post_init__(self) -> None:
        self.context = Context(self.spec, RULES, training=True, dtype=DType.F32)

    def __call__(
        self, build: Build, bodies: dict[str, Graph], name: str, operands: Sequence[Use], options: Mapping[str, Value]
    ) -> tuple[Use, ...]:
        """The function's results. Operands go to its arguments in order, options by name. Raises SpecError."""
        self.context.budget = Budget()
        decl, module = self._find(name)
        for use in operands:
            for dim in use.dims:
                self.context.dims.claim(dim.name)
        frame = Frame(self.context, BuildWriter(build, self.context.dims, bodies), module, f"fn {name}")
        span = decl.name.span
        args = Arguments(tuple((use, span) for use in operands), {key: (value, span) for key, value in options.items()})
        try:
            value = RULES.function(frame, Function(decl, module), args, span, None)
        except Fault:
            raise SpecError(self.context.sink.items) from None
        results = value if isinstance(value, tuple) else (value,)
        uses = tuple(part for part in results if isinstance(part, Use))
        if len(uses) != len(results):
            title = f"`{name}` lacks an argument or gives no tensor"
            frame.report("E0302", title, span)
            raise SpecError(self.context.sink.items)
        return uses

    def _find(self, name: str) -> tuple[s.Fn, Module]:
        found = self.spec.main.find(name)
        if len(found) != 1 or not isinstance(found[0][0], s.Fn):
            names = self.spec.main.visible()
            raise SpecError(Diagnostic("E0101", f"there is no function `{name}`", hint=did_you_mean(name, names)))
        return found[0][0], found[0][1]


def call_function(
    spec: Spec, build: Build, bodies: dict[str, Graph], name: str, operands: Sequence[Use], options: Mapping[str, Value]
) -> tuple[Use, ...]:
    """One application; see `Functions`."""
    return Functions(spec)(build, bodies, name, operands, options)
