"""Keeps freed memory with the process, so that a step does not ask the system for it again.

By default glibc gives blocks beyond 32 MiB back at once: a step that frees a gradient of 64 MiB then pays 16,384 page
faults when it makes the next one. What a run holds at its peak it holds throughout. Other C libraries are left alone,
and so are settings of the user's own (`mallopt(3)`).
"""

from __future__ import annotations

import ctypes
import os

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # parameters of mallopt, as malloc.h numbers them
LARGEST_KEPT_BYTES = 1 << 30
OWN_SETTINGS = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")


def keep_freed_memory() -> bool:
    """From here on blocks of up to 1 GiB are kept when they are freed; whether the C library could be told so."""
    if any(name in os.environ for name in OWN_SETTINGS):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    return mallopt(MMAP_THRESHOLD, LARGEST_KEPT_BYTES) == 1 and mallopt(TRIM_THRESHOLD, -1) == 1
