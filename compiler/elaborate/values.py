"""What a name may stand for while a spec is elaborated.

Numbers, booleans and texts are Python's own and are folded at once; a tensor is an edge of the graph (`Use`).
Functions, blocks' instances and initialisers are values of the compile time alone. `UNKNOWN` is the value of something
that was already reported: whatever reads it stays silent.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias, Union

from ..base.span import Span
from ..ir.types import Attr, Dim, Dims, Use
from ..language import syntax as s
from .load import Module


@dataclass(frozen=True, slots=True)
class Unknown:
    """The result of something faulty."""


@dataclass(frozen=True, slots=True)
class Absent:
    """A parameter or an instance whose `when` is false."""

    name: str
    condition: Span


@dataclass(frozen=True, slots=True, eq=False)
class Function:
    """A function of a spec with some of its dims and arguments bound: `rotary`, `rotary(base = 5e5)`, `mask[T, S]`."""

    decl: s.Fn
    module: Module
    dims: Mapping[str, Dims] | None = None
    args: Mapping[str, Value] = field(default_factory=dict[str, "Value"])

    @property
    def name(self) -> str:
        return self.decl.name.text


@dataclass(frozen=True, slots=True)
class Primitive:
    """A function of the language itself: `tanh`, `dot`."""

    name: str


@dataclass(frozen=True, slots=True)
class Initialiser:
    """How a parameter begins: `normal(0.02)`."""

    kind: str
    args: tuple[float, ...] = ()

    @property
    def attr(self) -> Attr:
        return (self.kind, *self.args)


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter to be: its path is its id."""

    path: str
    dims: Dims
    init: Initialiser
    span: Span


@dataclass(frozen=True, slots=True)
class Extension:
    """Statements that a derived model runs when its base has returned."""

    module: Module
    title: str
    statements: tuple[s.Statement, ...]


@dataclass(slots=True, eq=False)
class Instance:
    """A block made: it owns parameters and instances; applying it twice shares them.

    dims      what the formals and the locals of its sizes stand for inside
    boundary  inner dim -> the maker's dim, where they differ (Linear[D, D])
    adapter   the block that sees what this one took and gave
    bank      dims that every parameter carries in front
    later     statements that need what only a call binds
    extensions  what derived models add to them, the innermost first
    """

    decl: s.Block | s.Model
    module: Module
    path: str
    made: Span
    names: dict[str, Value] = field(default_factory=dict[str, "Value"])
    dims: dict[str, Dims] = field(default_factory=dict[str, Dims])
    boundary: dict[Dim, Dim] = field(default_factory=dict[Dim, Dim])
    bank: Dims = ()
    parameters: list[Parameter] = field(default_factory=list[Parameter])
    states: list[Parameter] = field(default_factory=list[Parameter])
    later: list[s.Statement] = field(default_factory=list[s.Statement])
    adapter: Instance | None = None
    extensions: list[Extension] = field(default_factory=list[Extension])

    @property
    def name(self) -> str:
        return self.decl.name.text

    @property
    def is_root(self) -> bool:
        """Whether this is the model that is elaborated, and not one within it."""
        return isinstance(self.decl, s.Model) and not self.path


@dataclass(slots=True, eq=False)
class Chain:
    """`chain L of Block`: layer k is made like `templates[kinds[k]]`, which stands where the first of its kind does.

    make     makes the template of a layer that is to be unlike its kind from now on
    is_bank  `bank e in E of Block`: members side by side, each made for itself
    """

    path: str
    dim: Dim
    templates: list[Instance]
    kinds: list[int]
    make: Callable[[int], Instance] = field(compare=False, repr=False)
    is_bank: bool = False

    @property
    def name(self) -> str:
        return f"{'bank' if self.is_bank else 'chain'} {self.dim} of {self.templates[0].name}"


UNKNOWN = Unknown()

Scalar: TypeAlias = bool | int | float
Value: TypeAlias = Union[  # noqa: UP007
    bool, int, float, str, Use, Function, Primitive, Instance, Chain, Initialiser, Absent, Unknown,
    tuple["Value", ...], None,
]  # fmt: skip


def is_number(value: object) -> bool:
    """Whether a value is a number of the compile time; booleans are not."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def is_free(value: Value) -> bool:
    """Whether a value is a number that free sizes leave open until they are known; so it seems while probing."""
    return isinstance(value, Use) and not value.dims


def describe(value: Value) -> str:
    """What a value is, in a message."""
    if isinstance(value, Use):
        return f"a tensor {show_dims(value.dims)}"
    if isinstance(value, Function | Primitive):
        return f"the function `{value.name}`"
    if isinstance(value, Instance | Chain):
        return f"an instance of {value.name}"
    if isinstance(value, tuple):
        return f"{len(value)} values"
    if isinstance(value, Initialiser):
        return f"the initialiser `{value.kind}`"
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "none"}[value]
    return f"the text {value!r}" if isinstance(value, str) else f"the number {value}" if is_number(value) else "nothing"


def show_dims(dims: Dims) -> str:
    """`[T, D = 768]`: names and, where they are known, sizes."""
    return "[" + ", ".join(str(d) if d.size is None else f"{d.name} = {d.size}" for d in dims) + "]"


def function_text(value: Value) -> str | None:
    """A function option as an attribute's text: `causal`, `sliding(width = 9)`; None if it holds a tensor or dims."""
    if isinstance(value, Primitive):
        return value.name
    if not isinstance(value, Function) or value.dims is not None:
        return None
    parts = [(name, _option_text(arg)) for name, arg in value.args.items()]
    if any(text is None for _, text in parts):
        return None
    options = ", ".join(f"{name} = {text}" for name, text in parts)
    return f"{value.name}({options})" if options else value.name


def _option_text(value: Value) -> str | None:
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "none"}[value]
    if isinstance(value, int | float):
        return repr(value)
    return f'"{value}"' if isinstance(value, str) else function_text(value)
