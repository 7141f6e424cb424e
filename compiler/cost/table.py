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
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeAlias

from ...runtime.call import Call, Timed
from ..ir.types import DType
from ..ops.collectives import COLLECTIVES
from .cluster import BUCKET_BYTES, GLOO_BUCKET_BYTES, Cluster, Level, Link, Message
from .roofline import Machine

FORMAT = 3
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

    threads    how many the kernels ran on
    messages   collectives among processes of this machine
    processes  how many timed their kernels at once
    cores      that the processes share; 0 where each has a device of its own
    probes     which set of probes it was: under another one the same kernel may have been called otherwise
    """

    device: str
    torch: str
    threads: int
    memory_bytes: int
    machine: Machine
    points: tuple[Timed, ...] = ()
    messages: tuple[Message, ...] = ()
    processes: int = 1
    cores: int = 0
    probes: int = 0
    _ratios: dict[tuple[str, str], _Points] = field(
        init=False, repr=False, compare=False, default_factory=dict[tuple[str, str], _Points]
    )

    def __post_init__(self) -> None:
        for point in self.points:
            ratio = point.seconds / roofline_s(point.call, self.machine)[0]
            place = self._ratios.setdefault((point.call.kernel, point.call.dtype), [])
            place.append((_place(point.call.sizes), math.log(ratio)))

    def cluster(self) -> Cluster:
        """The machine as so many devices as there were processes, its memory shared out among them.

        Messages are what they take where as many processes work as have a core: what is shared is reckoned with when
        it is known how many work at once.
        """
        crowd = self.cores // self.threads if self.cores else 0
        abreast = crowd if 0 < crowd < self.processes else None
        bucket = BUCKET_BYTES if self.device.startswith("cuda") else GLOO_BUCKET_BYTES
        bare = Cluster(self.machine, self.memory_bytes // self.processes, (), abreast=abreast, bucket_bytes=bucket)
        sent = tuple(replace(one, seconds=one.seconds / bare.share(one.devices)) for one in self.messages)
        levels = (Level(self.processes, link_of(sent)),) if sent else ()
        return replace(bare, levels=levels, messages=sent)

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


def link_of(messages: Sequence[Message]) -> Link:
    """The latency α and the bandwidth β that fit what was timed: least Σ (a α + b/β - t)² / t², both positive.

    a and b are what the formulas of `cluster.py` make of one second and of one byte a second.
    """
    late = [m.by_links_s(Link(math.inf, 1.0)) / m.seconds for m in messages]
    wide = [m.by_links_s(Link(1.0, 0.0)) / m.seconds for m in messages]
    aa, bb, ab = (sum(x * y for x, y in zip(u, v, strict=True)) for u, v in ((late, late), (wide, wide), (late, wide)))
    a, b, size = sum(late), sum(wide), aa * bb - ab * ab
    least = min(m.seconds / m.bytes_ for m in messages) / 1e3  # seconds a byte, where the fit would go below nothing
    if size <= 1e-9 * aa * bb:  # of one kind and size: all of it is taken to be bytes
        return Link(bb / b, 1e-7)
    latency, byte_s = (a * bb - b * ab) / size, (b * aa - a * ab) / size
    if byte_s < least:
        latency, byte_s = (a - least * ab) / aa, least
    return Link(1 / byte_s, max(latency, 1e-7))


def _place(sizes: Sequence[int]) -> tuple[float, ...]:
    return tuple(math.log2(1 + size) for size in sizes)


# ---- files


def read_table(path: Path) -> Table:
    """The table in a file. Raises OSError, TableError."""
    with path.open("rb") as file:
        data = file.read(MOST_BYTES + 1)
    try:
        return from_json(data.decode())
    except UnicodeDecodeError as fault:
        raise TableError("it is not UTF-8") from fault


def to_json(table: Table) -> str:
    """The table as text."""
    machine = table.machine
    data = {
        "format": FORMAT,
        "device": table.device,
        "torch": table.torch,
        "threads": table.threads,
        "memory_bytes": table.memory_bytes,
        "processes": table.processes,
        "cores": table.cores,
        "probes": table.probes,
        "flops_per_s": {dtype.value: rate for dtype, rate in machine.flops_per_s.items()},
        "elementwise_per_s": machine.elementwise_per_s,
        "bandwidth_bytes_per_s": machine.bandwidth_bytes_per_s,
        "launch_s": machine.launch_s,
        "points": [
            [p.call.kernel, p.call.dtype, list(p.call.sizes), p.call.flops, p.call.bytes, p.seconds]
            for p in table.points
        ],
        "messages": [[m.kind, m.devices, m.bytes_, m.seconds] for m in table.messages],
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
        if max(len(data["points"]), len(data["messages"])) > MOST_POINTS:
            raise TableError(f"it has more than {MOST_POINTS:,} points")
        rates = {DType(str(name)): _rate(rate) for name, rate in data["flops_per_s"].items()}
        if DType.F32 not in rates:
            raise TableError("it has no rate for f32")
        machine = Machine(
            rates, _rate(data["elementwise_per_s"]), _rate(data["bandwidth_bytes_per_s"]), _seconds(data["launch_s"])
        )
        points = tuple(_point(row) for row in data["points"])
        words = [str(data[name])[:200] for name in ("device", "torch")]
        sent = tuple(_message(row) for row in data["messages"])
        threads, memory, processes, cores, probes = (
            _count(data[name]) for name in ("threads", "memory_bytes", "processes", "cores", "probes")
        )
        if min(threads, processes) < 1:
            raise TableError("it was timed by nobody")
        return Table(words[0], words[1], threads, memory, machine, points, sent, processes, cores, probes)
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError, RecursionError) as fault:
        raise fault if isinstance(fault, TableError) else TableError(f"it is no table: {fault}") from fault


def _point(row: Sequence[Any]) -> Timed:
    kernel, dtype, sizes, flops, moved, seconds = row
    if not isinstance(kernel, str) or not isinstance(dtype, str) or len(sizes) > MOST_SIZES:
        raise TableError(f"it has a point that cannot be: {str(row)[:80]}")
    return Timed(
        Call(kernel[:100], dtype[:20], tuple(_count(n) for n in sizes), _count(flops), _count(moved)), _seconds(seconds)
    )


def _message(row: Sequence[Any]) -> Message:
    kind, devices, bytes_, seconds = row
    if kind not in COLLECTIVES or _count(devices) < 2 or _count(bytes_) < 1:
        raise TableError(f"it has a message that cannot be: {str(row)[:80]}")
    return Message(kind, devices, bytes_, _seconds(seconds))


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
