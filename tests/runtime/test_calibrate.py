"""Kernels are timed as a step's calls are: each once a round, in ever another order, the median of the rounds."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from partita.runtime import calibrate
from partita.runtime.calibrate import STEP_BYTES, Effort, timed

CPU = torch.device("cpu")
ROUNDS = Effort(0.0, 5)


def probe(number: int, order: list[int]) -> Callable[[], object]:
    """Writes down that it was called."""
    x = torch.ones(2 + number)

    def call() -> torch.Tensor:
        order.append(number)
        return torch.ops.aten.neg.default(x)

    return call


def test_each_is_called_once_a_round_in_another_order() -> None:
    order: list[int] = []
    found = timed([probe(number, order) for number in range(8)], CPU, ROUNDS)
    rounds = [order[8 * i : 8 * (i + 1)] for i in range(1, 6)]  # behind the calls that were described
    assert len(order) == 48 and all(sorted(one) == list(range(8)) for one in rounds)
    assert len({tuple(one) for one in rounds}) > 1
    assert [point.call.sizes for point in found] == [*((2 + number,) for number in range(8)), ()]


def test_the_median_of_the_rounds_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = iter([number for taken in (9.0, 1.0, 2.0, 8.0, 3.0) for number in (0.0, taken, 0.0, 0.5)])
    monkeypatch.setattr(calibrate, "clock", lambda device: lambda: next(ticks))  # pyright: ignore[reportUnknownArgumentType, reportUnknownLambdaType]
    kernel, view = timed([probe(0, [])], CPU, ROUNDS)
    assert (kernel.seconds, kernel.call.kernel) == (3.0, "neg")
    assert (view.seconds, view.call.kernel) == (0.25, "view")


def test_small_calls_run_among_as_many_as_a_step_has() -> None:
    """What is small is dealt into decks; what is large makes one of its own, behind them."""
    order: list[int] = []
    count = STEP_BYTES // 2**22
    sizes = [torch.zeros(2**19) for _ in range(2 * count)] + [torch.zeros(2**22)]

    def call(number: int) -> torch.Tensor:
        order.append(number)
        return torch.ops.aten.neg.default(sizes[number])

    timed([lambda number=number: call(number) for number in range(len(sizes))], CPU, Effort(0.0, 2))
    order = order[len(sizes) :]
    assert order[-2:] == [2 * count] * 2
    first = set(order[: count + 1])
    assert len(first) == count + 1 == len(set(order[count + 1 : 2 * count + 2]) & first)


def test_the_first_operand_was_just_made_and_keeps_its_values() -> None:
    x, y = torch.randn(64, 64), torch.randn(64, 64)
    before, version = x.clone(), y._version
    timed([lambda: torch.ops.aten.mm.default(x, y)], CPU, ROUNDS)
    assert torch.equal(x, before) and x._version == ROUNDS.least_rounds and y._version == version
