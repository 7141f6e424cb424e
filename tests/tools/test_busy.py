"""What others took of a machine: read off the system's own account, less what is one's own."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from partita.tools import busy
from partita.tools.busy import Watch, busy_seconds, share


def test_the_machine_says_how_long_it_was_busy(tmp_path: Path) -> None:
    stat = tmp_path / "stat"
    stat.write_text("cpu  100 20 30 999 999 1 2 7 50 0\ncpu0 1 1 1 1 1 1 1 1 1 1\n")
    assert busy_seconds(stat) == pytest.approx(160 / os.sysconf("SC_CLK_TCK"))
    assert busy_seconds(tmp_path / "none") == 0.0


def test_others_are_what_is_not_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cores = os.cpu_count() or 1
    assert share(3.0 * cores, 1.0 * cores, 4.0) == pytest.approx(0.5)
    assert share(0.0, 1.0, 4.0) == share(1.0, 0.0, 0.0) == 0.0
    monkeypatch.setattr(busy, "busy_seconds", lambda: 1e6)
    assert Watch().others() == 0.0
