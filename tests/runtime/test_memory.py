"""Measured memory is what the allocator gave, to the byte where the sizes are known."""

from __future__ import annotations

import pytest
import torch
from partita.runtime.memory import held_bytes, measure_peak

CPU = torch.device("cpu")


def test_what_is_held_counts_each_storage_once() -> None:
    x = torch.zeros(1000)
    assert held_bytes([x, x.view(10, 100), torch.zeros(3)]) == 4012


def test_the_peak_is_what_was_alive_at_once() -> None:
    x = torch.zeros(100_000)

    def call() -> torch.Tensor:
        a = x + 1
        b = a * 2
        del a
        return b - 1  # x, b and this

    result, peak = measure_peak(call, [x], CPU)
    assert result.shape == x.shape
    assert 3 * 400_000 <= peak <= 3 * 400_000 + 4096


def test_nothing_is_nothing_and_nothing_is_printed(capfd: pytest.CaptureFixture[str]) -> None:
    assert measure_peak(lambda: 5, [], CPU) == (5, 0)
    assert capfd.readouterr() == ("", "")
