"""Which value of a run was the first that is not finite: the run again, with every result looked at.

In: a call that runs generated modules. Out: the line of the module that made the value, which names its node and place
in the spec. An infinity that a program writes down itself (a mask) is none; one that came from finite operands is.
"""

from __future__ import annotations

import inspect
import linecache
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

aten = torch.ops.aten
MODULES = "partita_build."

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


class _Found(Exception):
    def __init__(self, bad: Bad) -> None:
        super().__init__(str(bad))
        self.bad = bad


def first_bad(call: Callable[[], object]) -> Bad | None:
    """Runs the call until a value is NaN, or infinite though its operands are finite; None if none is."""
    try:
        with _Watch():
            call()
    except _Found as found:
        return found.bad
    return None


class _Watch(TorchDispatchMode):
    """Looks at what every operator gives; operands are those before it, which it may write over."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        finite = all(bool(torch.isfinite(one).all()) for one in _floats((args, kwargs or {})))
        result = func(*args, **(kwargs or {}))
        for tensor in _floats(result):
            kind = _kind(tensor, finite and func.overloadpacket not in _WRITTEN)
            if kind is not None:
                raise _Found(_place(kind, str(func)))
        return result


def _kind(tensor: torch.Tensor, finite: bool) -> str | None:
    if bool(torch.isnan(tensor).any()):
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
