"""What kernels took on a machine, and what others will take: interpolated by shape and type between what was timed.

In: points, each a kernel's name, its element type, its sizes and the seconds of one call. Out: the seconds of any call.
A call's roofline time t0 = launch + max(flops / peak, bytes / bandwidth) carries most of the dependence on its sizes;
what is left, t / t0, is interpolated over log2 of the sizes by inverse distance (Shepard 1968), so that a point gives
back what was timed there. A kernel that nobody timed takes the ratio of a plain elementwise one, without any table 1.

The table lies in a file that anybody may have written: reading it is bounded, and every number is checked.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from ...runtime.call import Call, Timed
from ..ir.types import DType
from .roofline import Machine

FORMAT = 1
PLAIN = "add"  # stands for elementwise kernels that nobody timed; `add_` for those in place
MOST_BYTES, MOST_POINTS, MOST_SIZES = 1 << 22, 20_000, 4
SLOWEST_S, LARGEST = 1e4, 1 << 50
_Points: TypeAlias = list[tuple[tuple[float, ...], float]]  # a place, and the log of the ratio there
NEAR, POWER = 0.05, 2.0  # within a fifth of a doubling a point speaks alone


class TableError(ValueError):
    """A file is no table of this format; the message says in what."""


def roofline_s(call: Call, machine: Machine) -> tuple[float, str]:
    """Seconds of a call that reaches the machine's own figures, and what bounds it."""
    product = call.kernel.startswith(("matmul", "attention"))
    known = DType(call.dtype) if call.dtype in DType._value2member_map_ else DType.F32
    arithmetic = call.flops / (machine.matmul(known) if product else machine.elementwise_per_s)
    traffic = call.bytes / machine.bandwidth_bytes_per_s
    bound = max((machine.launch_s, "launch"), (arithmetic, "arithmetic"), (traffic, "bandwidth"))[1]
    return machine.launch_s + max(arithmetic, traffic), bound


@dataclass(frozen=True)
class Table:
    """A machine's figures and what was timed on it. `device` and `torch` say where and with what.

    threads  how many the kernels ran on
    """

    device: str
    torch: str
    threads: int
    memory_bytes: int
    machine: Machine
    points: tuple[Timed, ...] = ()
    _ratios: dict[tuple[str, str], _Points] = field(
        init=False, repr=False, compare=False, default_factory=dict[tuple[str, str], _Points]
    )

    def __post_init__(self) -> None:
        for point in self.points:
            ratio = point.seconds / roofline_s(point.call, self.machine)[0]
            place = self._ratios.setdefault((point.call.kernel, point.call.dtype), [])
            place.append((_place(point.call.sizes), math.log(ratio)))

    def seconds(self, call: Call) -> float:
        """One call, by what was timed nearest to it."""
        return roofline_s(call, self.machine)[0] * self.ratio(call)

    def ratio(self, call: Call) -> float:
        """How many times the roofline's seconds a call takes."""
        named = self._ratios.get((call.kernel, call.dtype)) or self._ratios.get((call.kernel, "f32"), [])
        points = [p for p in named if len(p[0]) == len(call.sizes)]
        at = _place(call.sizes)
        if not points:
            plain = f"{PLAIN}_" if call.kernel.endswith("_") else PLAIN
            points = self._ratios.get((plain, call.dtype)) or self._ratios.get((plain, "f32"), [])
            at = _place((max(1, call.bytes // 12),))  # an addition moves 12 bytes an element
        if not points:
            return 1.0
        weights = [(1 / (math.dist(at, place) ** 2 + NEAR) ** POWER, ratio) for place, ratio in points]
        return math.exp(sum(w * r for w, r in weights) / sum(w for w, _ in weights))


def _place(sizes: Sequence[int]) -> tuple[float, ...]:
    return tuple(math.log2(1 + size) for size in sizes)


# ---- files


def to_json(table: Table) -> str:
    """The table as text."""
    machine = table.machine
    data = {
        "format": FORMAT,
        "device": table.device,
        "torch": table.torch,
        "threads": table.threads,
        "memory_bytes": table.memory_bytes,
        "flops_per_s": {dtype.value: rate for dtype, rate in machine.flops_per_s.items()},
        "elementwise_per_s": machine.elementwise_per_s,
        "bandwidth_bytes_per_s": machine.bandwidth_bytes_per_s,
        "launch_s": machine.launch_s,
        "points": [
            [p.call.kernel, p.call.dtype, list(p.call.sizes), p.call.flops, p.call.bytes, p.seconds]
            for p in table.points
        ],
    }
    return json.dumps(data, indent=None, separators=(",", ":")).replace('[["', '[\n["').replace("],[", "],\n[") + "\n"


def from_json(text: str) -> Table:
    """The table in a text that nobody vouches for. Raises TableError."""
    if len(text) > MOST_BYTES:
        raise TableError(f"it is longer than {MOST_BYTES:,} bytes")
    try:
        data: Any = json.loads(text)
        if data["format"] != FORMAT:
            raise TableError(f"it has format {data['format']!r}; this is format {FORMAT}")
        if len(data["points"]) > MOST_POINTS:
            raise TableError(f"it has more than {MOST_POINTS:,} points")
        rates = {DType(str(name)): _rate(rate) for name, rate in data["flops_per_s"].items()}
        if DType.F32 not in rates:
            raise TableError("it has no rate for f32")
        machine = Machine(
            rates, _rate(data["elementwise_per_s"]), _rate(data["bandwidth_bytes_per_s"]), _seconds(data["launch_s"])
        )
        points = tuple(_point(row) for row in data["points"])
        words = [str(data[name])[:200] for name in ("device", "torch")]
        return Table(words[0], words[1], _count(data["threads"]), _count(data["memory_bytes"]), machine, points)
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError, RecursionError) as fault:
        raise fault if isinstance(fault, TableError) else TableError(f"it is no table: {fault}") from fault


def _point(row: Sequence[Any]) -> Timed:
    kernel, dtype, sizes, flops, moved, seconds = row
    if not isinstance(kernel, str) or not isinstance(dtype, str) or len(sizes) > MOST_SIZES:
        raise TableError(f"it has a point that cannot be: {str(row)[:80]}")
    return Timed(
        Call(kernel[:100], dtype[:20], tuple(_count(n) for n in sizes), _count(flops), _count(moved)), _seconds(seconds)
    )


def _count(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= LARGEST:
        raise TableError(f"{str(value)[:40]} is no count")
    return value


def _rate(value: object) -> float:
    if not isinstance(value, int | float) or not 1.0 <= value <= 1e21:
        raise TableError(f"{str(value)[:40]} is no rate")
    return float(value)


def _seconds(value: object) -> float:
    if not isinstance(value, int | float) or not 1e-12 <= value <= SLOWEST_S:
        raise TableError(f"{str(value)[:40]} is no time")
    return float(value)
