"""Which value of a run was the first that is not finite: the run again, with every result looked at.

In: generated modules that run within a `Watch`. Out: the line of the module that made the value, which names its node
and place in the spec. An infinity that a program writes down itself (a mask) is none; one from finite operands is, and
NaN from operands without.
"""

from __future__ import annotations

import inspect
import linecache
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

aten = torch.ops.aten
MODULES = "partita_build."

# What they give holds whatever the memory held.
_EMPTY = frozenset({aten.empty, aten.empty_like, aten.empty_strided, aten.new_empty, aten.new_empty_strided})
# They write infinities that somebody asked for.
_WRITTEN = frozenset(
    {aten.masked_fill, aten.masked_fill_, aten.full, aten.fill_, aten.where, aten.constant_pad_nd, aten.scalar_tensor}
)


@dataclass(frozen=True, slots=True)
class Bad:
    """A value that is not finite: the statement that made it, and what it is (`origin` names spec line and node)."""

    module: str
    line: int
    statement: str
    origin: str
    kind: str

    def __str__(self) -> str:
        return f"the first value that is {self.kind} is {self.origin or self.statement} ({self.module}.py:{self.line})"


class Watch(TorchDispatchMode):
    """Looks at what every operator gives, until something is NaN or infinite though nothing that it was given is so.

    `bad` is that value, `order` how many operators had run. Operands are looked at before an operator runs, which may
    write over them; what collectives send is looked at where it is computed.
    """

    def __init__(self) -> None:
        super().__init__()
        self.bad: Bad | None = None
        self.order = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        packet = func.overloadpacket
        if self.bad is not None or func.namespace == "c10d":
            return func(*args, **(kwargs or {}))
        self.order += 1
        into = {argument.name for argument in func._schema.arguments if argument.is_out}  # whatever is there
        given = list(_floats((args, {key: value for key, value in (kwargs or {}).items() if key not in into})))
        numbers = not any(bool(torch.isnan(one).any()) for one in given)
        finite = numbers and not any(bool(torch.isinf(one).any()) for one in given)
        result = func(*args, **(kwargs or {}))
        for tensor in _floats(result):
            kind = _kind(tensor, numbers, finite and packet not in _WRITTEN)
            if kind is not None and self.bad is None and packet not in _EMPTY:
                self.bad = _place(kind, str(func))
        return result


def _kind(tensor: torch.Tensor, numbers: bool, finite: bool) -> str | None:
    """What is wrong with a result, whose operands hold no NaN (`numbers`) or are even finite."""
    if numbers and bool(torch.isnan(tensor).any()):
        return "NaN"
    return "infinite" if finite and bool(torch.isinf(tensor).any()) else None


def _floats(value: Any) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        if value.is_floating_point() and value.numel():
            yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _floats(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _floats(item)


def _place(kind: str, operator: str) -> Bad:
    """The statement of a generated module that is running now."""
    frame = inspect.currentframe()
    while frame is not None:
        name = str(frame.f_globals.get("__name__", ""))
        if name.startswith(MODULES):
            text = linecache.getline(frame.f_code.co_filename, frame.f_lineno, frame.f_globals).strip()
            statement, _, origin = text.partition("  # ")
            return Bad(name.removeprefix(MODULES), frame.f_lineno, statement, origin, kind)
        frame = frame.f_back
    return Bad("", 0, operator, "", kind)
