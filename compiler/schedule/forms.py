"""Which schedule, as people write it: `gpipe`, `1f1b`, `interleaved(2)`, `zero_bubble`, `zero_bubble_v`, `list(2)`,
`token_slices(4)`, `token_slices(1024, 640, 384)`.

In: the text. Out: a `Form`, and from it, for so many devices and microbatches, the schedule. `FORMS` is the one place
where a schedule's name meets its function.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from .actions import Action, Schedule, Shape, looped, one_chunk_each, vee
from .greedy import equal, greedy
from .orders import gpipe, interleaved, one_f_one_b, zero_bubble
from .simulate import Prices
from .transfers import complete

MOST_UNITS = 4_000_000  # actions that a schedule may have: beyond, writing it down takes minutes
TOKEN_SLICES = "token_slices"
WRITTEN = re.compile(r"\s*([a-z0-9_]+)\s*(?:\(\s*(\d+(?:\s*,\s*\d+)*)\s*\))?\s*")


class FormFault(ValueError):
    """A schedule that cannot be: what is wrong, and what would mend it."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.hint = hint


@dataclass(frozen=True, slots=True)
class Form:
    """A schedule without its size.

    chunks  each device's, where it is not the schedule's own
    slices  lengths of token slices; a single number n of `token_slices(n)` is that many equal ones; empty: not cut
    """

    name: str
    chunks: int = 1
    slices: tuple[int, ...] = ()

    @property
    def count(self) -> int:
        """How many slices a microbatch has."""
        return max(1, self.slices[0] if len(self.slices) == 1 else len(self.slices))

    def lengths(self, tokens: int) -> tuple[int, ...]:
        """The slices of a row, the longer ones first where it does not come out even."""
        if self.count == 1 or len(self.slices) > 1:
            return self.slices if len(self.slices) > 1 else (tokens,)
        each, more = divmod(tokens, self.count)
        return (each + 1,) * more + (each,) * (self.count - more)

    def placement(self, devices: int) -> tuple[int, ...]:
        """The device of each chunk."""
        return FORMS[self.name].placement(devices, self.chunks)

    def __str__(self) -> str:
        arguments = self.slices if self.name == TOKEN_SLICES else (self.chunks,) if FORMS[self.name].counted else ()
        return self.name + (f"({', '.join(map(str, arguments))})" if arguments else "")


@dataclass(frozen=True, slots=True)
class _Kind:
    """orders: shape and prices to orders. counted: whether the number of chunks a device is an argument."""

    orders: Callable[[Shape, Prices], list[list[Action]]]
    placement: Callable[[int, int], tuple[int, ...]]
    counted: bool = False


def _plain(orders: Callable[[Shape], list[list[Action]]]) -> Callable[[Shape, Prices], list[list[Action]]]:
    """Orders that follow a rule, whatever things take."""
    return lambda shape, prices: orders(shape)


def _single(devices: int, chunks: int) -> tuple[int, ...]:
    return one_chunk_each(devices)


FORMS: Mapping[str, _Kind] = MappingProxyType(
    {
        "gpipe": _Kind(_plain(gpipe), _single),
        "1f1b": _Kind(_plain(one_f_one_b), _single),
        "interleaved": _Kind(_plain(interleaved), looped, counted=True),
        "zero_bubble": _Kind(_plain(zero_bubble), _single),
        "zero_bubble_v": _Kind(greedy, lambda devices, chunks: vee(devices)),
        "list": _Kind(greedy, looped, counted=True),
        TOKEN_SLICES: _Kind(_plain(one_f_one_b), _single),
    }
)


def parse_form(text: str) -> Form:
    """What is written after `schedule =`. Raises FormFault."""
    found = WRITTEN.fullmatch(text)
    if found is None or found[1] not in FORMS:
        raise FormFault(f"no schedule `{text.strip()}`", f"there are {', '.join(FORMS)}")
    name, numbers = found[1], tuple(int(n) for n in (found[2] or "").split(",") if n.strip())
    if any(n == 0 or n > 1 << 20 for n in numbers):
        raise FormFault(f"`{text.strip()}`: {max(numbers, key=lambda n: n == 0 or n)} cannot be", "numbers from 1 on")
    if name == TOKEN_SLICES:
        if not numbers:
            raise FormFault("`token_slices` needs a number of slices, or their lengths", "token_slices(4)")
        return Form(name, slices=numbers)
    if FORMS[name].counted:
        if len(numbers) > 1:
            raise FormFault(f"`{name}` takes one number, the chunks of each device", f"{name}(2)")
        return Form(name, chunks=numbers[0] if numbers else 2 if name == "interleaved" else 1)
    if numbers:
        raise FormFault(f"`{name}` takes no number", name)
    return Form(name)


def build(form: Form, devices: int, microbatches: int, prices: Prices = equal) -> Schedule:
    """The schedule. `prices` steer those that are found by a list scheduler. Raises FormFault where there is none."""
    plain = computing(form, devices, microbatches, prices)
    return complete(plain.name, plain.shape, plain.actions)


def computing(form: Form, devices: int, microbatches: int, prices: Prices = equal) -> Schedule:
    """The schedule without messages and what gradients need: just in which order devices compute. Raises FormFault."""
    assert devices >= 1, "a pipeline has a device"
    assert microbatches >= 1, "a step has a microbatch"
    shape = Shape(form.placement(devices), (form.count,) * microbatches)
    units = len(shape.placement) * microbatches * form.count
    if units > MOST_UNITS:
        raise FormFault(
            f"{units:,} (chunk, microbatch, slice) are more than {MOST_UNITS:,}", "fewer microbatches or slices"
        )
    return Schedule(str(form), shape, tuple(map(tuple, FORMS[form.name].orders(shape, prices))))
