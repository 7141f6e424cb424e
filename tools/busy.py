"""How much of a machine's cores others took while something was timed on it.

`/proc/stat` says how long all cores were busy (proc(5); a hypervisor's steal among it), in hundredths of a second;
where there is none, nobody else is seen.
"""

from __future__ import annotations

import os
import resource
import time
from pathlib import Path

STAT = Path("/proc/stat")
IDLE, GUESTS = (3, 4), 8  # places of idle and iowait; from `guest` on everything is counted among what is before
DISTURBED = 0.1  # of the cores' time: more than what the clock's hundredths and the system itself come to


def busy_seconds(stat: Path = STAT) -> float:
    """What all cores together were busy since the machine was started; 0 where nothing says so."""
    try:
        first = stat.read_text(encoding="ascii", errors="replace").partition("\n")[0].split()[1 : 1 + GUESTS]
        return sum(int(ticks) for at, ticks in enumerate(first) if at not in IDLE) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError):
        return 0.0


def share(busy: float, own: float, wall: float) -> float:
    """Of the cores' time what others took: `busy` seconds of all cores, of them `own`, within `wall` seconds."""
    return max(0.0, busy - own) / (wall * (os.cpu_count() or 1)) if wall > 0 else 0.0


class Watch:
    """From here on: what this process, and those that it started and that have ended, leave to others."""

    def __init__(self) -> None:
        self.begin = self._now()

    def others(self) -> float:
        """Their share of the cores since then."""
        busy, own, wall = (now - then for now, then in zip(self._now(), self.begin, strict=True))
        return share(busy, own, wall)

    @staticmethod
    def _now() -> tuple[float, float, float]:
        used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        return busy_seconds(), sum(one.ru_utime + one.ru_stime for one in used), time.perf_counter()
