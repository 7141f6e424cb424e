"""numpy, loaded at first use.

In: nothing. Out: `np`. The references of the operators need numpy; inferring shapes does not, and `partita check`,
which only infers, should not wait for it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any


class _Late:
    """A module that is imported when something is first asked of it."""

    def __init__(self, module: str) -> None:
        self._module = module

    def __getattr__(self, name: str) -> Any:
        return getattr(importlib.import_module(self._module), name)


if TYPE_CHECKING:
    import numpy as np
else:
    np = _Late("numpy")

__all__ = ["np"]
