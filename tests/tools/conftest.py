"""The machine is measured once for all commands that ask for it: each measurement takes two seconds."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from unittest.mock import patch

import pytest
from partita.tools import calibration


@pytest.fixture(autouse=True, scope="session")
def measured_once() -> Iterator[None]:  # pyright: ignore[reportUnusedFunction]
    with patch.object(calibration, "measure", cache(calibration.measure)):
        yield
