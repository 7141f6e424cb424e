"""Freed memory stays with the process: what is made again faults no page."""

from __future__ import annotations

import subprocess
import sys

import pytest
from partita.runtime.allocator import OWN_SETTINGS, keep_freed_memory

# In a process of its own: how the memory of one that ran other tests is cut up is nobody's promise.
COUNT = """
import resource
import torch
from partita.runtime.allocator import keep_freed_memory

BYTES = 1 << 26  # beyond what glibc keeps by itself


def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


if keep_freed_memory():
    for _ in range(20):  # until small blocks have found places that are in no large one's way
        torch.zeros(BYTES, dtype=torch.uint8)
    before = faults()
    for _ in range(4):
        torch.zeros(BYTES, dtype=torch.uint8)
    print((faults() - before) / (BYTES // resource.getpagesize()))
"""


def test_memory_that_was_freed_is_there_at_once() -> None:
    ran = subprocess.run([sys.executable, "-c", COUNT], capture_output=True, text=True, check=True)
    if not ran.stdout:
        pytest.skip("not this C library")
    assert float(ran.stdout) < 0.25


def test_settings_of_ones_own_stand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(OWN_SETTINGS[0], "1000000")
    assert not keep_freed_memory()
