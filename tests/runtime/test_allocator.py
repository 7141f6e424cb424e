"""Freed memory stays with the process: what is made again faults no page."""

from __future__ import annotations

import resource

import pytest
import torch
from partita.runtime.allocator import OWN_SETTINGS, keep_freed_memory

BYTES = 1 << 26  # beyond what glibc keeps by itself


def faults() -> int:
    """Page faults of this process."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


def test_memory_that_was_freed_is_there_at_once() -> None:
    if not keep_freed_memory():
        pytest.skip("not this C library")
    for _ in range(3):
        torch.zeros(BYTES, dtype=torch.uint8)
    before = faults()
    for _ in range(4):
        torch.zeros(BYTES, dtype=torch.uint8)
    assert faults() - before < BYTES // resource.getpagesize() // 4


def test_settings_of_ones_own_stand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(OWN_SETTINGS[0], "1000000")
    assert not keep_freed_memory()
